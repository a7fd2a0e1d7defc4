"""The fluids domain: what the rest of the suite sees of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from domains.fluids.amr.config import AMRConfig, ForestConfig
from domains.fluids.amr.transformer import AMRViT
from domains.fluids.data.batch import FlowBatch
from domains.fluids.data.data_config import FlowSplits, FluidsDataConfig
from domains.fluids.data.datasets import Flows, open_flows
from domains.fluids.data.planned import PlannedFlows, planned_flows
from domains.fluids.data.samples import FlowSamples
from domains.fluids.data.schema import FluidsSchema, FluidsStatistics
from domains.fluids.data_defaults import (
    FluidsModelConfig,
    FluidsSpec,
    augmentation,
    data_defaults,
    fitted_statistics,
    planned_statistics,
)
from domains.fluids.field_model import FlowFieldModel
from domains.fluids.figures.report import example_figures, fluids_figures
from domains.fluids.forecast.baselines import BASELINES
from domains.fluids.forecast.example import FlowExample
from domains.fluids.forecast.example_rollout import forecast_example, read_example
from domains.fluids.forecast.forecast_file import ForecastFile
from domains.fluids.forecast.initial_conditions import initial_batch
from domains.fluids.forecast.task import FluidsTask
from domains.fluids.forecast.task_config import FluidsTaskConfig
from domains.fluids.refine.config import RefineConfig
from domains.fluids.refine.model import RefineModel, change_names
from domains.fluids.solver.simulate import simulate
from domains.fluids.solver.simulate_config import SimulateConfig
from sciml.core.duration import TimeUnit
from sciml.core.errors import ConfigError
from sciml.domain.forecasting import ForecastRequest, PreparedForecast
from sciml.domain.optional import DataDefaults
from sciml.domain.protocol import FittedData, LoadedModel, NamedFigure, RunResult, Splits
from sciml.forecast.ensemble import PERTURBATION
from sciml.models.field_models import FIELD_KINDS, FieldConfig, check_schedule
from sciml.models.fno import FNOConfig


@dataclass(frozen=True)
class FluidsSplits(Splits):
    """Holds samples of flows, and the flows themselves for forecasts."""

    flows: Mapping[str, Flows]
    valid: FlowSamples
    test: FlowSamples


class FluidsDomain:
    """Forecasts flows on regular grids in a plane by a hierarchical transformer that refines where physics needs it."""

    name = "fluids"
    model_kinds: Mapping[str, type] = {"amr": AMRConfig, "refine": RefineConfig, **FIELD_KINDS}
    data_config = FluidsDataConfig
    task_config = FluidsTaskConfig
    simulate_config = SimulateConfig
    forecast_suffixes = (".nc",)
    time_unit: TimeUnit = "s"
    headline_lead_h = None
    cost_rounds = 5
    baselines = BASELINES

    def data_defaults(self, spec: FluidsSpec, source: FluidsSpec | None = None) -> DataDefaults:
        return data_defaults(spec, open_flows, source)

    def planned_defaults(self, spec: FluidsSpec) -> DataDefaults:
        return data_defaults(spec, planned_flows)

    def check(self, spec: FluidsSpec) -> None:
        if isinstance(spec.model, RefineConfig) and spec.task.baseline == "propagator":
            raise ConfigError("this model corrects a solver", key="task.baseline", hint="use none")
        if spec.parallel.pp > 1 and _indicator(spec.model) == "learned":
            raise ConfigError(
                "the parameters of a learned indicator belong to no stage of a pipeline",
                key="model.indicator",
                hint="use hybrid, or parallel.pp=1",
            )
        if spec.parallel.pp > 1 and spec.task.pushforward:
            raise ConfigError(
                "steps from the model's own states cannot be cut into pipeline stages",
                key="task.pushforward",
                hint="use 0, or parallel.pp=1",
            )
        check_schedule(spec.model, spec.parallel)
        if isinstance(spec.model, FNOConfig) and spec.model.degrees:
            raise ConfigError("flows lie in a plane", key="model.degrees", hint="use 0, or model=fno_flow_tiny")
        if spec.task.unroll > 1 and spec.parallel.tp * spec.parallel.sp * spec.parallel.pp > 1:
            raise ConfigError(
                "gradients through several steps need the whole model on each rank",
                key="task.unroll",
                hint="use 1, or share out the samples alone (parallel.dp)",
            )

    def splits(self, spec: FluidsSpec, fitted: FittedData | None = None) -> FluidsSplits:
        schema, flows = open_flows(spec.data, None if fitted is None else fitted.schema.data_sets)
        if fitted is None:
            statistics = fitted_statistics(spec, flows)
        else:
            statistics = fitted.statistics
            check_as_trained(fitted, schema)
        splits = _splits_of(spec, schema, flows, statistics, FlowSamples)
        if fitted is None:
            splits.valid.load()
            splits.test.load()
        return splits

    def planned_splits(self, spec: FluidsSpec) -> FluidsSplits:
        schema, flows = planned_flows(spec.data)
        statistics = planned_statistics(spec, flows)
        return _splits_of(spec, schema, flows, statistics, PlannedFlows)

    def model(self, spec: FluidsSpec, schema: FluidsSchema) -> nn.Module:
        if isinstance(spec.model, RefineConfig):
            return RefineModel(spec.model, schema.channels, schema.variables)
        changes = change_names(schema.variables) if spec.task.baseline == "propagator" else ()
        if isinstance(spec.model, FieldConfig):
            return FlowFieldModel(spec.model, schema.channels, changes)
        return AMRViT(spec.model, (*schema.channels, *changes))

    def task(self, spec: FluidsSpec, splits: Splits) -> FluidsTask:
        refine = spec.model if isinstance(spec.model, RefineConfig) else None
        needs_truth = _indicator(spec.model) == "oracle"
        return FluidsTask(splits.schema, splits.statistics, spec.task, needs_truth=needs_truth, refine=refine)

    def restore(self, schema: Mapping[str, Any], statistics: Mapping[str, Tensor]) -> FittedData:
        return FittedData(FluidsSchema.from_dict(schema), FluidsStatistics.from_tensors(statistics))

    def example(self, task: Any, model: nn.Module, splits: Splits) -> dict[str, np.ndarray]:
        assert isinstance(splits, FluidsSplits)
        return forecast_example(task, model, splits.test)

    def figures(self, result: RunResult) -> Iterator[NamedFigure]:
        return fluids_figures(result)

    def time_text(self, schema: Mapping[str, Any], hours: float) -> str:
        return FluidsSchema.from_dict(schema).time_text(hours)

    def simulate(self, config: SimulateConfig) -> Path:
        return simulate(config)

    def prepare_forecast(self, loaded: LoadedModel, request: ForecastRequest) -> PreparedForecast:
        spec, statistics = loaded.spec, loaded.fitted.statistics
        schema, source = _states(spec, loaded.fitted)
        starts = request.starts(members=1, perturbation=PERTURBATION, seed=spec.seed)
        batch, frame_hours = initial_batch(source, statistics, request.init_time, starts)
        splits = Splits(source, source, source, schema, statistics)
        return PreparedForecast(
            task=self.task(spec, splits),
            batch=batch,
            intervals=[stride * frame_hours for stride in spec.task.strides],
            step_hours=frame_hours,
            writer=lambda path: ForecastFile(path, schema, batch, _begins(source, batch)),
            figures=lambda path: forecast_figures(path, schema, source),
        )


def _splits_of(
    spec: FluidsSpec,
    schema: FluidsSchema,
    flows: Mapping[str, Flows],
    statistics: FluidsStatistics,
    samples: type[FlowSamples],
) -> FluidsSplits:
    if isinstance(spec.model, RefineConfig):
        check_profiles(flows)
    task, data = spec.task, spec.data
    preload: dict[str, Any] = {"preload_gb": data.preload_gb}
    augment = augmentation(spec, flows)
    ahead, furthest = task.pushforward + task.unroll, max(task.score_frames)
    training = {"pushforward_steps": task.pushforward, **preload}
    return FluidsSplits(
        train=samples(
            flows, "train", task.strides, ahead, noise=task.noise, augment=augment, scales=statistics.scales,
            **training,
        ),
        valid=samples(flows, "valid", task.strides, ahead, every=max(task.strides), **training),
        test=samples(
            flows, "test", [task.scoring_stride], furthest // task.scoring_stride, every=furthest, **preload
        ),
        schema=schema,
        statistics=statistics,
        flows=flows,
    )  # fmt: skip


def _states(spec: FluidsSpec, fitted: FittedData) -> tuple[FluidsSchema, FlowSamples]:
    """Returns the states that a forecast may start from: of the run's own test flows, or of all flows of other data."""
    data: FluidsDataConfig = spec.data
    if fitted.data is not None and data.path != fitted.data.path:
        data = replace(data, splits=FlowSplits(train=0, valid=0, test=1))
    schema, flows = open_flows(data, fitted.schema.data_sets)
    if isinstance(spec.model, RefineConfig):
        check_profiles(flows)
    check_as_trained(fitted, schema)
    return schema, FlowSamples(flows, "test", [spec.task.scoring_stride], 0, preload_gb=data.preload_gb)


