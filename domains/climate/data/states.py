"""States to start from and to score on, in the terms of a trained run: its channels, its grid, its units.

A training needs a store with statistics and climatologies. A forecast needs one analysis, whatever file it comes in,
and the schema and statistics that the run has kept.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from domains.climate.data.calendar import WORLD, Calendar
from domains.climate.data.channel_reader import ChannelReader
from domains.climate.data.readers import Source
from domains.climate.data.regrid import GridSelection, LatLonGrid, Regridder
from domains.climate.data.schema import ClimateSchema, ClimateStatistics, cell_area_weights
from domains.climate.data.selection import Selection, resolve_split
from domains.climate.data.variables import Channel, channel_unit, parse_channels
from sciml.core.duration import format_hours
from sciml.core.errors import DataError, nearest

MINUTES_PER_HOUR = 60
MAX_DEVIATIONS = 6.0
"""Standard deviations by which the mean of a field may lie beside that of the training; more is another unit."""

Read = Callable[[np.ndarray], np.ndarray]


class States(ABC):
    """Holds states of the atmosphere in order of time.

    Attributes:
        schema: channels, grid, step and title.
        statistics: of a training period, and the constant fields.
        times: datetime64[m], increasing.
    """

    schema: ClimateSchema
    times: np.ndarray

    @property
    @abstractmethod
    def statistics(self) -> ClimateStatistics: ...

    @abstractmethod
    def read(self, indices: np.ndarray | slice) -> np.ndarray:
        """Reads states (n, channel, latitude, longitude) in float32 and physical units at positions in time."""

    @abstractmethod
    def indices(self, split: str) -> np.ndarray:
        """Returns the positions of a split's times, increasing."""

    def spread(self, split: str, most: int) -> np.ndarray:
        """Returns the positions of at most so many of a split's times, increasing, spread evenly over it.

        One hour of the day follows the other, so that none is taken more often than others, nor in one season alone.
        """
        positions = self.indices(split)
        if len(positions) <= most:
            return positions
        chosen = np.linspace(0, len(positions) - 1, most)
        hours, of_day = np.unique(np.mod(self.hours[positions], 24.0), return_inverse=True)
        if len(hours) > 24:  # times without an order
            return positions[np.unique(chosen.round().astype(int))]
        found = []
        for hour in range(len(hours)):
            there, wanted = np.flatnonzero(of_day == hour), chosen[hour :: len(hours)]
            middles = (there[1:] + there[:-1]) / 2
            found.append(there[np.searchsorted(middles, wanted)])
        return positions[np.unique(np.concatenate(found))]

    @property
    def augmentation(self) -> str:
        """Returns how samples may be turned without becoming impossible: ``none``, ``roll`` or ``roll_mirror``."""
        return "none"

    def period(self, split: str) -> tuple[str, str]:
        """Returns first and last time of a split, as ISO dates."""
        times = self.times[self.indices(split)]
        return self.calendar.show(times[0]), self.calendar.show(times[-1])

    @property
    def calendar(self) -> Calendar:
        """Returns the calendar that the times are counted in."""
        return Calendar(self.schema.calendar)

    @property
    def hours(self) -> np.ndarray:
        """Returns times as float64 hours since 1970-01-01 00:00 UTC of their calendar."""
        return self.times.astype(np.int64) / MINUTES_PER_HOUR

    @property
    def is_even(self) -> bool:
        """Says whether all times are one step apart."""
        return bool(
            (np.diff(self.times) == np.timedelta64(round(self.schema.step_hours * MINUTES_PER_HOUR), "m")).all()
        )

    @property
    def state_bytes(self) -> int:
        """Returns the bytes of one state in float32."""
        return 4 * len(self.schema.channels) * int(np.prod(self.schema.grid_shape))


