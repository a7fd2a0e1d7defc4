"""Prepares the initial conditions of a forecast, and draws it once it is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from domains.climate.data.batch import FieldBatch
from domains.climate.data.boundary import Surroundings
from domains.climate.data.schema import ClimateStatistics
from domains.climate.data.states import OtherStates, States
from domains.climate.figures.maps import draw_forecast_globes
from domains.climate.forecast.example_rollout import read_example
from sciml.core.errors import ConfigError
from sciml.domain.forecasting import PerturbedStarts
from sciml.domain.protocol import NamedFigure
from sciml.forecast.ensemble import perturbed_members
from sciml.forecast.members import MemberNoise


def initial_batch(
    states: States, statistics: ClimateStatistics, init_time: str | None, starts: PerturbedStarts
) -> FieldBatch:
    """Returns a batch whose samples are the perturbed initial conditions.

    Raises:
        ConfigError: for a time that the data do not have.
    """
    position = _position(states, init_time)
    analysis = torch.from_numpy(states.read(np.array([position])))[0]
    members = perturbed_members(analysis, statistics.std, starts)
    times = torch.full((len(members),), float(states.hours[position]), dtype=torch.float64)
    zero = torch.zeros_like(times)
    return FieldBatch(
        state=members,
        initial=members,
        init_time=times,
        lead_time=zero,
        intervals=zero[:, None],
        surroundings=Surroundings(states) if states.schema.is_region else None,
        noise=tuple(MemberNoise(starts.seed, number, len(members)) for number in range(len(members))),
    )


def _position(states: States, init_time: str | None) -> int:
    if init_time is None:
        return int(states.indices("test")[-1 if isinstance(states, OtherStates) else 0])
    wanted = states.calendar.moment(init_time, key="init_time")
    positions = np.flatnonzero(states.times == wanted)
    if len(positions) == 0:
        nearest = states.calendar.show(states.times[np.abs(states.times - wanted).argmin()])
        raise ConfigError(
            f"the data have no state at {states.calendar.show(wanted)}",
            key="init_time",
            hint=f"the nearest is {nearest}",
        )
    return int(positions[0])


def forecast_figures(path: Path, states: States, boundary_rows: int) -> Iterator[NamedFigure]:
    """Yields globes of the longest lead time of a written forecast, beside the truth where the data hold it.

    Args:
        boundary_rows: width of the frame in which a region's weather is given.
    """
    example = read_example(path, states, boundary_rows)
    yield NamedFigure(
        "globes",
        "Forecast",
        "The forecast at its longest lead time.",
        lambda stem: draw_forecast_globes(example, None, stem),
    )