def _begins(source: FlowSamples, batch: FlowBatch) -> float:
    """Returns the time at which a forecast starts, as its flow counts."""
    ((_, part),) = batch.parts.items()
    start = part.starts[0]
    trajectory = source.trajectory(start)
    return float(trajectory.source.times[trajectory.frames[0] + start.frame])


def forecast_figures(path: Path, schema: FluidsSchema, source: FlowSamples) -> Iterator[NamedFigure]:
    """Yields pictures of a written forecast, beside the truth as far as the flow lasts."""
    example = FlowExample.of(schema, read_example(path, source))
    assert example is not None
    return example_figures(example, None, None)


def _indicator(model: FluidsModelConfig) -> str | None:
    """Returns what tells where to refine; None for a model that refines nowhere."""
    return model.indicator if isinstance(model, ForestConfig) else None


def check_profiles(flows: Mapping[str, Flows]) -> None:
    """Refuses flows whose air at rest no file tells: a solver cannot step them.

    Raises:
        ConfigError: names one.
    """
    for each in flows.values():
        for trajectory in (flow for split in each.trajectories.values() for flow in split):
            if trajectory.profiles is None:
                raise ConfigError(
                    f"{trajectory.source.name} has no hy_dens and hy_theta, the air at rest that a solver needs",
                    key="model.kind",
                    hint="add them, or use a model that needs no solver, e.g. model=vit_flow_tiny",
                )


