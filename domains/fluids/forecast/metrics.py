"""Scores of forecasts of flows, accumulated over batches and addable over ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from domains.fluids.data.batch import FlowBatch
from domains.fluids.data.schema import FluidsSchema, FluidsStatistics
from domains.fluids.solver import VARIABLES, totals
from sciml.domain.protocol import Prediction
from sciml.domain.score import Metric, Score
from sciml.forecast.lead_time_sums import LeadTimeSums

TINY = 1e-7
"""Added to variances in normalized units, as in The Well."""
ROUNDING = 1e-6
"""Standard deviation of a field in space over its size, up to which it is the same everywhere but for rounding."""
VRMSE = Metric("vrmse", unit="1")
RMSE = Metric("rmse", reduce=math.sqrt)
CONSERVATION_ERROR = Metric("conservation_error", "conservation error", unit="1")
CONSERVED = ("mass", "energy")


class FluidsMetrics:
    """Computes VRMSE, RMSE, and the conservation errors of mass and energy, per lead time and variable.

    ======================  =================================================================================
    ``vrmse``               mean over samples of sqrt(mean squared error / variance of the truth in space); fields that
                            are the same everywhere are left out
    ``rmse``                square root of the mean squared error, in the variable's unit
    ``conservation_error``  mean over samples of abs(change since the start) over the amount at the start, of
                            mass and of the energy (kinetic + internal + potential)
    ======================  =================================================================================

    Source of VRMSE: Ohana et al. (2024), https://doi.org/10.48550/arXiv.2412.00568.

    Args:
        score_frames: frames ahead at which to score.
        device: where the sums are kept.
    """

    def __init__(
        self,
        schema: FluidsSchema,
        statistics: FluidsStatistics,
        score_frames: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> None:
        self.schema, self.statistics = schema, statistics
        self._fields: dict[str, LeadTimeSums] = {}
        self._totals: dict[str, LeadTimeSums] = {}
        for name, data_set in schema.data_sets.items():
            hours = [float(f"{frames * data_set.interval / 3600:.12g}") for frames in score_frames]
            units = {schema.score_name(name, variable): data_set.unit(variable) for variable in data_set.variables}
            conserved = {schema.score_name(name, amount): "1" for amount in CONSERVED}
            self._fields[name] = LeadTimeSums((VRMSE, RMSE), hours, units, device)
            self._totals[name] = LeadTimeSums((CONSERVATION_ERROR,), hours, conserved, device)

    def sums(self) -> list[Tensor]:
        """Returns the float64 accumulators in a fixed order."""
        return [total for table in (*self._fields.values(), *self._totals.values()) for total in table.sums()]

    @torch.no_grad()
    def update(self, prediction: Prediction, batch: FlowBatch) -> None:
        """Adds the samples of a batch whose next lead time is scored; without targets there is nothing to score."""
        for name, part in batch.parts.items():
            lead, chosen = self._fields[name].scored(part.next_lead_time.double() / 3600)
            if part.targets is None or len(lead) == 0:
                continue
            chosen = chosen.to(part.state.device)
            fields, truth = prediction.values[name][chosen].double(), part.targets[chosen, 0].double()
            fluid = None if part.fluid is None else part.fluid[chosen]
            flow = torch.tensor([part.starts[number].trajectory for number in chosen.tolist()]) if part.starts else None
            self._add_errors(name, lead, fields, truth, fluid, flow)
            if self.schema.data_sets[name].has_totals and part.profiles is not None:
                self._add_totals(name, lead, fields, part.initial[chosen].double(), part.profiles[chosen], flow)

    def compute(self) -> list[Score]:
        """Returns the scores of all lead times that were met."""
        return [
            score for name in self._fields for table in (self._fields, self._totals) for score in table[name].scores()
        ]

    def _add_errors(
        self,
        name: str,
        lead: Int[Tensor, "batch"],
        fields: Float[Tensor, "batch variable z x"],
        truth: Float[Tensor, "batch variable z x"],
        fluid: Bool[Tensor, "batch 1 z x"] | None,
        flow: Int[Tensor, "batch"] | None,
    ) -> None:
        weight = torch.ones_like(truth[:, :1]) if fluid is None else fluid.double()
        weight = weight / weight.sum((-2, -1), keepdim=True)

        def mean(values: Float[Tensor, "batch variable z x"]) -> Float[Tensor, "batch variable"]:
            return (values * weight).sum((-2, -1))

        variance = mean((truth - mean(truth)[..., None, None]).square())
        squared = mean((fields - truth).square())
        unit = self.statistics.scales[name].std.double() ** 2
        self._fields[name].add(RMSE, lead, squared, group=flow)
        # of a field that is the same everywhere there is no share of a variance
        varies = variance > (ROUNDING * mean(truth.square()).sqrt()).square()
        self._fields[name].add(VRMSE, lead, (squared / (variance + TINY * unit)).sqrt(), varies, flow)

    def _add_totals(
        self,
        name: str,
        lead: Int[Tensor, "batch"],
        fields: Float[Tensor, "batch variable z x"],
        initial: Float[Tensor, "batch variable z x"],
        profiles: Float[Tensor, "batch 2 z"],
        flow: Int[Tensor, "batch"] | None,
    ) -> None:
        data_set = self.schema.data_sets[name]
        order = [data_set.variables.index(variable) for variable in VARIABLES]
        before, after = (
            totals(states[:, order], profiles[:, 0], profiles[:, 1], data_set.dx, data_set.dz)
            for states in (initial, fields)
        )
        changes = [(getattr(after, kind) - getattr(before, kind)) / getattr(before, kind) for kind in CONSERVED]
        self._totals[name].add(CONSERVATION_ERROR, lead, torch.stack(changes, dim=1).abs(), group=flow)
