"""Means of what is measured of single forecasts, by lead time and variable: accumulated, and added over ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sciml.core.devices import widest_float
from sciml.domain.score import Metric, Score

TOLERANCE = 1e-3
"""Largest difference of two lead times that are the same, as a share of the shortest one that is scored."""
NUM_GROUPS = 64
"""Groups of cases that are summed apart; where there are more, some share a sum, which widens no interval."""
FEWEST_GROUPS = 4
"""Fewer independent groups say nothing about how far a mean may be off."""
CONFIDENCE = 0.95


def scored_positions(
    lead_time_h: Float[Tensor, "batch"], scored_h: Sequence[float]
) -> tuple[Int[Tensor, "scored"], Int[Tensor, "scored"]]:
    """Returns positions among the scored lead times, on the CPU, and the numbers of the samples that stand there."""
    known = torch.tensor(scored_h, dtype=torch.float64)
    differences = (lead_time_h.detach().cpu().double()[:, None] - known).abs()
    sample, lead = (differences < TOLERANCE * known.min()).nonzero(as_tuple=True)
    return lead, sample.to(lead_time_h.device)


class LeadTimeSums:
    """Sums and counts, in float64 where the device has it, by metric, scored lead time and variable.

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
        shape = (2, NUM_GROUPS, len(self.lead_times_h), len(self.units))  # count, sum
        self.dtype = widest_float(device)
        self._tables = {metric: torch.zeros(shape, dtype=self.dtype, device=device) for metric in metrics}

    def sums(self) -> list[Tensor]:
        """Returns the accumulators in a fixed order; adding them over ranks in place is all there is to do."""
        return list(self._tables.values())

    def scored(self, lead_time_h: Float[Tensor, "batch"]) -> tuple[Int[Tensor, "scored"], Int[Tensor, "scored"]]:
        """Returns positions among the scored lead times, and the numbers of the samples that stand there."""
        lead, sample = scored_positions(lead_time_h, self.lead_times_h)
        return lead.to(self.device), sample

    def add(
        self,
        metric: Metric,
        lead: Int[Tensor, "scored"],
        values: Float[Tensor, "scored variable"],
        counted: Bool[Tensor, "scored variable"] | None = None,
        group: Int[Tensor, "scored"] | None = None,
    ) -> None:
        """Adds what was measured of some forecasts at the lead times of these positions.

        Args:
            counted: of which variables the truth is known; None for all.
            group: a number for each forecast, the same for those that depend on one another, such as forecasts of one
                flow; where it is None, scores have no interval.
        """
        values = values.to(self.device, self.dtype)
        counts = torch.ones_like(values) if counted is None else counted.to(values)
        row = torch.zeros_like(lead) if group is None else group.to(lead) % NUM_GROUPS
        added = torch.stack([counts, values if counted is None else values * counts])
        self._tables[metric].flatten(1, 2).index_add_(1, row * len(self.lead_times_h) + lead, added)

    def scores(self) -> Iterator[Score]:
        """Yields the scores of all lead times that were met: by lead time, variable and metric."""
        tables = {metric: table.cpu().numpy() for metric, table in self._tables.items()}
        for i, hours in enumerate(self.lead_times_h):
            for j, (variable, own_unit) in enumerate(self.units.items()):
                for metric, table in tables.items():
                    counts, totals = table[:, :, i, j]
                    if cases := counts.sum():
                        value = metric.reduce(float(totals.sum() / cases))
                        unit = own_unit if metric.unit is None else metric.unit
                        interval = jackknife(metric, counts, totals)
                        yield Score(variable, metric, value, unit, hours, int(cases), interval)


def jackknife(
    metric: Metric, counts: Float[np.ndarray, "group"], totals: Float[np.ndarray, "group"]
) -> tuple[float, float] | None:
    """Returns the ends of the 95% interval of a score, from how it changes as each group of cases is left out.

    Unlike a bootstrap it is the same in every run and on any number of ranks, and costs no more than the score.

    Args:
        counts: cases of each group; those without any are passed over.
        totals: sums of what is averaged over them.

    Returns:
        None where there are too few groups, or a score is not finite.

    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, ch. 11.
    """
    from scipy.special import stdtrit  # quantiles of Student's t

    counts, totals = counts[counts > 0], totals[counts > 0]
    groups = len(counts)
    if groups < FEWEST_GROUPS:
        return None
    rests = (totals.sum() - totals) / (counts.sum() - counts)
    left_out = np.array([metric.reduce(float(rest)) for rest in rests])
    error = math.sqrt((groups - 1) * float(left_out.var()))
    if not math.isfinite(error):
        return None
    value = metric.reduce(float(totals.sum() / counts.sum()))
    reach = float(stdtrit(groups - 1, 0.5 + CONFIDENCE / 2)) * error
    return value - reach, value + reach
