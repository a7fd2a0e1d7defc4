"""One variable of a source, however many files it lies in, read a few times at a go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from domains.climate.data.calendar import WORLD, Calendar
from domains.climate.data.variable import Conversion, Variable
from sciml.core.errors import DataError

DIMS = ("time", "level", "latitude", "longitude")


@dataclass(frozen=True)
class Orientation:
    """Brings a file's rows and columns into the order of this project: latitude falls, longitude rises from 0.

    Attributes:
        latitude, longitude: degrees, in that order.
        rows, columns: where each of them stands in the file.
    """

    latitude: np.ndarray
    longitude: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    def apply(self, values: np.ndarray) -> np.ndarray:
        return values[..., as_slice(self.rows), :][..., as_slice(self.columns)]


@dataclass(frozen=True)
class FieldPiece:
    """Describes what one file has of one variable, still on disk.

    Attributes:
        file: the file, for messages.
        variable: what it is.
        array: lazy array with dimensions among time, level, expver, latitude and longitude, in any order.
        times: datetime64[m] of its times; empty where it has no time.
        levels: hPa; empty where it has none.
        conversion: from the file's unit to the variable's.
        calendar: that the times are counted in.
        begins: datetime64[m] at which the period begins that each value speaks of, where the file says so.
        ends: datetime64[m] at which it ends, where the file says so; its times may be the middle.
        before: the same field at an earlier time for each of its times, where both begin together: what is read is
            what the time between them has added, or its mean.
    """

    file: str
    variable: Variable
    array: xr.DataArray
    times: np.ndarray
    levels: tuple[int, ...]
    conversion: Conversion
    orientation: Orientation
    calendar: Calendar = WORLD
    begins: np.ndarray | None = None
    ends: np.ndarray | None = None
    before: FieldPiece | None = None

    def at(self, rows: np.ndarray) -> FieldPiece:
        """Returns the part at some of its times."""
        if np.array_equal(rows, np.arange(len(self.times))):
            return self
        array = self.array.isel(time=as_slice(rows)) if "time" in self.array.dims else self.array
        begins, ends = (None if moments is None else moments[rows] for moments in (self.begins, self.ends))
        before = None if self.before is None else self.before.at(rows)
        return replace(self, array=array, times=self.times[rows], begins=begins, ends=ends, before=before)

    def since(self, before: FieldPiece) -> FieldPiece:
        """Returns what comes after the end of the same field at earlier times, as many; both begin together."""
        return replace(self, begins=before.times, before=before)

    def read(self, times: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Reads values (time, level, latitude, longitude) in float32 and the variable's unit.

        Args:
            times, levels: positions within this piece; ignored along a dimension that the array lacks.

        Raises:
            DataError: where the file is damaged.
        """
        return self._values(times, levels).astype(np.float32)

    def _values(self, times: np.ndarray, levels: np.ndarray) -> np.ndarray:
        chosen = {"time": as_slice(times), "level": as_slice(levels)}
        part = self.array.isel({dim: index for dim, index in chosen.items() if dim in self.array.dims})
        try:
            values = np.asarray(part.values, dtype=np.float64)
        except Exception as error:  # whatever a broken file makes the libraries raise
            when = f" at {self.calendar.show(self.times[times[0]])}" if len(self.times) else ""
            raise DataError(
                f"{self.file}: {self.variable.name}{when} cannot be read, the file seems damaged "
                f"({type(error).__name__}: {error})"
            ) from error
        values = merged_versions(values, [str(dim) for dim in part.dims])
        order = [dim for dim in part.dims if dim != "expver"]
        values = values.transpose([order.index(dim) for dim in DIMS if dim in order])
        for position, dim in enumerate(DIMS[:2]):
            if dim not in order:
                values = np.expand_dims(values, position)
        values = self.orientation.apply(values) * self.conversion.scale + self.conversion.offset
        return values if self.before is None else self._added(values, self.before, times, levels)

    def _added(self, values: np.ndarray, before: FieldPiece, times: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Returns the sum, or the mean, over the time that is in the whole period and not in the part before."""
        earlier = before._values(times, levels)
        if self.variable.over == "sum":
            return values - earlier
        assert before.begins is not None
        whole, part = (
            (moments - before.begins)[times].astype(np.float64)[:, None, None, None]
            for moments in (self.times, before.times)
        )
        return (values * whole - earlier * part) / (whole - part)


def merged_versions(values: np.ndarray, dims: list[str]) -> np.ndarray:
    """Merges ERA5 and preliminary ERA5T: CDS gives them as ``expver`` 1 and 5, each NaN where the other has values."""
    if "expver" not in dims:
        return values
    versions = np.moveaxis(values, dims.index("expver"), 0)
    merged = versions[0]
    for version in versions[1:]:
        merged = np.where(np.isnan(merged), version, merged)
    return merged


def as_slice(index: np.ndarray) -> slice | np.ndarray:
    """Returns contiguous positions, forwards or backwards, as a slice, which is read fastest."""
    first, last = (int(index[0]), int(index[-1])) if len(index) else (0, -1)
    if len(index) > 1 and np.array_equal(index, np.arange(first, last - 1, -1)):
        return slice(first, last - 1 if last else None, -1)
    if np.array_equal(index, np.arange(first, last + 1)):
        return slice(first, last + 1)
    return index


class Field:
    """Puts a variable over all times and levels of a source together from pieces.

    Args:
        pieces: of one variable, all on one grid.
        times: all times of the source, increasing.
        levels: all levels of the source in hPa, increasing; empty for a variable without levels.
        calendar: that the times are counted in, for messages.

    Raises:
        DataError: the same time (and level) twice, with different values.
    """

    def __init__(
        self, pieces: Sequence[FieldPiece], times: np.ndarray, levels: tuple[int, ...], calendar: Calendar = WORLD
    ) -> None:
        self.pieces, self.calendar = list(pieces), calendar
        self.variable = pieces[0].variable
        self.times, self.levels = times, levels
        shape = (max(len(times), 1), max(len(levels), 1))
        self.owner = np.full(shape, -1, dtype=np.int32)  # which piece has it
        self.row = np.zeros(shape, dtype=np.int64)  # where in that piece's time
        self.column = np.zeros(shape, dtype=np.int64)  # where in that piece's levels
        self.begins = np.full(shape[0], "NaT", "datetime64[m]")  # of the period, where it is stated
        for number, piece in enumerate(self.pieces):
            self._place(number, piece)

    def _place(self, number: int, piece: FieldPiece) -> None:
        rows = np.searchsorted(self.times, piece.times) if len(piece.times) else np.zeros(1, dtype=np.int64)
        columns = np.array([self.levels.index(level) for level in piece.levels] or [0])
        once = np.unique(rows, return_index=True)[1]
        cells = np.ix_(rows[once], columns)
        new = self.owner[cells] < 0
        found = (self.owner, number), (self.row, once[:, None]), (self.column, np.arange(len(columns))[None])
        for table, values in found:
            table[cells] = np.where(new, values, table[cells])
        if piece.begins is not None:
            first = once[new.any(1)]
            self.begins[rows[first]] = piece.begins[first]
        again = [(once[place], column) for place, column in np.argwhere(~new)]
        again += [(row, column) for row in np.setdiff1d(np.arange(len(rows)), once) for column in range(len(columns))]
        for row, column in again:
            self._check_same(piece, row, column, int(rows[row]), int(columns[column]))

    def _check_same(self, piece: FieldPiece, row: int, column: int, time: int, level: int) -> None:
        """Refuses other values at a time and level that are there already; files may overlap where they are equal."""
        first = self.pieces[self.owner[time, level]]
        places = (self.row[time, level], self.column[time, level]), (row, column)
        one, other = (
            own.read(np.array([at]), np.array([on])) for own, (at, on) in zip((first, piece), places, strict=True)
        )
        if not np.array_equal(one, other, equal_nan=True):
            self._refuse_twice(time, first, piece)

    def _refuse_twice(self, time: int, first: FieldPiece, second: FieldPiece) -> None:
        when = f" at {self.calendar.show(self.times[time])}" if len(self.times) else ""
        where = first.file if first.file == second.file else f"{first.file} and {second.file}"
        if "step" in first.array.coords and "step" in second.array.coords:
            raise DataError(
                f"{where}: several forecasts have {self.variable.name}{when}; keep one lead time, or forecasts that "
                "do not overlap"
            )
        raise DataError(
            f"{where}: {self.variable.name}{when} is there twice with different values; keep one of the two"
        )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Returns (time, level, latitude, longitude), 1 along a dimension it lacks."""
        orientation = self.pieces[0].orientation
        return (*self.owner.shape, len(orientation.latitude), len(orientation.longitude))

    def available_levels(self) -> tuple[int, ...]:
        """Returns the levels that some file has."""
        return tuple(level for i, level in enumerate(self.levels) if (self.owner[:, i] >= 0).any())

    def has(self, level: int | None) -> np.ndarray:
        """Says which times exist, at a level or without one: bool (time,)."""
        return self.owner[:, 0 if level is None else self.levels.index(level)] >= 0

    def file_at(self, time: int, level: int | None = None) -> str:
        """Returns the file that has a time, for messages."""
        owner = self.owner[time, 0 if level is None else self.levels.index(level)]
        return self.pieces[max(int(owner), 0)].file

    def read(self, times: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Reads values (time, level, latitude, longitude) in float32 at positions of the source's times and levels.

        Raises:
            DataError: where no file has them, or one is damaged.
        """
        out = np.empty((len(times), len(levels), *self.shape[2:]), dtype=np.float32)
        owner = self.owner[np.ix_(times, levels)]
        if (owner < 0).any():
            time, level = np.argwhere(owner < 0)[0]
            at = f" at {self.levels[levels[level]]} hPa" if self.levels else ""
            when = self.calendar.show(self.times[times[time]])
            raise DataError(f"{self.pieces[0].file}: {self.variable.name}{at} is missing at {when}")
        for number in np.unique(owner):
            rows, columns = np.flatnonzero((owner == number).any(1)), np.flatnonzero((owner == number).any(0))
            block = self.pieces[number].read(
                self.row[times[rows], levels[columns[0]]], self.column[times[rows[0]], levels[columns]]
            )
            mine = owner[np.ix_(rows, columns)] == number
            target = out[np.ix_(rows, columns)]
            target[mine] = block[mine]
            out[np.ix_(rows, columns)] = target
        return out
