"""Scores of forecasts of flows, accumulated over batches and addable over ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from domains.fluids.data.batch import FlowBatch, FlowPart
from domains.fluids.data.schema import FluidsSchema, FluidsStatistics
from domains.fluids.data.writers.ensemble import UNITS
from domains.fluids.solver import VARIABLES, totals
from sciml.domain.protocol import Prediction, Score

TINY = 1e-7
"""Added to variances in normalized units, as in The Well."""
TOLERANCE_S = 1e-3
BY_VARIABLE = ("count", "vrmse", "squared_error")
BY_FLOW = ("drift_count", "mass", "energy")


class FluidsMetrics:
    """VRMSE, RMSE, and the drift of mass and energy, per lead time and variable.

    =================  ======================================================================================
    ``vrmse``          mean over samples of sqrt(mean squared error / variance of the truth in space)
    ``rmse``           square root of the mean squared error, in the variable's unit
    ``drift``          mean over samples of abs(change since the start) over the amount at the start, of mass
                       and of the energy (kinetic + internal + potential)
    =================  ======================================================================================

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
        self.schema, self.statistics, self.frames, self.device = schema, statistics, sorted(score_frames), device
        self._sums: dict[tuple[str, str], Tensor] = {}
        for name, data_set in schema.data_sets.items():
            for kind in (*BY_VARIABLE, *BY_FLOW):
                columns = len(data_set.variables) if kind in BY_VARIABLE else 1
                shape = (len(self.frames), columns)
                self._sums[name, kind] = torch.zeros(shape, dtype=torch.float64, device=device)

    def sums(self) -> list[Tensor]:
        """The float64 accumulators, in a fixed order."""
        return list(self._sums.values())

    @torch.no_grad()
    def update(self, prediction: Prediction, batch: FlowBatch) -> None:
        """Adds the samples of a batch whose next lead time is scored; without targets there is nothing to score."""
        for name, part in batch.parts.items():
            lead, chosen = self._scored(name, part)
            if part.targets is None or len(lead) == 0:
                continue
            fields, truth = prediction.values[name][chosen].double(), part.targets[chosen, 0].double()
            fluid = None if part.fluid is None else part.fluid[chosen]
            self._add_errors(name, lead, fields, truth, fluid)
            if self.schema.data_sets[name].has_totals and part.profiles is not None:
                self._add_drift(name, lead, fields, part.initial[chosen].double(), part.profiles[chosen])

    def compute(self) -> list[Score]:
        """The scores of all lead times that were met."""
        scores = []
        for name, data_set in self.schema.data_sets.items():
            table = {kind: self._sums[name, kind].cpu() for kind in (*BY_VARIABLE, *BY_FLOW)}
            for i, frames in enumerate(self.frames):
                hours = round(frames * data_set.interval / 3600, 12)
                for j, variable in enumerate(data_set.variables):
                    if count := table["count"][i, j].item():
                        label, unit = self.schema.score_name(name, variable), UNITS.get(variable, "")
                        squared = table["squared_error"][i, j].item() / count
                        scores.append(Score(label, "vrmse", table["vrmse"][i, j].item() / count, "1", hours))
                        scores.append(Score(label, "rmse", squared**0.5, unit, hours))
                if count := table["drift_count"][i, 0].item():
                    for kind in ("mass", "energy"):
                        label = self.schema.score_name(name, kind)
                        scores.append(Score(label, "drift", table[kind][i, 0].item() / count, "1", hours))
        return scores

    def _scored(self, name: str, part: FlowPart) -> tuple[Tensor, Tensor]:
        """Positions in the scored frames and numbers of the samples that are scored."""
        interval = self.schema.data_sets[name].interval
        known = torch.tensor(self.frames, dtype=torch.float64) * interval
        match = (part.next_lead_time.detach().cpu()[:, None] - known).abs() < TOLERANCE_S * interval
        sample, lead = match.nonzero(as_tuple=True)
        return lead.to(self.device), sample.to(part.state.device)

    def _add(self, name: str, kind: str, lead: Tensor, values: Float[Tensor, "batch column"]) -> None:
        self._sums[name, kind].index_add_(0, lead, values.to(self.device))

    def _add_errors(self, name: str, lead: Tensor, fields: Tensor, truth: Tensor, fluid: Tensor | None) -> None:
        weight = torch.ones_like(truth[:, :1]) if fluid is None else fluid.double()
        weight = weight / weight.sum((-2, -1), keepdim=True)

        def mean(values: Tensor) -> Float[Tensor, "batch variable"]:
            return (values * weight).sum((-2, -1))

        variance = mean((truth - mean(truth)[..., None, None]).square())
        squared = mean((fields - truth).square())
        unit = self.statistics.scales[name].std.double() ** 2
        self._add(name, "count", lead, torch.ones_like(squared))
        self._add(name, "squared_error", lead, squared)
        self._add(name, "vrmse", lead, (squared / (variance + TINY * unit)).sqrt())

    def _add_drift(self, name: str, lead: Tensor, fields: Tensor, initial: Tensor, profiles: Tensor) -> None:
        data_set = self.schema.data_sets[name]
        order = [data_set.variables.index(variable) for variable in VARIABLES]
        before, after = (
            totals(states[:, order], profiles[:, 0], profiles[:, 1], data_set.dx, data_set.dz)
            for states in (initial, fields)
        )
        self._add(name, "drift_count", lead, torch.ones_like(after.mass)[:, None])
        for kind in ("mass", "energy"):
            start = getattr(before, kind)
            self._add(name, kind, lead, ((getattr(after, kind) - start) / start).abs()[:, None])
