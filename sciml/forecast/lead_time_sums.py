"""Means of what is measured of single forecasts, by lead time and variable: accumulated, and added over ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sciml.domain.score import Metric, Score

TOLERANCE = 1e-3
"""Largest difference of two lead times that are the same, as a share of the shortest one that is scored."""


class LeadTimeSums:
    """Sums and counts in float64, of each metric at each scored lead time and for each variable.

    Lead times are fixed beforehand, so that the sums of ranks that met different ones still add up. Squared errors of
    one variable may lie many orders of magnitude above those of another, which float32 would not stand.

    Args:
        metrics: in the order in which they are reported.
        lead_times_h: at which forecasts are scored, in hours; others are passed over.
        units: by name of the variables, as scores call them.
        device: where the sums are kept.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        lead_times_h: Sequence[float],
        units: Mapping[str, str],
        device: torch.device | str = "cpu",
    ) -> None:
        self.lead_times_h, self.units, self.device = sorted(map(float, lead_times_h)), dict(units), device
        shape = (2, len(self.lead_times_h), len(self.units))  # count, sum
        self._tables = {metric: torch.zeros(shape, dtype=torch.float64, device=device) for metric in metrics}

    def sums(self) -> list[Tensor]:
        """Returns the accumulators in a fixed order; adding them over ranks in place is all there is to do."""
        return list(self._tables.values())

    def scored(self, lead_time_h: Float[Tensor, "batch"]) -> tuple[Int[Tensor, "scored"], Int[Tensor, "scored"]]:
        """Returns positions among the scored lead times, and the numbers of the samples that stand there."""
        known = torch.tensor(self.lead_times_h, dtype=torch.float64)
        differences = (lead_time_h.detach().cpu().double()[:, None] - known).abs()
        sample, lead = (differences < TOLERANCE * known.min()).nonzero(as_tuple=True)
        return lead.to(self.device), sample.to(lead_time_h.device)

    def add(
        self,
        metric: Metric,
        lead: Int[Tensor, "scored"],
        values: Float[Tensor, "scored variable"],
        counted: Bool[Tensor, "scored variable"] | None = None,
    ) -> None:
        """Adds what was measured of some forecasts at the lead times of these positions.

        Args:
            counted: of which variables the truth is known; None for all.
        """
        values = values.to(self.device, torch.float64)
        counts = torch.ones_like(values) if counted is None else counted.to(values)
        self._tables[metric].index_add_(1, lead, torch.stack([counts, values if counted is None else values * counts]))

    def scores(self) -> Iterator[Score]:
        """Yields the scores of all lead times that were met: by lead time, variable and metric."""
        tables = {metric: table.cpu().tolist() for metric, table in self._tables.items()}
        for i, hours in enumerate(self.lead_times_h):
            for j, (variable, unit) in enumerate(self.units.items()):
                for metric, (counts, totals) in tables.items():
                    if count := counts[i][j]:
                        value = metric.reduce(totals[i][j] / count)
                        yield Score(variable, metric, value, unit if metric.unit is None else metric.unit, hours)
