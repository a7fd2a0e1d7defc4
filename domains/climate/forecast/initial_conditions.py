"""Prepares the initial conditions of a forecast, and draws it once it is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from domains.climate.data.batch import FieldBatch
from domains.climate.data.schema import ClimateStatistics
from domains.climate.data.store import ClimateStore
from domains.climate.figures.maps import draw_forecast_globes
from domains.climate.forecast.example_rollout import read_example
from sciml.core.errors import ConfigError
from sciml.domain.optional import ForecastRequest
from sciml.domain.protocol import NamedFigure
from sciml.forecast.ensemble import perturbed_members
from sciml.forecast.intervals import requested_paths


def initial_batches(
    store: ClimateStore, statistics: ClimateStatistics, intervals: Sequence[float], request: ForecastRequest
) -> list[FieldBatch]:
    """Returns one batch for each path of steps to the lead time; its samples are the perturbed initial conditions.

    Raises:
        ConfigError: for a time that the data do not have, or a lead time that no interval divides.
    """
    position = _position(store, request.init_time)
    paths = requested_paths(request, intervals, store.schema.step_hours)
    analysis = torch.from_numpy(store.read(np.array([position])))[0]
    state = perturbed_members(analysis, statistics.std, request)
    times = torch.full((request.members,), float(store.hours[position]), dtype=torch.float64)
    return [
        FieldBatch(
            state=state,
            initial=state,
            init_time=times,
            lead_time=torch.zeros_like(times),
            intervals=torch.tensor(path, dtype=torch.float64).expand(request.members, -1),
        )
        for path in paths
    ]


def _position(store: ClimateStore, init_time: str | None) -> int:
    if init_time is None:
        return int(store.indices("test")[0])
    try:
        wanted = np.datetime64(init_time.removesuffix("Z"), "m")
    except ValueError:
        raise ConfigError(f"{init_time!r} is no time", key="init_time", hint="for example 2001-12-01T00") from None
    times = store.times.astype("datetime64[m]")
    positions = np.flatnonzero(times == wanted)
    if len(positions) == 0:
        nearest = times[np.abs(times - wanted).argmin()]
        raise ConfigError(f"the data have no state at {wanted}", key="init_time", hint=f"the nearest is {nearest}")
    return int(positions[0])


def forecast_figures(path: Path, store: ClimateStore) -> Iterator[NamedFigure]:
    """Yields globes of the longest lead time of a written forecast, beside the truth where the store holds it."""
    example = read_example(path, store)
    yield NamedFigure(
        "globes",
        "Forecast",
        "The forecast at its longest lead time.",
        lambda stem: draw_forecast_globes(example, None, stem),
    )
