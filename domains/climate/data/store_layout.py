"""Decides and checks what a store will hold before a single field is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from domains.climate.data import zarr_layout as layout
from domains.climate.data.channel_reader import ChannelReader
from domains.climate.data.chosen_times import choose_times
from domains.climate.data.readers import Source
from domains.climate.data.regrid import SAME_GRID_DEGREES, GridSelection, LatLonGrid, Regridder
from domains.climate.data.selection import SPLITS, Selection, resolve_splits
from domains.climate.data.variable import Role
from domains.climate.data.variables import Channel, find, parse_channels
from domains.climate.data.vocabulary import VARIABLES
from sciml.core.errors import ConfigError, DataError, nearest

MIN_TRAINING_TIMES = 3
COMPUTED_STATICS = ("latitude",)


@dataclass(frozen=True)
class PreparePlan:
    """Decides which channels, times and grid a store has, and how to read them.

    Attributes:
        positions: of the chosen times among the source's.
        times: datetime64[m] of them.
        step_hours: their spacing, or the longest span of which all spacings are multiples.
        statics: short names of the constant fields.
        splits: first and last position among ``times``, both included.
        allow_gaps: whether a channel may have no value at all at some times, which are then left out.
        compress: whether fields are compressed.
    """

    source: Source
    channels: tuple[Channel, ...]
    statics: tuple[str, ...]
    positions: np.ndarray
    times: np.ndarray
    step_hours: float
    grid: LatLonGrid
    regridder: Regridder | GridSelection
    splits: dict[str, tuple[int, int]]
    allow_gaps: bool = False
    compress: bool = True

    def attributes(self) -> dict[str, Any]:
        """Returns what a store says of itself."""
        show = self.source.calendar.show
        return {
            "format": layout.FORMAT,
            "version": layout.VERSION,
            "title": self.source.title,
            "source": self.source.attribution,
            "symmetries": self.source.symmetries,
            "step_hours": self.step_hours,
            "calendar": self.source.calendar.name,
            "splits": {name: [show(self.times[a]), show(self.times[b])] for name, (a, b) in self.splits.items()},
        }

    @cached_property
    def reader(self) -> ChannelReader:
        """Reads the source's channels on the target grid."""
        return ChannelReader(self.source, self.channels, self.regridder, round(60 * self.step_hours), self.allow_gaps)

    def block_size(self, max_bytes: float, multiple: int, *, regridded: bool = False) -> int:
        """Returns the number of times per block that fit into memory, a multiple of the store's chunk."""
        target = len(self.channels) * self.grid.shape[0] * self.grid.shape[1]
        per_time = 2 * 4 * target + (0 if regridded else self.reader.bytes_per_time())
        return max(1, int(max_bytes / per_time) // multiple) * multiple

    def read(self, part: slice) -> np.ndarray:
        """Reads fields (time, channel, latitude, longitude) of a range of times, checked and on the target grid.

        Raises:
            DataError: not a number, or a value that cannot be.
        """
        return self.reader.read(self.positions[part])

    def read_statics(self) -> np.ndarray:
        """Reads constant fields (static, latitude, longitude) in float64 on the target grid."""
        fields = np.empty((len(self.statics), *self.grid.shape))
        for number, short in enumerate(self.statics):
            if short == "latitude":
                fields[number] = np.sin(np.deg2rad(self.grid.latitude))[:, None]
                continue
            field = self.source.statics[find(short).name]
            values = self.regridder(field.read(np.zeros(1, int), np.zeros(1, int))[0, 0].astype(np.float64))
            if not np.isfinite(values).all():
                raise DataError(
                    f"{field.file_at(0)}: {field.variable.name} is not a number in places; leave it out of statics"
                )
            fields[number] = values
        return fields


def wanted_names(selection: Selection) -> set[str] | None:
    """Returns the long names of the variables that a selection names; None where it takes what there is."""
    if selection.channels is None:
        return None
    names = {channel.variable.name for channel in parse_channels(selection.channels)}
    statics = [v.name for v in VARIABLES if v.role is Role.STATIC]
    if selection.statics is not None:
        statics = [find(name).name for name in selection.statics if name not in COMPUTED_STATICS]
    return {*names, *statics}


def make_plan(source: Source, selection: Selection) -> PreparePlan:
    """Decides and checks everything that can be known without reading fields.

    Raises:
        ConfigError: dates, splits or levels that the data do not have.
        DataError: missing variables, gaps in time.
    """
    grid = LatLonGrid(source.orientation.latitude, source.orientation.longitude)
    regridder, target = _target(source, grid, selection)
    channels = _channels(source, selection)
    positions, step_hours = choose_times(source, selection, channels)
    times = source.times[positions]
    splits = resolve_splits(selection, times, source.calendar)
    if splits["train"][1] - splits["train"][0] + 1 < MIN_TRAINING_TIMES:
        raise ConfigError(
            f"the training period has fewer than {MIN_TRAINING_TIMES} times",
            key=selection.key("splits.train"),
            hint="make it longer",
        )
    return PreparePlan(
        source, channels, _statics(source, selection), positions, times, step_hours, target, regridder, splits,
        allow_gaps=selection.allow_gaps, compress=selection.compress,
    )  # fmt: skip


def _target(source: Source, grid: LatLonGrid, selection: Selection) -> tuple[Regridder | GridSelection, LatLonGrid]:
    """Returns how fields get to the store's grid, and that grid."""
    if selection.region is not None:
        part = grid.part(selection.region)
        if min(part.shape) < 2:
            raise ConfigError(
                f"{source.label} has {part.shape[0]}x{part.shape[1]} points in it",
                key=selection.key("region"),
                hint=f"it covers {grid.box()}",
            )
        return part, grid.select(part)
    if selection.drop_pole and grid.latitude[-1] <= -90 + SAME_GRID_DEGREES:
        part = GridSelection(np.arange(len(grid.latitude) - 1), np.arange(len(grid.longitude)))
        return part, grid.select(part)
    if selection.grid is None:
        return Regridder(grid, grid), grid
    if not grid.is_global:
        raise ConfigError(
            f"{source.label} covers {grid.box()} alone, which keeps its own grid",
            key=selection.key("grid"),
            hint="leave it out",
        )
    target = LatLonGrid.parse(selection.grid, key=selection.key("grid"))
    return Regridder(grid, target), target


def _channels(source: Source, selection: Selection) -> tuple[Channel, ...]:
    if selection.channels is None:
        return _all_channels(source, selection)
    channels = parse_channels(selection.channels, key=selection.key("channels"))
    for channel in channels:
        levels = source.field(channel.variable.name).available_levels()
        if channel.level is not None and channel.level not in levels:
            raise DataError(
                f"{source.label}: {channel.variable.name} has no level {channel.level} hPa; "
                f"it has {', '.join(map(str, levels))}"
            )
    return channels


def _all_channels(source: Source, selection: Selection) -> tuple[Channel, ...]:
    """Returns every prognostic variable, at all levels or at those that are chosen."""
    for level in selection.levels or ():
        if level not in source.levels:
            known = nearest(str(level), map(str, source.levels))
            raise ConfigError(f"{source.label} has no level {level} hPa", key=selection.key("levels"), hint=known)
    channels: list[Channel] = []
    for variable in VARIABLES:
        if variable.role is not Role.PROGNOSTIC or variable.name not in source.fields:
            continue
        if not variable.on_levels:
            channels.append(Channel(variable))
            continue
        levels = source.fields[variable.name].available_levels()
        channels += [Channel(variable, lv) for lv in levels if selection.levels is None or lv in selection.levels]
    if not channels:
        raise DataError(
            f"{source.label}: no prognostic variable; it has {', '.join(source.fields) or 'only constant fields'}; "
            "name what you want under channels"
        )
    return tuple(channels)


def _statics(source: Source, selection: Selection) -> tuple[str, ...]:
    if selection.statics is None:
        return tuple(field.variable.short for field in source.statics.values())
    names = []
    for name in selection.statics:
        if name not in COMPUTED_STATICS and find(name).name not in source.statics:
            raise DataError(
                f"{source.label}: no constant field {find(name).name}; "
                f"{nearest(find(name).name, [*source.statics, *COMPUTED_STATICS])}"
            )
        names.append(name if name in COMPUTED_STATICS else find(name).short)
    return tuple(names)


__all__ = ["SPLITS", "PreparePlan", "make_plan"]
