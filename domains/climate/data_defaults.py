"""Decides what a configuration leaves to the data: what the model is told of where and when, symmetries, lead times.

A model may be blind to longitude, season and hour only on a planet that is the same at every longitude and time, and
samples may be turned only there. Data must say so themselves; all others are taken for the Earth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from domains.climate.data.samples import ClimateDataConfig, open_or_prepare
from domains.climate.data.states import States
from domains.climate.model.task import ClimateTaskConfig
from sciml.core.duration import as_typed
from sciml.domain.optional import AUTO, DataDefaults
from sciml.domain.protocol import DomainSpec
from sciml.forecast.intervals import parse_intervals

Spec = DomainSpec[ClimateDataConfig, ClimateTaskConfig, Any]

SYMMETRIC = {"position_features": ("latitude",), "condition_on": ("lead_time",)}
EARTH = {"position_features": ("latitude", "longitude"), "condition_on": ("lead_time", "time_of_day", "time_of_year")}
SUN = "toa_incident_solar_radiation"
FEW = 3
"""Intervals at most of a model that is iterated; with more it knows its lead times directly."""
SCORED_DAYS = (24.0, 48.0, 72.0, 96.0, 120.0)


def data_defaults(
    spec: Spec, source: Spec | None = None, open_states: Callable[[ClimateDataConfig], States] = open_or_prepare
) -> DataDefaults:
    """Returns the keys that a specification leaves open, as its data decide them.

    A model that starts from another's weights is conditioned as that one was, or they would not fit; time then comes
    to it by forcings.

    Args:
        source: of the run whose weights the training starts from.
        open_states: opens the data.

    Raises:
        ConfigError, DataError: where the data cannot be opened.
    """
    open_keys = [name for name in SYMMETRIC if _is_open(spec, name)]
    forcings, scores = spec.task.forcings == [AUTO], spec.task.score_lead_times == [AUTO]
    ranges = any(".." in str(text) for text in spec.task.intervals)
    if not (open_keys or forcings or scores or ranges or spec.data.augment == AUTO):
        return DataDefaults({})
    store = open_states(spec.data)
    told: dict[str, Any] = dict(EARTH if store.augmentation == "none" else SYMMETRIC)
    older = None if source is None else source.model
    told |= {name: tuple(getattr(older, name)) for name in SYMMETRIC if hasattr(older, name)}
    values: dict[str, Any] = {f"model.{name}": list(told[name]) for name in open_keys}
    if spec.data.augment == AUTO:
        values["data.augment"] = store.augmentation
    if forcings:
        values["task.forcings"] = _forcings(spec, store, {**told, **_typed(spec, open_keys)})
    if ranges or scores:
        intervals = trained_intervals(spec.task, store)
        if ranges:
            values["task.intervals"] = [as_typed(hours) for hours in intervals]
        if scores:
            values["task.score_lead_times"] = [as_typed(hours) for hours in scored_lead_times(spec.task, store)]
    return DataDefaults(values, _sentence(store, values))


def trained_intervals(task: ClimateTaskConfig, store: States) -> tuple[float, ...]:
    """Returns the hours of the intervals; of ranges those that training and validation are long enough for, if any are.

    Of unevenly spaced times validation takes what it has.
    """
    step = store.schema.step_hours
    single = [text for text in task.intervals if ".." not in str(text)]
    ranges = [text for text in task.intervals if ".." in str(text)]
    if not ranges:
        return parse_intervals(single, step, "task.intervals")
    fixed = parse_intervals(single, step, "task.intervals") if single else ()
    within = parse_intervals(ranges, step, "task.intervals")
    splits = ("train", "valid") if store.is_even else ("train",)
    met = [hours for hours in within if all(_is_met(store, split, hours * task.longest) for split in splits)]
    return tuple(sorted({*fixed, *(met or within)}))


def scored_lead_times(task: ClimateTaskConfig, store: States) -> tuple[float, ...]:
    """Returns the hours at which forecasts are scored; where that is left open, each of five days, or the intervals
    nearest to them, as far as the test period is long enough.
    """
    if task.score_lead_times != [AUTO]:
        return parse_intervals(task.score_lead_times, store.schema.step_hours, "task.score_lead_times")
    intervals = trained_intervals(task, store)
    longest = max(intervals)
    iterated = () if len(intervals) > FEW else range(1, int(SCORED_DAYS[-1] / longest) + 1)
    reached = {*intervals, *(longest * n for n in iterated)}
    met = [hours for hours in sorted(reached) if _is_met(store, "test", hours)]
    if not met:
        return (min(intervals),)
    near = {min(met, key=lambda hours: abs(hours - day)) for day in SCORED_DAYS}
    return tuple(sorted(near if near <= set(intervals) else _multiples(near, longest)))


def _multiples(hours: set[float], interval: float) -> set[float]:
    """Returns those that steps of one interval reach, which a single rollout meets."""
    return {lead for lead in hours if abs(lead / interval - round(lead / interval)) < 1e-6} or {interval}


def _is_met(store: States, split: str, hours: float) -> bool:
    """Says whether two times of a split are so far apart."""
    minutes = store.times[store.indices(split)].astype(np.int64)
    return bool(np.isin(minutes + round(60 * hours), minutes).any())


def _is_open(spec: Spec, name: str) -> bool:
    """Says whether a key of the model is left to the data: not given, or ``[auto]``."""
    if not hasattr(spec.model, name):
        return False
    return name not in spec.config["model"] or tuple(getattr(spec.model, name)) == (AUTO,)


def _typed(spec: Spec, open_keys: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(spec.model, name, ()) for name in SYMMETRIC if name not in open_keys}


def _forcings(spec: Spec, store: States, told: Mapping[str, Any]) -> list[str]:
    """Returns the computed inputs: the sun's radiation, and the time as fields where no block is conditioned on it."""
    if store.augmentation != "none":
        return []
    knows_time = getattr(spec.model, "conditioning", "") != "none" and "time_of_year" in told["condition_on"]
    return [SUN] if knows_time else [SUN, "time_of_day", "time_of_year"]


def _sentence(store: States, values: Mapping[str, Any]) -> str:
    chosen = ", ".join(
        f"{key}=[{','.join(map(str, value))}]" if isinstance(value, list) else f"{key}={value}"
        for key, value in values.items()
        if key != "task.intervals"
    )
    if store.augmentation != "none":
        return f"the data are a simulation that is the same at every longitude and time: {chosen}"
    words = {"model.position_features": "place", "model.condition_on": "time", "task.forcings": "the sun"}
    told = [*(word for key, word in words.items() if key in values), *store.schema.statics]
    told += ["the region's edges"] if store.schema.is_region else []
    whole = f" and {told.pop()}" if len(told) > 1 else ""
    is_told = f": the model is told {', '.join(told)}{whole}" if told else ""
    return f"the data are no symmetric simulation{is_told}: {chosen}"