class OtherStates(States):
    """Reads states that a run was not trained on; all of them may be scored.

    Args:
        label: the files, for messages.
        read: reads states on the run's channels and grid at positions among the times.
        times: datetime64[m], increasing.
        test: positions of the times to score on; None takes all.
        calendar: that the times are counted in.
    """

    def __init__(
        self,
        label: str,
        title: str,
        read: Read,
        times: np.ndarray,
        schema: ClimateSchema,
        statistics: ClimateStatistics,
        test: np.ndarray | None = None,
        calendar: Calendar = WORLD,
    ) -> None:
        self.label, self.times, self._read, self._statistics = label, times, read, statistics
        self.schema = replace(schema, title=title, calendar=calendar.name, gaps=schema.channels)
        known = () if statistics.known is None else statistics.known.cpu().numpy()
        self._nowhere = {schema.channels.index(name): ~cells for name, cells in zip(schema.gaps, known, strict=False)}
        self._test = np.arange(len(times)) if test is None else test

    @classmethod
    def from_source(
        cls, source: Source, schema: ClimateSchema, statistics: ClimateStatistics, selection: Selection | None = None
    ) -> OtherStates:
        """Takes a source as it comes: channels are selected, fields are regridded where their grid is another.

        Args:
            selection: whose dates of the test split are scored on; None scores all times.

        Raises:
            DataError: a channel of the run is missing; no time has all of them.
        """
        channels = parse_channels(schema.inputs)
        for channel in channels:
            if not _has(source, channel):
                others = [name for name in source.channel_names() if name not in schema.channels]
                raise _missing(source.label, schema, channel.name, others, source.reasons(channel.variable))
        there = np.all([source.fields[c.variable.name].has(c.level) for c in channels], axis=0)
        positions = np.flatnonzero(there)
        if not len(positions):
            raise DataError(f"{source.label}: there is no time at which all of {', '.join(schema.inputs)} are there")
        grid = LatLonGrid(source.orientation.latitude, source.orientation.longitude)
        way = _way(source.label, grid, _grid_of(schema))
        window = round(MINUTES_PER_HOUR * schema.step_hours)
        advice = "choose other dates with init_time, or to score on with data.splits.test=[FIRST,LAST]"
        inputs = ChannelReader(source, channels, way, window, advice=advice)
        outputs = {
            number: ChannelReader(source, [channel], way, window, allow_gaps=True)
            for number, channel in enumerate(parse_channels(schema.channels))
            if channel.name not in schema.inputs and _has(source, channel)
        }
        known = {number: reader.known()[positions] for number, reader in outputs.items()}
        _say_what_is_not_scored(source.label, schema, [n for n in outputs if known[n].any()])
        columns = [schema.channels.index(name) for name in schema.inputs]

        def read(at: np.ndarray) -> np.ndarray:
            states = np.full((len(at), len(schema.channels), *schema.grid_shape), np.nan, dtype=np.float32)
            states[:, columns] = inputs.read(positions[at])
            for number, reader in outputs.items():
                if len(rows := np.flatnonzero(known[number][at])):
                    states[rows, number] = reader.read(positions[at[rows]])[:, 0]
            return states

        times = source.times[positions]
        test = None if selection is None else np.arange(*resolve_split(selection, times, "test", source.calendar))
        return cls(source.label, source.title, read, times, schema, statistics, test, source.calendar)

    @classmethod
    def from_store(cls, store: States, label: str, schema: ClimateSchema, statistics: ClimateStatistics) -> OtherStates:
        """Takes another store: its test split, its channels selected and its fields regridded.

        Raises:
            DataError: a channel of the run is missing.
        """
        have = store.schema.channels
        for name in schema.inputs:
            if name not in have:
                raise _missing(label, schema, name, have)
        same_step = store.schema.step_hours == schema.step_hours
        index = [have.index(name) if name in have else 0 for name in schema.channels]
        unknown = [
            name not in have or not (same_step or channel.variable.over == "instant")
            for name, channel in zip(schema.channels, parse_channels(schema.channels), strict=True)
        ]
        _say_what_is_not_scored(label, schema, np.flatnonzero(~np.array(unknown)))
        regrid = _way(label, _grid_of(store.schema), _grid_of(schema))
        test = store.indices("test")

        def read(positions: np.ndarray) -> np.ndarray:
            states = regrid(store.read(positions)[:, index])
            states[:, unknown] = np.nan
            return states

        return cls(label, store.schema.title, read, store.times, schema, statistics, test, store.calendar)

    @property
    def statistics(self) -> ClimateStatistics:
        return self._statistics

    def indices(self, split: str) -> np.ndarray:
        return self._test

    def read(self, indices: np.ndarray | slice) -> np.ndarray:
        """Reads states; where the training never had a value of a channel, on land say, there is none here either,
        whatever the files have there.

        Raises:
            DataError: a field that cannot be of this planet, most often because its unit is another.
        """
        positions = np.arange(len(self.times))[indices]
        states = self._read(positions)
        for channel, cells in self._nowhere.items():
            states[:, channel, cells] = np.nan
        area = cell_area_weights(self.schema.latitude)[:, None]
        known = np.isfinite(states)
        sums = np.where(known, states, 0).astype(np.float64) * area
        means = sums.sum((-2, -1)) / np.maximum((known * area).sum((-2, -1)), np.finfo(float).tiny)
        normal, spread = self.statistics.mean.cpu().numpy(), self.statistics.std.cpu().numpy()
        away = np.where(known.any((-2, -1)), np.abs(means - normal) / spread, 0.0)
        if (away > MAX_DEVIATIONS).any():
            time, channel = np.argwhere(away > MAX_DEVIATIONS)[0]
            name = self.schema.channels[channel]
            raise DataError(
                f"{self.label}: {name} at {self.calendar.show(self.times[positions[time]])} has the mean "
                f"{means[time, channel]:.5g} {channel_unit(name)}, {away[time, channel]:.0f} standard deviations from "
                f"that of the training, {normal[channel]:.5g}; is its unit what the file says?"
            )
        return states


