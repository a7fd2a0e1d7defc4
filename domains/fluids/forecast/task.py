"""Defines what a flow model learns, the normalized increment over a step, and how its forecasts are judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from domains.fluids.amr.forest import Forest
from domains.fluids.amr.transformer import AMRViT
from domains.fluids.data.batch import FlowBatch, FlowPart
from domains.fluids.data.boundary import OBSTACLE
from domains.fluids.data.schema import BACKGROUND, FluidsSchema, FluidsStatistics
from domains.fluids.forecast.baselines import baselines
from domains.fluids.forecast.conserved_means import check_conserved, conserved_variables, keep_means
from domains.fluids.forecast.metrics import FluidsMetrics
from domains.fluids.forecast.task_config import FluidsTaskConfig
from domains.fluids.prior_step import PriorStep, Stepped
from domains.fluids.propagator.propagator import propagator_step
from domains.fluids.refine.config import RefineConfig
from domains.fluids.refine.model import RefineModel, change_names
from domains.fluids.refine.solver_step import solver_step
from domains.fluids.solver.background import SURFACE_THETA
from sciml.domain.protocol import LossOutput, Prediction, Predictor
from sciml.domain.score import Baseline
from sciml.nn.recompute import recompute
from sciml.nn.regrid import regrid

STRATIFICATION_K = 50.0
"""By which the background's potential temperature is scaled."""


@dataclass(frozen=True)
class FlowPrediction(Prediction):
    """Holds the states after a step by data set, and where the model has refined those before it."""

    forests: Mapping[str, Forest] = field(default_factory=dict)


