"""Decides what a specification leaves to its flows: symmetries, and the fitted step that the network corrects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from domains.fluids.amr.config import AMRConfig
from domains.fluids.data import planned
from domains.fluids.data.data_config import FluidsDataConfig
from domains.fluids.data.datasets import Flows
from domains.fluids.data.samples import augmentation_that_fits
from domains.fluids.data.schema import FluidsSchema, FluidsStatistics
from domains.fluids.data.statistics import measure
from domains.fluids.forecast.task_config import FluidsTaskConfig
from domains.fluids.propagator.fit import WORTH, fit_propagator, with_zero_propagator
from domains.fluids.refine.config import RefineConfig
from sciml.core.errors import ConfigError
from sciml.domain.optional import AUTO, DataDefaults
from sciml.domain.protocol import DomainSpec
from sciml.models.field_models import FieldConfig

FluidsModelConfig = AMRConfig | RefineConfig | FieldConfig
OpenFlows = Callable[[FluidsDataConfig], tuple[FluidsSchema, dict[str, Flows]]]
FluidsSpec = DomainSpec[FluidsDataConfig, FluidsTaskConfig, FluidsModelConfig]

TOLD = {"position_features": ("z",), "condition_on": ("lead_time",)}
"""Tells what a model is told where that is left open: flows are the same at every x and time."""


def data_defaults(spec: FluidsSpec, open_data: OpenFlows, source: FluidsSpec | None = None) -> DataDefaults:
    """Returns the keys that a specification leaves open: what the model is told, symmetries, and what it corrects.

    Args:
        open_data: opens the flows, or describes those of a plan.
        source: of the run whose weights the training starts from.

    Raises:
        ConfigError, DataError: where the data cannot be opened, or the weights correct something else.
    """
    left_open = {name: told for name, told in TOLD.items() if getattr(spec.model, name, None) == (AUTO,)}
    values: dict[str, Any] = {f"model.{name}": list(told) for name, told in left_open.items()}
    sentences = []
    if spec.data.augment == AUTO:
        found = augmentation_that_fits(open_data(spec.data)[1])
        reason = "the files do not say that moved and mirrored flows are as likely; if they are, type roll_mirror"
        if found != "none":
            reason = "these are flows of miniWeather, periodic along x"
        values["data.augment"] = found
        sentences.append(f"data.augment={found}: {reason}")
    chosen = _baseline(spec, source)
    if spec.task.baseline == AUTO:
        values["task.baseline"] = chosen
        if chosen == "propagator":
            sentences.append(
                "task.baseline=propagator: the network corrects a step that is fitted to the flows, "
                f"where that leaves less than {WORTH:.0%} of persistence's error"
            )
    return DataDefaults(values, "; ".join(sentences))


def _baseline(spec: FluidsSpec, source: FluidsSpec | None) -> str:
    """Returns what the network corrects: what the weights that it starts from were trained to correct.

    Raises:
        ConfigError: where something else is asked for.
    """
    asked = spec.task.baseline
    if source is None:
        by_model = "none" if isinstance(spec.model, RefineConfig) else "propagator"
        return by_model if asked == AUTO else asked
    if asked not in (AUTO, source.task.baseline):
        raise ConfigError(
            f"the weights were trained with {source.task.baseline}", key="task.baseline",
            hint=f"use {source.task.baseline}, or leave init_from out",
        )  # fmt: skip
    return source.task.baseline


def fitted_statistics(spec: FluidsSpec, flows: Mapping[str, Flows]) -> FluidsStatistics:
    """Returns what training flows are normalized with, and the steps that are fitted to them.

    Raises:
        ConfigError: a data set has no training flows.
    """
    for name, found in flows.items():
        if not any(map(len, found.trajectories["train"])):
            raise ConfigError(
                f"no flow of {name} is left to train on", key="data.splits.train", hint="try data.splits.train=1"
            )
    scales = {name: measure(found, spec.task.strides) for name, found in flows.items()}
    if spec.task.baseline == "propagator":
        mirrored = augmentation(spec, flows) == "roll_mirror"
        for name, found in flows.items():
            scales[name] = fit_propagator(found, scales[name], spec.task.strides, mirrored=mirrored)
    return FluidsStatistics(scales)


def planned_statistics(spec: FluidsSpec, flows: Mapping[str, Flows]) -> FluidsStatistics:
    """Returns numbers of the shapes of what would be fitted: zeros and ones."""
    found = planned.planned_statistics(flows, spec.task.strides)
    if spec.task.baseline != "propagator":
        return found
    scales = {
        name: with_zero_propagator(flows[name].data_set, scale, spec.task.strides)
        for name, scale in found.scales.items()
    }
    return FluidsStatistics(scales)


def augmentation(spec: FluidsSpec, flows: Mapping[str, Flows]) -> str:
    """Returns the symmetries that training flows are given."""
    return augmentation_that_fits(flows) if spec.data.augment == AUTO else spec.data.augment