def _has(source: Source, channel: Channel) -> bool:
    field = source.fields.get(channel.variable.name)
    return field is not None and (channel.level is None or channel.level in field.available_levels())


def _say_what_is_not_scored(label: str, schema: ClimateSchema, known: Sequence[int] | np.ndarray) -> None:
    """Writes one line to stderr on outputs that other data do not have over the run's step.

    Args:
        known: positions of the outputs that they have; inputs are always there.
    """
    names = {*schema.inputs, *(schema.channels[number] for number in known)}
    if missing := [name for name in schema.channels if name not in names]:
        print(
            f"{label}: has no {', '.join(missing)} over the run's step of {format_hours(schema.step_hours)}; "
            "what is missing is not scored",
            file=sys.stderr,
            flush=True,
        )


def _missing(label: str, schema: ClimateSchema, name: str, others: Sequence[str], why: Sequence[str] = ()) -> DataError:
    advice = "; ".join(why) or (nearest(name, others) if others else "take it from the same center as the others")
    return DataError(f"{label}: the run needs {', '.join(schema.inputs)}, and {name} is not there; {advice}")


def _way(label: str, source: LatLonGrid, target: LatLonGrid) -> Regridder | GridSelection:
    """Returns how fields get from one grid to that of the run: regridded over the globe, or its points picked out.

    Raises:
        DataError: a region that lacks points of the run's grid.
    """
    if source.same_as(target) or (source.is_global and target.is_global):
        return Regridder(source, target)
    part = source.find(target)
    if part is None:
        raise DataError(
            f"{label}: covers {source.box()} in steps of {abs(np.diff(source.latitude)[0]):g} degrees; the points of "
            f"the run's grid are needed, {target.box()} in steps of {abs(np.diff(target.latitude)[0]):g}"
        )
    return part


def _grid_of(schema: ClimateSchema) -> LatLonGrid:
    return LatLonGrid(np.asarray(schema.latitude), np.asarray(schema.longitude))
