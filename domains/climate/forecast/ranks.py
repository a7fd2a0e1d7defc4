"""Where the truth lies among the members of an ensemble; a calibrated one has it at every rank alike.

Source: Hamill (2001), https://doi.org/10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2, for rank histograms; Delle
Monache et al. (2006), https://doi.org/10.1029/2005JD006917, for the distance from a flat one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from domains.climate.forecast.cases import ScoredCases
from sciml.domain.score import Metric, Score

RANKS = Metric("rank_histogram", "distance of the rank histogram from flat", unit="1", judges_spread=True)


class RankHistogram:
    """Adds up the shares of area in which the truth has each rank; cells where members equal it count for all of these.

    Args:
        members: of the ensemble.
        area: weight of each cell.
        lead_times_h: that are scored.
    """

    def __init__(
        self,
        channels: Sequence[str],
        members: int,
        area: Float[Tensor, "latitude _longitude"],
        lead_times_h: Sequence[float],
    ) -> None:
        self.channels, self.members, self.area, self.lead_times_h = channels, members, area, lead_times_h
        shape = len(lead_times_h), len(channels), members + 1
        self.shares = torch.zeros(shape, dtype=torch.float64, device=area.device)

    def sums(self) -> list[Tensor]:
        return [self.shares]

    def update(self, cases: ScoredCases) -> None:
        if cases.ensemble is None:
            return
        truth = cases.truth[:, None]
        below, ties = (cases.ensemble < truth).sum(1), (cases.ensemble == truth).sum(1)
        weights = self.area.expand_as(cases.truth) / (ties + 1)
        if cases.known is not None:
            weights = torch.where(cases.known, weights, 0.0)
        ranks = [
            (weights * ((below <= rank) & (rank <= below + ties))).sum((-2, -1)) for rank in range(self.members + 1)
        ]
        self.shares.index_add_(0, cases.lead, torch.stack(ranks, dim=-1))

    def scores(self) -> list[Score]:
        found = []
        for i, hours in enumerate(self.lead_times_h):
            for j, channel in enumerate(self.channels):
                total = self.shares[i, j].sum().item()
                if total > 0:
                    shares = (self.shares[i, j] / total).tolist()
                    distance = sum(abs(share - 1 / len(shares)) for share in shares)
                    curve = {"rank": tuple(map(float, range(len(shares)))), "share": tuple(shares)}
                    found.append(Score(channel, RANKS, distance, "1", hours, curve=curve))
        return found
