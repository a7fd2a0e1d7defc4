"""Defines what domains with time have: the protocol by which they forecast, and the records that pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sciml.core.duration import TimeUnit
from sciml.core.errors import ConfigError
from sciml.core.result import CommandResult
from sciml.core.types import AtLeastOne, NonNegative
from sciml.domain.protocol import LoadedModel, NamedFigure, Prediction, Task


@dataclass(frozen=True)
class ForecastRequest:
    """Says what forecast a user asks for.

    Attributes:
        init_time: as the domain writes times, e.g. ``2001-12-01T00``; None takes the first of the test period.
        lead_hours: how far ahead.
        every_hours: interval of one model step; None takes the longest known one that fits.
        members: ensemble size of perturbed starts; None takes the run's.
        perturbation: their size in standard deviations; None takes the run's.
        seed: of the perturbations; None takes the run's.
        combine_intervals: one more kind of ensemble: a member for each known interval that fits.

    Raises:
        ConfigError: the forecast leads nowhere.
    """

    init_time: str | None
    lead_hours: float
    every_hours: float | None = None
    members: AtLeastOne | None = None
    perturbation: NonNegative[float] | None = None
    combine_intervals: bool = False
    seed: NonNegative[int] | None = None

    def __post_init__(self) -> None:
        if not self.lead_hours > 0:
            raise ConfigError(f"must be above 0, got {self.lead_hours:g}", key="lead_time", hint="try lead_time=72h")

    def starts(self, members: int, perturbation: float, seed: int) -> PerturbedStarts:
        """Returns the starts of the ensemble, with what the request leaves to the run."""
        return PerturbedStarts(
            members if self.members is None else self.members,
            perturbation if self.perturbation is None else self.perturbation,
            seed if self.seed is None else self.seed,
        )


@dataclass(frozen=True)
class PerturbedStarts:
    """Says how the members of an ensemble begin: with white noise of a size in standard deviations of each channel."""

    members: int
    size: float
    seed: int


class Writer(Protocol):
    """Writes a forecast file that grows with each lead time."""

    def append(self, lead_hours: float, prediction: Prediction) -> None:
        """Adds one lead time; samples of the prediction are members of the ensemble."""
        ...

    def close(self) -> None: ...


def _no_summary(path: Path) -> CommandResult | None:
    return None


@dataclass(frozen=True)
class PreparedForecast:
    """Holds a forecast that can begin.

    Attributes:
        task: predicts and advances.
        batch: the initial conditions; samples are members of the ensemble.
        intervals: hours of the steps that the model was trained on.
        step_hours: of the data, of which all intervals are multiples.
        writer: opens the forecast's file.
        figures: yields pictures of the written forecast, beside the truth where the data hold it.
        summary: says more of the written forecast, where there is something to say.
    """

    task: Task
    batch: Any
    intervals: Sequence[float]
    step_hours: float
    writer: Callable[[Path], Writer]
    figures: Callable[[Path], Iterator[NamedFigure]]
    summary: Callable[[Path], CommandResult | None] = _no_summary


@runtime_checkable
class Forecasts(Protocol):
    """Describes domains with time, which can forecast.

    Attributes:
        forecast_suffixes: of the files that its writer writes, the usual one first.
        headline_lead_h: lead time in hours that headlines speak of where it was scored; None takes the longest.
        time_unit: of lead times that are bare numbers.
    """

    forecast_suffixes: Sequence[str]
    time_unit: TimeUnit
    headline_lead_h: float | None

    def time_text(self, schema: Mapping[str, Any], hours: float) -> str:
        """Writes a lead time of data of some schema, in their unit."""
        ...

    def prepare_forecast(self, loaded: LoadedModel, request: ForecastRequest) -> PreparedForecast:
        """Reads the initial conditions; the model, its schema and its statistics come with it."""
        ...