def check_as_trained(fitted: FittedData, found: FluidsSchema) -> None:
    """Refuses data that a trained model does not know how to read; another grid is no matter.

    Raises:
        ConfigError: other data sets or variables, a model step of another length, or, where a step was fitted, another
            domain: its waves are those of the training.
    """
    trained: FluidsSchema = fitted.schema
    for name, data_set in found.data_sets.items():
        if name not in trained.data_sets:
            known = ", ".join(trained.data_sets)
            raise ConfigError(
                f"the model was not trained on a data set {name!r}", key="data.path", hint=f"name one of {known}"
            )
        known_set = trained.data_sets[name]
        for kind in ("variables", "constants"):
            here, there = getattr(data_set, kind), getattr(known_set, kind)
            if here != there:
                hint = f"data.variables=[{','.join(known_set.variables)}]"
                if kind == "constants":
                    hint = "train on such flows, or add what is missing to the file"
                raise ConfigError(
                    f"the data have the {kind} {', '.join(here) or 'none'}, the model was trained on "
                    f"{', '.join(there) or 'none'}",
                    key="data.path",
                    hint=hint,
                )
        if abs(data_set.interval - known_set.interval) > 1e-3 * known_set.interval:
            raise ConfigError(
                f"the data have frames {data_set.interval:g} {data_set.units[1]}".rstrip()
                + f" apart, the training had {known_set.interval:g} {known_set.units[1]}".rstrip(),
                key="data.path",
                hint="write frames as often as the training data have them",
            )
        if fitted.statistics.scales[name].propagator.numel():
            for axis, here, there in zip("zx", data_set.extents, known_set.extents, strict=True):
                if all(abs(one - other) > 1e-3 * other for one, other in zip(here, there, strict=True)):
                    raise ConfigError(
                        f"the data are {here[0]:g} long along {axis}, the training had {there[0]:g}, and the step that "
                        "was fitted to it knows no other length",
                        key="data.path",
                        hint="train on such flows, or with task.baseline=none",
                    )
