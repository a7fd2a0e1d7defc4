"""Heat and wind beyond the 95th percentile of the training: whether forecasts see them coming.

Each cell has a threshold of its own. The probability of an event is the share of members beyond it; one forecast says
yes or no.

Source: Wilks (2019), Statistical Methods in the Atmospheric Sciences, chapter 9, for the scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from domains.climate.data.states import States
from domains.climate.data.variables import channel_unit
from domains.climate.forecast.cases import ScoredCases
from sciml.domain.score import Metric, Score

PERCENTILE = 0.95
BRIER = Metric("brier_p95", "Brier score beyond the 95th percentile", unit="1")
ROC_AREA = Metric("roc_area_p95", "ROC area beyond the 95th percentile", better="higher", perfect=1.0, unit="1")
QUANTILE = Metric("quantile_score_p95", "quantile score of 95%")
WIND = "wind10"
"""Name of the speed of the wind at 10 m in scores."""
MOST_STATES, MOST_BYTES, AT_ONCE = 500, 2**30, 16

Thresholds = Mapping[str, Float[Tensor, "latitude longitude"]]


def quantities(channels: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Returns what is watched, as positions of channels: one itself, or two components of a wind."""
    found: dict[str, tuple[int, ...]] = {}
    if "t2m" in channels:
        found["t2m"] = (channels.index("t2m"),)
    if "u10" in channels and "v10" in channels:
        found[WIND] = (channels.index("u10"), channels.index("v10"))
    return found


def quantity(
    fields: Float[Tensor, "*case channel latitude longitude"], positions: tuple[int, ...]
) -> Float[Tensor, "*case latitude longitude"]:
    """Returns a channel, or the speed of a wind."""
    chosen = [fields[..., position, :, :] for position in positions]
    return chosen[0] if len(chosen) == 1 else torch.hypot(*chosen)


def thresholds_of(store: States) -> Thresholds:
    """Returns the 95th percentile of each cell over the training, from states that are spread evenly over it."""
    watched = quantities(store.schema.channels)
    if not watched:
        return {}
    cells = len(watched) * int(np.prod(store.schema.grid_shape))
    most = max(20, min(MOST_STATES, MOST_BYTES // (4 * cells)))
    chosen = store.spread("train", most)
    kept: dict[str, list[np.ndarray]] = {name: [] for name in watched}
    for part in np.array_split(chosen, -(-len(chosen) // AT_ONCE)):
        states = torch.from_numpy(store.read(part))
        for name, where in watched.items():
            kept[name].append(quantity(states, where).numpy())
    return {
        name: torch.from_numpy(np.quantile(np.concatenate(parts), PERCENTILE, axis=0)) for name, parts in kept.items()
    }


def upper(
    members: Float[Tensor, "case member latitude longitude"],
) -> Float[Tensor, "case latitude longitude"]:
    """Returns the 95th percentile of the members, interpolated between two of them."""
    position = PERCENTILE * (members.shape[1] - 1)
    ordered, below = members.sort(dim=1).values, int(position)
    above = min(below + 1, members.shape[1] - 1)
    return torch.lerp(ordered[:, below], ordered[:, above], position - below)


def pinball_loss(error: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Returns the quantile score of 95% of truths minus forecasts."""
    return torch.maximum(PERCENTILE * error, (PERCENTILE - 1) * error)


class Extremes:
    """Adds up Brier scores, quantile scores and shares of area by forecast probability, of events and of none.

    Args:
        thresholds: by name of what is watched.
        members: of the ensembles that are scored.
        area: weight of each cell.
        lead_times_h: that are scored.
    """

    def __init__(
        self,
        channels: Sequence[str],
        thresholds: Thresholds,
        members: int,
        area: Float[Tensor, "latitude _longitude"],
        lead_times_h: Sequence[float],
    ) -> None:
        self.watched = {name: where for name, where in quantities(channels).items() if name in thresholds}
        self.thresholds = {name: thresholds[name].to(area) for name in self.watched}
        self.members, self.area, self.lead_times_h = members, area, lead_times_h
        shape = len(lead_times_h), len(self.watched)
        self.totals = torch.zeros(3, *shape, dtype=torch.float64, device=area.device)  # weight, Brier, quantile
        self.shares = torch.zeros(*shape, 2, members + 1, dtype=torch.float64, device=area.device)

    def sums(self) -> list[Tensor]:
        return [self.totals, self.shares]

    def update(self, cases: ScoredCases) -> None:
        ones = torch.ones_like(cases.truth[:, 0])
        for number, (name, where) in enumerate(self.watched.items()):
            truth, members = quantity(cases.truth, where), quantity(cases.members, where)
            known = ones.bool() if cases.known is None else cases.known[:, list(where)].all(1)
            weights = torch.where(known, self.area * ones, 0.0)
            happened, share = truth > self.thresholds[name], (members > self.thresholds[name]).double().mean(1)
            brier, pinball = (share - happened.double()).square(), pinball_loss(truth - upper(members))
            values = [torch.where(known, value, 0.0) * weights for value in (ones, brier, pinball)]
            self.totals[:, :, number].index_add_(1, cases.lead, torch.stack(values).sum((-2, -1)))
            count = (share * self.members).round()
            for position in range(self.members + 1):
                at = weights * (count == position)
                both = torch.stack([(at * ~happened).sum((-2, -1)), (at * happened).sum((-2, -1))], dim=-1)
                self.shares[:, number, :, position].index_add_(0, cases.lead, both)

    def scores(self) -> list[Score]:
        found = []
        for i, hours in enumerate(self.lead_times_h):
            for j, (name, where) in enumerate(self.watched.items()):
                weight, brier, pinball = self.totals[:, i, j].tolist()
                if not weight:
                    continue
                unit = "m s-1" if len(where) > 1 else channel_unit(name)
                found.append(Score(name, BRIER, brier / weight, "1", hours))
                found.append(Score(name, QUANTILE, pinball / weight, unit, hours))
                none, event = self.shares[i, j]
                if none.sum() > 0 and event.sum() > 0:
                    found.append(Score(name, ROC_AREA, roc_area(none, event), "1", hours))
        return found


def roc_area(none: Float[Tensor, "probability"], event: Float[Tensor, "probability"]) -> float:
    """Returns the area below the relative operating characteristic: the chance that an event had a higher probability
    than a case without one, ties half.

    Args:
        none, event: how often each probability was forecast, in rising order.
    """
    below = none.cumsum(0) - none / 2
    return ((event * below).sum() / (event.sum() * none.sum())).item()
