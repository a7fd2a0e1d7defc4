"""The climate domain: what the rest of the suite sees of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from domains.climate.data.boundary import boundary_names
from domains.climate.data.forcings import forcing_names
from domains.climate.data.planned import PlannedForecasts, planned_states
from domains.climate.data.prepare import PrepareConfig, prepare
from domains.climate.data.run_data import is_own, reference_of, states_of
from domains.climate.data.samples import ClimateDataConfig, ForecastSource, open_or_prepare
from domains.climate.data.schema import ClimateSchema, ClimateStatistics
from domains.climate.data.states import States
from domains.climate.data.store import ClimateStore
from domains.climate.data_defaults import data_defaults, scored_lead_times, trained_intervals
from domains.climate.figures.report import climate_figures
from domains.climate.forecast.baselines import BASELINES, baselines_of
from domains.climate.forecast.calibration import EnsembleCalibration, Octaves
from domains.climate.forecast.drift import drift_summary
from domains.climate.forecast.ensemble import EnsembleTask
from domains.climate.forecast.example_rollout import forecast_example
from domains.climate.forecast.extremes import thresholds_of
from domains.climate.forecast.forecast_file import ForecastFile
from domains.climate.forecast.initial_conditions import forecast_figures, initial_batch
from domains.climate.model.climax import ClimaX, ClimaXConfig, Predicts
from domains.climate.model.climax_import import ClimaXImportConfig, import_climax
from domains.climate.model.field_model import ClimateFieldModel
from domains.climate.model.forecaster import ClimateViT, check_options
from domains.climate.model.task import ClimateTask, ClimateTaskConfig
from domains.climate.simulation.simulate import SimulateConfig, simulate
from sciml.core.duration import TimeUnit, format_hours
from sciml.core.errors import ConfigError
from sciml.domain.forecasting import ForecastRequest, PreparedForecast
from sciml.domain.optional import DataDefaults, ImportedModel
from sciml.domain.protocol import DomainSpec, FittedData, LoadedModel, NamedFigure, RunResult, Splits
from sciml.forecast.intervals import scoring_paths
from sciml.models.field_models import FIELD_KINDS, FieldConfig, check_schedule
from sciml.models.vit import ViTConfig

ClimateSpec = DomainSpec[ClimateDataConfig, ClimateTaskConfig, ViTConfig | ClimaXConfig | FieldConfig]


@dataclass(frozen=True)
class ClimateSplits(Splits):
    """Holds the samples of a store.

    Attributes:
        reference: the store that the run was trained on, for climatologies and baselines; None where it is gone.
    """

    reference: ClimateStore | None
    test: ForecastSource


class ClimateDomain:
    """Forecasts ERA5-like fields on latitude and longitude by the shared ViT, or by ClimaX."""

    name = "climate"
    model_kinds: Mapping[str, type] = {"vit": ViTConfig, "climax": ClimaXConfig, **FIELD_KINDS}
    data_config = ClimateDataConfig
    task_config = ClimateTaskConfig
    prepare_config = PrepareConfig
    simulate_config = SimulateConfig
    import_config = ClimaXImportConfig
    forecast_suffixes = (".zarr", ".nc")
    time_unit: TimeUnit = "h"
    headline_lead_h = 72.0  # at which the field compares medium-range forecasts
    baselines = BASELINES

    def check(self, spec: ClimateSpec) -> None:
        if isinstance(spec.model, ViTConfig) and not isinstance(spec.model, FieldConfig):
            check_options(spec.model)
        check_schedule(spec.model, spec.parallel)
        if spec.parallel.pp > 1 and spec.task.longest > 1:
            raise ConfigError(
                "a pipeline takes one step of the forecast in training",
                key="task.rollout_steps",
                hint="use 1 without pushforward, or parallel.pp=1",
            )
        if spec.task.is_random and not _is_conditioned(spec.model):
            raise ConfigError(
                "noise enters a model where the lead time does, and this one has no such conditioning",
                key="task.loss",
                hint="use mse, or model=vit_tiny",
            )

    def data_defaults(self, spec: ClimateSpec, source: ClimateSpec | None = None) -> DataDefaults:
        return data_defaults(spec, source)

    def splits(self, spec: ClimateSpec, fitted: FittedData | None = None) -> ClimateSplits:
        """Opens the data; those that a run was not trained on are all for testing, beside the run's own baselines."""
        if fitted is not None and not is_own(spec.data, fitted):
            return self._other_splits(spec, fitted)
        store = open_or_prepare(spec.data)
        statistics = store.statistics if fitted is None else _as_trained(fitted, store)
        return _splits_of(spec, store, statistics, ForecastSource, reference=store)

    def planned_defaults(self, spec: ClimateSpec) -> DataDefaults:
        return data_defaults(spec, open_states=planned_states)

    def planned_splits(self, spec: ClimateSpec) -> ClimateSplits:
        states = planned_states(spec.data)
        return _splits_of(spec, states, states.statistics, PlannedForecasts, reference=None)

    def _other_splits(self, spec: ClimateSpec, fitted: FittedData) -> ClimateSplits:
        states = states_of(spec.data, fitted)
        intervals, scored = trained_intervals(spec.task, states), scored_lead_times(spec.task, states)
        paths = scoring_paths(scored, intervals, "task.score_lead_times")
        test = ForecastSource(states, "test", paths, preload_gb=spec.data.preload_gb)
        return ClimateSplits(test, test, test, states.schema, states.statistics, reference=reference_of(fitted))

    def model(self, spec: ClimateSpec, schema: ClimateSchema) -> nn.Module:
        forcings = (*forcing_names(spec.task.forcings), *boundary_names(schema))
        noise = spec.task.noise_length
        if isinstance(spec.model, FieldConfig):
            return ClimateFieldModel.from_schema(spec.model, schema, forcings, noise)
        if isinstance(spec.model, ClimaXConfig):
            return ClimaX.from_schema(spec.model, schema, forcings)
        return ClimateViT.from_schema(spec.model, schema, forcings, noise)

    def task(self, spec: ClimateSpec, splits: Splits) -> ClimateTask:
        assert isinstance(splits, ClimateSplits)
        scored = scored_lead_times(spec.task, splits.test.store)
        members, perturbation = spec.task.members, spec.task.perturbation_size
        ensemble = partial(EnsembleTask, members=members, perturbation=perturbation)
        reference = splits.reference
        return (ClimateTask if members == 1 else ensemble)(
            splits.schema,
            splits.statistics,
            score_lead_times=scored,
            forcings=spec.task.forcings,
            predicts=_predicts(spec),
            boundary_rows=spec.task.boundary_rows,
            loss=spec.task,
            horizon=spec.task,
            seed=spec.seed,
            climatology=None if reference is None else reference.climatology,
            baselines=lambda: baselines_of(reference, scored),
            thresholds=lambda: {} if reference is None else thresholds_of(reference),
        )

    def restore(self, schema: Mapping[str, Any], statistics: Mapping[str, Tensor]) -> FittedData:
        return FittedData(ClimateSchema.from_dict(schema), ClimateStatistics.from_tensors(statistics))

    def example(self, task: Any, model: nn.Module, splits: Splits) -> dict[str, np.ndarray]:
        assert isinstance(splits, ClimateSplits)
        return forecast_example(task, model, splits.test)

    def figures(self, result: RunResult) -> Iterator[NamedFigure]:
        return climate_figures(result)

    def prepare(self, config: PrepareConfig) -> Path:
        return prepare(config)

    def time_text(self, schema: Mapping[str, Any], hours: float) -> str:
        return format_hours(hours)

    def simulate(self, config: SimulateConfig) -> Path:
        return simulate(config)

    def import_model(self, config: ClimaXImportConfig) -> ImportedModel:
        return import_climax(config)

    def prepare_forecast(self, loaded: LoadedModel, request: ForecastRequest) -> PreparedForecast:
        spec, fitted = loaded.spec, loaded.fitted
        wanted = spec.data.channels
        if wanted and set(wanted) != set(fitted.schema.channels):
            trained = ", ".join(fitted.schema.channels)
            raise ConfigError(f"the model was trained on {trained}", key="data.channels", hint="leave it out")
        if is_own(spec.data, fitted):
            states: States = open_or_prepare(spec.data)
            statistics = _as_trained(fitted, states)
        else:
            states = states_of(spec.data, fitted)
            statistics = states.statistics
        starts = request.starts(spec.task.members, spec.task.perturbation_size, spec.seed)
        batch = initial_batch(states, statistics, request.init_time, starts)
        task = ClimateTask(
            states.schema,
            statistics,
            score_lead_times=(),
            forcings=spec.task.forcings,
            predicts=_predicts(spec),
            boundary_rows=spec.task.boundary_rows,
            loss=spec.task,
        )
        octaves = Octaves(states.schema, torch.ones(len(states.schema.latitude), 1))
        intervals = trained_intervals(spec.task, states)
        known = fitted.calibration if _is_as_scored(spec.task, request, intervals) else {}
        if fitted.calibration and not known and starts.members > 1:
            why = "the run's calibration is that of the fewest steps from its own starts"
            print(f"members are written as they are forecast: {why}", file=sys.stderr, flush=True)
        calibrated = EnsembleCalibration(octaves, states.schema.channels, known)
        return PreparedForecast(
            task=task,
            batch=batch,
            intervals=intervals,
            step_hours=states.schema.step_hours,
            writer=lambda path: ForecastFile(path, states.schema, float(batch.init_time[0]), calibrated),
            figures=lambda path: forecast_figures(path, states, spec.task.boundary_rows),
            summary=lambda path: drift_summary(path, states),
        )


