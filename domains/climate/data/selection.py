"""Selects the parts of a source that go into a store, and the times for training, validation and testing."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from domains.climate.data.calendar import WORLD, Calendar
from domains.climate.data.regrid import LatLonGrid
from domains.climate.data.variable import Role
from domains.climate.data.variables import find, parse_channels
from sciml.core.duration import parse_hours
from sciml.core.errors import ConfigError, nearest
from sciml.core.types import NonNegative

SPLITS = ("train", "valid", "test")
AUTO_GAP_HOURS = 240.0
AUTO_GAP_SHARE = 0.02


def default_splits() -> dict[str, Any]:
    return {"train": 0.8, "valid": 0.1, "test": 0.1}


@dataclass(frozen=True)
class Selection:
    """Says which part of a source is used. All keys are optional.

    Attributes:
        channels: e.g. ``[z500, t850, t2m]``; null takes every prognostic variable at every level there is.
        statics: e.g. ``[lsm, orography]``; null takes those that are there. ``latitude`` (its sine) is computed.
        levels: restricts the levels that ``channels: null`` takes, in hPa.
        start, end: first and last date, both included: ``2010``, ``2010-06`` or ``2010-06-01T12:00``.
        step: takes every so many hours only, e.g. ``6h`` of hourly data; null keeps the data's own step.
        grid: target grid as longitudes x latitudes, e.g. ``64x32``; null keeps the data's own.
        region: ``[north, west, south, east]`` in degrees, as CDS writes an area: a part of the grid for a limited-area
            model; it may lie across any meridian.
        drop_pole: leaves out the row on the south pole: 720 rows of 721.
        splits: for each of train, valid and test either its share of the time, in this order, or its
            ``[first, last]`` dates, both included.
        gap: time left out between splits given as shares, so that neighbours differ; null takes 240 h,
            or 2% of the period where that is less.
        allow_gaps: whether times may be unevenly spaced or have holes; samples are then made where all their times
            are there, and the step is the longest span of which all spacings are multiples.
        member: which member of an ensemble.
        compress: whether fields are compressed, without loss; plain ones are read in two thirds of the time where the
            disk is fast.
    """

    key_prefix: ClassVar[str] = ""

    channels: list[str] | None = None
    statics: list[str] | None = None
    levels: list[int] | None = None
    start: str | int | None = None
    end: str | int | None = None
    step: str | None = None
    grid: str | None = None
    region: list[float] | None = None
    drop_pole: bool = False
    splits: dict[str, Any] = field(default_factory=default_splits)
    gap: str | None = None
    allow_gaps: bool = False
    member: NonNegative[int] = 0
    compress: bool = True

    def __post_init__(self) -> None:
        key = self.key
        self._check_names()
        if self.grid is not None:
            LatLonGrid.parse(self.grid, key=key("grid"))
        self._check_region()
        if self.step is not None and parse_hours(self.step, key=key("step")) <= 0:
            raise ConfigError("must be above 0", key=key("step"), hint=f"try {key('step')}=6h")
        if self.gap is not None:
            parse_hours(self.gap, key=key("gap"))
        for name, date in (("start", self.start), ("end", self.end)):
            if date is not None:
                check_date(date, key=key(name))
        check_splits(self.splits, key("splits"))

    def _check_region(self) -> None:
        if self.region is None:
            return
        key = self.key("region")
        if len(self.region) != 4 or not 90 >= self.region[0] > self.region[2] >= -90:
            raise ConfigError(
                f"must be [north, west, south, east] in degrees, got {self.region}", key=key, hint="e.g. [60,-10,35,30]"
            )
        if self.grid is not None:
            raise ConfigError("cannot be given together with grid", key=key, hint="prepare the coarser grid first")

    def _check_names(self) -> None:
        if self.channels is not None:
            if not self.channels:
                key = self.key("channels")
                raise ConfigError("no channel is chosen", key=key, hint="name some, e.g. [z500,t850,t2m]")
            parse_channels(self.channels, key=self.key("channels"))
        for name in self.statics or ():
            key = self.key("statics")
            if name != "latitude" and find(name, key=key).role is not Role.STATIC:
                raise ConfigError(f"{name} changes in time", key=key, hint="put it under channels")

    def key(self, name: str) -> str:
        """Returns a key as the user types it, for messages."""
        return f"{self.key_prefix}{name}"

    def selected(self) -> dict[str, Any]:
        """Returns the keys that decide what is in a store, with their values."""
        return {field.name: getattr(self, field.name) for field in fields(Selection)}


def check_date(text: str | int, *, last: bool = False, key: str | None = None) -> np.datetime64:
    """Returns the first (or last) minute of a date in whichever calendar has it, to see that it can be one.

    Raises:
        ConfigError: where it is no date.
    """
    try:
        return WORLD.moment(text, last=last, key=key)
    except ConfigError:
        if "-02-" in str(text):  # of models whose months all have 30 days
            return Calendar("360_day").moment(text, last=last, key=key)
        raise


def check_splits(splits: dict[str, Any], key: str = "splits") -> None:
    """Checks the form of splits.

    Raises:
        ConfigError: an unknown or missing name; shares and dates mixed; shares that are not positive or exceed 1;
            dates out of order or overlapping.
    """
    for name in splits:
        if name not in SPLITS:
            raise ConfigError(f"unknown split {name!r}", key=key, hint=nearest(name, SPLITS))
    for name in SPLITS:
        if name not in splits:
            raise ConfigError(f"the split {name!r} is missing", key=key, hint=f"e.g. {key}.{name}=0.1")
    if by_share(splits):
        if min(splits.values()) <= 0 or sum(splits.values()) > 1 + 1e-9:
            raise ConfigError(
                "shares must be positive and sum to at most 1", key=key, hint="e.g. {train: 0.8, valid: 0.1, test: 0.1}"
            )
        return
    ranges = sorted((date_range(splits, name, key), name) for name in SPLITS)
    for (before, first), (after, second) in itertools.pairwise(ranges):
        if after[0] <= before[1]:
            raise ConfigError(
                f"{first} and {second} overlap at {after[0]}",
                key=f"{key}.{second}",
                hint=f"let it start after {before[1]}",
            )


def by_share(splits: dict[str, Any]) -> bool:
    """Says whether splits are shares of the time and not dates."""
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in splits.values())


def date_range(
    splits: dict[str, Any], name: str, key: str = "splits", calendar: Calendar | None = None
) -> tuple[np.datetime64, np.datetime64]:
    """Returns first and last minute of a split that is given by dates; without a calendar, to compare them alone."""
    value, key = splits[name], f"{key}.{name}"
    if isinstance(value, (str, int, float)) or len(value) != 2:
        raise ConfigError(
            f"{value!r} is neither a share nor two dates",
            key=key,
            hint="give all three as shares (0.8) or all three as dates ([2010-01-01,2016-12-31])",
        )
    moment = check_date if calendar is None else calendar.moment
    first, last = moment(value[0], key=key), moment(value[1], last=True, key=key)
    if last < first:
        raise ConfigError(f"it ends ({value[1]}) before it starts ({value[0]})", key=key, hint="swap the dates")
    return first, last


def resolve_split(selection: Selection, times: np.ndarray, name: str, calendar: Calendar) -> tuple[int, int]:
    """Returns first position and that behind the last of a split that is given by dates, among the times.

    Raises:
        ConfigError: a split without a single time.
    """
    first, last = date_range(selection.splits, name, selection.key("splits"), calendar)
    inside = np.flatnonzero((times >= first) & (times <= last))
    if not len(inside):
        raise ConfigError(
            f"no data lie between {calendar.show(first)} and {calendar.show(last)}",
            key=selection.key(f"splits.{name}"),
            hint=f"the data reach from {calendar.show(times[0])} to {calendar.show(times[-1])}",
        )
    return int(inside[0]), int(inside[-1]) + 1


def resolve_splits(selection: Selection, times: np.ndarray, calendar: Calendar) -> dict[str, tuple[int, int]]:
    """Returns first and last position, both included, of each split among the times.

    Raises:
        ConfigError: a split without a single time.
    """
    if by_share(selection.splits):
        return _splits_by_share(selection, times)
    resolved = {}
    for name in SPLITS:
        first, behind = resolve_split(selection, times, name, calendar)
        resolved[name] = (first, behind - 1)
    return resolved


def _splits_by_share(selection: Selection, times: np.ndarray) -> dict[str, tuple[int, int]]:
    num_times = len(times)
    period = float((times[-1] - times[0]) / np.timedelta64(1, "h"))
    if selection.gap is None:
        gap_hours = min(AUTO_GAP_HOURS, AUTO_GAP_SHARE * period)
    else:
        gap_hours = parse_hours(selection.gap, key=selection.key("gap"))
    gap = int(gap_hours / (period / (num_times - 1)) + 1e-6)
    usable = num_times - 2 * gap
    edges = np.round(np.cumsum([0.0, *(selection.splits[name] for name in SPLITS)]) * max(usable, 0)).astype(int)
    resolved = {}
    for number, name in enumerate(SPLITS):
        first, last = int(edges[number]) + number * gap, int(edges[number + 1]) + number * gap - 1
        if last < first:
            raise ConfigError(
                f"{num_times} times are too few for a share of {selection.splits[name]:g}",
                key=selection.key(f"splits.{name}"),
                hint="use a longer period, a larger share or gap=0h",
            )
        resolved[name] = (first, last)
    return resolved