class FluidsTask:
    """Forecasts by normalized increments.

    States are standardized with constants of their data set, increments with those of their step. A model that
    predicts zero is therefore persistence, and the loss weighs all variables and steps alike. Cells of obstacles
    are zero, do not change and do not count.

    Args:
        schema: of the data, which may be on another grid than those of the training.
        statistics: of the training.
        needs_truth: whether the model refines where only the truth tells (indicator ``oracle``).
        refine: of a model that corrects the steps of a solver.
    """

    needs_double_backward = False

    def __init__(
        self,
        schema: FluidsSchema,
        statistics: FluidsStatistics,
        config: FluidsTaskConfig,
        *,
        needs_truth: bool = False,
        refine: RefineConfig | None = None,
    ) -> None:
        self.schema, self.statistics, self.config, self.needs_truth = schema, statistics, config, needs_truth
        self.device: torch.device | str = "cpu"
        self.grids = {name: tuple(scale.cells.tolist()) for name, scale in statistics.scales.items()}
        self.conserved = {
            name: conserved_variables(config.conserve, name, data_set) for name, data_set in schema.data_sets.items()
        }
        check_conserved(config.conserve, schema)
        self.refine = refine
        self.priors = dict(self._priors())

    def _priors(self) -> Iterator[tuple[str, PriorStep]]:
        """Yields the steps that the model corrects, by data set."""
        for name, data_set in self.schema.data_sets.items():
            if self.refine is not None:
                learned_on = self.grids[name] if self.config.resample else data_set.shape
                yield name, solver_step(name, data_set, self.refine, max(self.config.strides), learned_on)
            elif self.config.baseline == "propagator":
                yield name, propagator_step(data_set, self.statistics.scales[name], max(self.config.strides))

    def to(self, device: torch.device | str) -> FluidsTask:
        self.device, self.statistics = device, self.statistics.to(device)
        self.priors = dict(self._priors())
        return self

    def loss(self, model: nn.Module, batch: FlowBatch) -> LossOutput:
        """Returns the mean squared error of normalized increments, averaged over samples and steps.

        Of several data sets it tells what each adds to it, also zero, since ranks add these numbers up.
        """
        total = float(sum(len(part.state) for part in batch.parts.values()))
        added = {
            name: self._error(model, name, self._last_steps(model, name, part)) * len(part.state) / total
            for name, part in batch.parts.items()
        }
        loss = torch.stack(list(added.values())).sum()
        told = self.schema.data_sets if len(self.schema.data_sets) > 1 else ()
        parts = {f"loss_{name}": added[name].detach() if name in added else torch.zeros_like(loss) for name in told}
        return LossOutput(loss, parts, weight=total)

    def _error(self, model: nn.Module, name: str, part: FlowPart) -> Float[Tensor, ""]:
        """Returns the error of the remaining steps from a part's state, each in units of its increments."""
        errors: list[Tensor] = []
        for _ in range(part.steps.shape[1]):
            assert part.targets is not None
            scale = self._increment_scale(name, part)
            mode = "none" if part.steps.shape[1] == 1 and not errors else "full"
            increment = recompute(mode, partial(self._increment, model, name, part), part.state)
            errors.append(_mean((increment - (part.targets[:, 0] - part.state) / scale).square(), part.fluid))
            part = part.advance(part.state + increment * scale) or part
        return torch.stack(errors).mean()

    @torch.no_grad()
    def _last_steps(self, model: nn.Module, name: str, part: FlowPart) -> FlowPart:
        """Returns the part before its last steps, which some samples reach by steps of the model, the others truly."""
        first = part.steps.shape[1] - self.config.unroll
        for step in range(first):
            assert part.targets is not None
            own = [number for number, steps in enumerate(part.pushforward_steps) if steps >= first - step]
            # at least one, since all ranks must call the model equally often
            some = part if len(own) == len(part.state) else part.rows(own or [0])
            forecast = some.state + self._increment(model, name, some, some.state) * self._increment_scale(name, some)
            state = part.targets[:, 0]
            if own:
                state = state.index_copy(0, torch.tensor(own, device=state.device), forecast.to(state))
            part = part.advance(state)  # type: ignore[assignment]
        return part

    def predict(self, model: nn.Module, batch: FlowBatch) -> FlowPrediction:
        values, forests = {}, {}
        for name, part in batch.parts.items():
            stepped = self._stepped(name, part)
            forest = self._forest(model, name, part, stepped)
            increment = self._increment(model, name, part, part.state, forest, stepped)
            values[name] = part.state + increment * self._increment_scale(name, part)
            if forest is not None:
                forests[name] = forest
        return FlowPrediction(values, forests)

    def advance(self, batch: FlowBatch, prediction: Prediction) -> FlowBatch | None:
        forests = prediction.forests if isinstance(prediction, FlowPrediction) else {}
        moved = {name: part.advance(prediction.values[name], forests.get(name)) for name, part in batch.parts.items()}
        kept = {name: part for name, part in moved.items() if part is not None}
        return FlowBatch(kept) if kept else None

    def _forest(self, model: nn.Module, name: str, part: FlowPart, stepped: Stepped | None) -> Forest | None:
        """Returns where a model refines a state; None where it decides that itself, as stages of a pipeline do."""
        if not isinstance(model, AMRViT | RefineModel):
            return None
        (fields, channels, _, boundary), options = self._inputs(name, part, stepped)
        evidence = {key: options[key] for key in ("previous", "truth", "residual") if key in options}
        return model.forest(model.evidence(fields, channels, boundary, **evidence), part.forest)

    def _stepped(self, name: str, part: FlowPart) -> Stepped | None:
        """Returns what the step that the model corrects makes of a state, where there is one."""
        if name not in self.priors:
            return None
        return self.priors[name](part.state, part.profiles, part.steps[:, 0], part.known_flows)

    def _increment(
        self,
        model: nn.Module,
        name: str,
        part: FlowPart,
        state: Float[Tensor, "batch variable z x"],
        forest: Forest | None = None,
        stepped: Stepped | None = None,
    ) -> Float[Tensor, "batch variable z x"]:
        """Returns the normalized increment over the next step; zero in obstacles, in means of what is conserved, and of
        what never changes.

        Args:
            state: of the part, as gradients reach it.
            stepped: what the step that is corrected makes of it, where that is known already.
        """
        part = replace(part, state=state)
        stepped = stepped or self._stepped(name, part)
        arguments, options = self._inputs(name, part, stepped)
        rows, columns = state.shape[2:]
        made, boundary = model(*arguments, **options, forest=forest).float(), self.schema.data_sets[name].boundary
        increment = regrid(made, (rows, columns), boundary)
        if stepped is not None:
            increment = increment * stepped.left + (stepped.fields - state) / self._increment_scale(name, part)
        increment = increment * self.statistics.scales[name].changes
        if part.fluid is not None:
            increment = increment * part.fluid
        return keep_means(increment, self.schema.data_sets[name].variables, self.conserved[name], part)

    def _inputs(self, name: str, part: FlowPart, stepped: Stepped | None = None) -> tuple[tuple, dict]:
        """Returns what the model is called with."""
        data_set = self.schema.data_sets[name]
        changes: dict[str, Tensor] = {}
        if stepped is not None:
            scale = self._increment_scale(name, part)
            changes["changes"] = (stepped.fields - part.state) / scale
            if stepped.residual is not None:
                changes["residual"] = stepped.residual / scale
            part = replace(part, state=stepped.fields, previous=part.state)
        if self.config.resample:
            part = part.regridded(self.grids[name], data_set.boundary)
        constants = self._constants(name, part)

        def normal(state: Float[Tensor, "batch variable z x"]) -> Float[Tensor, "batch channel z x"]:
            return torch.cat([self._normalized(name, state, part), *constants], dim=1)

        dx = data_set.dx * data_set.shape[1] / part.state.shape[3]
        cell_size = torch.full((len(part.state),), dx, device=part.state.device)
        options: dict[str, Any] = {
            "cell_size": cell_size,
            "previous": normal(part.previous),
            "output_names": data_set.variables,
        }
        if self.needs_truth and part.targets is not None:
            options["truth"] = normal(part.targets[:, 0])
        names = (*data_set.variables, *data_set.constants)
        fields = normal(part.state)
        if stepped is not None:
            here = (part.state.shape[2], part.state.shape[3])
            seen = {key: regrid(values, here, data_set.boundary) for key, values in changes.items()}
            changed = seen.pop("changes")
            fields, names = torch.cat([fields, changed], dim=1), (*names, *change_names(data_set.variables))
            # of the states before and after, and of the truth, nothing but the variables is compared
            options |= {"previous": torch.cat([options["previous"], torch.zeros_like(changed)], dim=1), **seen}
            if "truth" in options:
                options["truth"] = torch.cat([options["truth"], changed], dim=1)
        return (fields, names, part.steps[:, 0], data_set.boundary), options

    def _normalized(
        self, name: str, state: Float[Tensor, "batch variable z x"], part: FlowPart
    ) -> Float[Tensor, "batch variable z x"]:
        scale = self.statistics.scales[name]
        normalized = (state - scale.mean[:, None, None]) / scale.std[:, None, None]
        return normalized if part.fluid is None else normalized * part.fluid

    def _constants(self, data_set_name: str, part: FlowPart) -> list[Float[Tensor, "batch _ z x"]]:
        data_set, fields = self.schema.data_sets[data_set_name], []
        for name in data_set.constants:
            if name == OBSTACLE:
                assert part.fluid is not None
                fields.append((~part.fluid).to(part.state.dtype))
            elif name == BACKGROUND:
                assert part.profiles is not None
                theta = (part.profiles[:, 1].to(part.state.dtype) - SURFACE_THETA) / STRATIFICATION_K
                fields.append(theta[:, None, :, None].expand(-1, -1, -1, part.state.shape[-1]))
        if part.constants is not None and data_set.other_constants:
            scale = self.statistics.scales[data_set_name]
            values = part.constants.to(part.state.dtype) - scale.constant_mean[:, None, None]
            fields.append(values / scale.constant_std[:, None, None])
        return fields

    def _increment_scale(self, name: str, part: FlowPart) -> Float[Tensor, "batch variable 1 1"]:
        return self.statistics.scales[name].increments_over(part.steps[:, 0])

    def metrics(self) -> FluidsMetrics:
        return FluidsMetrics(self.schema, self.statistics, self.config.score_frames, self.device)

    def baselines(self) -> Mapping[Baseline, Predictor]:
        return baselines(self.schema, self.statistics, max(self.config.strides))


def _mean(squared: Float[Tensor, "batch variable z x"], fluid: Bool[Tensor, "batch 1 z x"] | None) -> Float[Tensor, ""]:
    if fluid is None:
        return squared.mean()
    cells = fluid.sum((1, 2, 3)) * squared.shape[1]
    return ((squared * fluid).sum((1, 2, 3)) / cells).mean()