def _is_as_scored(task: ClimateTaskConfig, request: ForecastRequest, intervals: Sequence[float]) -> bool:
    """Says whether an ensemble is made as those were whose spreads were set beside errors: by the fewest steps, from
    starts as they were.
    """
    size = request.perturbation
    has_own_steps = request.every_hours is None or len(intervals) == 1
    return has_own_steps and not request.combine_intervals and size in (None, task.perturbation_size)


def _splits_of(
    spec: ClimateSpec,
    store: States,
    statistics: ClimateStatistics,
    source: type[ForecastSource],
    reference: ClimateStore | None,
) -> ClimateSplits:
    intervals, scored = trained_intervals(spec.task, store), scored_lead_times(spec.task, store)
    training = [(interval,) * spec.task.longest for interval in intervals]
    scoring = scoring_paths(scored, intervals, "task.score_lead_times")
    preload = spec.data.preload_gb
    return ClimateSplits(
        train=source(store, "train", training, augment=spec.data.augment, preload_gb=preload),
        valid=source(store, "valid", training, draw=True, preload_gb=preload),
        test=source(store, "test", scoring, preload_gb=preload),
        schema=store.schema,
        statistics=statistics,
        reference=reference,
    )


def _is_conditioned(model: ViTConfig | ClimaXConfig | FieldConfig) -> bool:
    """Says whether the layers of a model are steered by a vector, which noise may enter."""
    return getattr(model, "conditioning", "adaln_zero") != "none" and bool(getattr(model, "condition_on", ()))


def _predicts(spec: ClimateSpec) -> Predicts:
    return spec.model.predicts if isinstance(spec.model, ClimaXConfig) else "increment"


def _as_trained(trained: FittedData, store: States) -> ClimateStatistics:
    """Returns the statistics that the model was trained with, beside the store's own constant fields."""
    wanted: ClimateSchema = trained.schema
    for kind in ("channels", "statics"):
        here, there = getattr(store.schema, kind), getattr(wanted, kind)
        if here != there:
            raise ConfigError(
                f"the data have the {kind} {', '.join(here)}, the model was trained on {', '.join(there)}",
                key="data.path",
                hint=f"data.{kind}=[{','.join(there)}]",
            )
    return replace(trained.statistics, statics=store.statistics.statics)
