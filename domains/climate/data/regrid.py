"""Conservative regridding between regular latitude-longitude grids.

Each target value is the mean of the source over the target's cell, weighted by the exact area of overlap, so
that the integral over the globe stays what it was. Overlaps of latitude-longitude boxes are a product of one
of latitudes and one of longitudes, so each axis is gone through by itself.

Source: first-order conservative remapping, Jones (1999), https://doi.org/10.1175/1520-0493(1999)127<2204:FASOCR>2.0.CO;2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domains.climate.data.schema import goes_round, reaches_poles
from sciml.core.errors import ConfigError

SAME_GRID_DEGREES = 1e-4
FOUND_DEGREES = 1e-3
TURNS = (-360.0, 0.0, 360.0)
LEAST_SHARE = 0.5 - 1e-6
"""Share of a cell that must be known for its mean to be."""


@dataclass(frozen=True)
class GridSelection:
    """Takes rows and columns out of fields; like :class:`Regridder`, but nothing is averaged.

    Attributes:
        rows, columns: their positions.
    """

    rows: np.ndarray
    columns: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), len(self.columns)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Returns the selected part of fields (..., latitude, longitude)."""
        return values[..., self.rows[:, None], self.columns]


@dataclass(frozen=True)
class LatLonGrid:
    """Describes a regular grid: latitude decreasing, longitude increasing, both in degrees.

    A global grid has its longitudes in [0, 360); those of a region follow one another across any meridian.
    """

    latitude: np.ndarray
    longitude: np.ndarray

    @classmethod
    def parse(cls, text: str, *, key: str | None = "grid") -> LatLonGrid:
        """Makes the equidistant grid of a text such as ``64x32``: longitudes x latitudes.

        An even number of latitudes makes cells that touch the poles (64x32: 87.1875, 81.5625, ...); an odd one
        puts points on the poles (360x181: 90, 89, ...). Longitudes start at 0.

        Raises:
            ConfigError: another form, or more latitudes than longitudes.
        """
        match = re.fullmatch(r"\s*(\d+)\s*x\s*(\d+)\s*", str(text))
        if match is None:
            raise ConfigError(f"{text!r} is no grid", key=key, hint="write longitudes x latitudes, e.g. 64x32")
        columns, rows = int(match[1]), int(match[2])
        if rows < 2 or columns < rows:
            raise ConfigError(
                f"{text!r} has more latitudes than longitudes, or too few",
                key=key,
                hint=f"longitudes come first, e.g. {max(rows, 4)}x{max(columns, 2)}",
            )
        spacing = 180.0 / (rows - 1) if rows % 2 else 180.0 / rows
        start = 90.0 if rows % 2 else 90.0 - spacing / 2
        return cls(start - spacing * np.arange(rows), 360.0 / columns * np.arange(columns))

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.latitude), len(self.longitude)

    @property
    def text(self) -> str:
        return f"{len(self.longitude)}x{len(self.latitude)}"

    def same_as(self, other: LatLonGrid) -> bool:
        return self.shape == other.shape and bool(
            np.abs(self.latitude - other.latitude).max() < SAME_GRID_DEGREES
            and np.abs(self.longitude - other.longitude).max() < SAME_GRID_DEGREES
        )

    @property
    def goes_round(self) -> bool:
        """Says whether the longitudes go all around."""
        return goes_round(self.longitude)

    @property
    def is_global(self) -> bool:
        """Says whether the grid covers the globe; of a region the outermost cells do not reach to the poles."""
        return self.goes_round and reaches_poles(self.latitude)

    def part(self, region: Sequence[float]) -> GridSelection:
        """Returns the points of a region, ``[north, west, south, east]`` in degrees; from west to east."""
        north, west, south, east = region
        inside = (self.latitude <= north + SAME_GRID_DEGREES) & (self.latitude >= south - SAME_GRID_DEGREES)
        width = (east - west) % 360.0 or 360.0
        ahead = np.mod(self.longitude - west + SAME_GRID_DEGREES, 360.0)
        columns = np.flatnonzero(ahead <= width + 2 * SAME_GRID_DEGREES)
        return GridSelection(np.flatnonzero(inside), columns[np.argsort(ahead[columns], kind="stable")])

    def select(self, part: GridSelection) -> LatLonGrid:
        """Returns the grid of some rows and columns."""
        return LatLonGrid(self.latitude[part.rows], in_a_row(self.longitude[part.columns]))

    def find(self, other: LatLonGrid) -> GridSelection | None:
        """Returns where the points of another grid stand in this one; None where one of them is not there."""
        rows = np.abs(self.latitude[:, None] - other.latitude).argmin(0)
        apart = np.abs(np.mod(self.longitude[:, None] - other.longitude + 180.0, 360.0) - 180.0)
        columns = apart.argmin(0)
        near = np.abs(self.latitude[rows] - other.latitude).max() < FOUND_DEGREES and apart.min(0).max() < FOUND_DEGREES
        return GridSelection(rows, columns) if near else None

    def box(self) -> str:
        """Returns the region's edges in words."""
        return (
            f"latitudes {self.latitude[-1]:g} to {self.latitude[0]:g} and longitudes {self.longitude[0]:g} to "
            f"{self.longitude[-1]:g}"
        )


def in_a_row(longitude: np.ndarray) -> np.ndarray:
    """Returns longitudes of neighbors from west to east as rising numbers, below 0 where they cross Greenwich."""
    steps = np.mod(np.diff(longitude), 360.0)
    row = longitude[0] + np.concatenate([[0.0], np.cumsum(steps)]) if len(longitude) else longitude
    return row - 360.0 if len(row) and row[-1] >= 360.0 - SAME_GRID_DEGREES else row


def latitude_edges(latitude: np.ndarray) -> np.ndarray:
    """Returns the edges of cells in degrees, decreasing: midway between latitudes, and at the poles."""
    return np.concatenate([[90.0], (latitude[1:] + latitude[:-1]) / 2, [-90.0]])


def latitude_weights(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the share of each source row in each target row (target, source), by area; rows sum to 1."""
    return _shares(*_rows_of(source), *_rows_of(target))[0]


def longitude_weights(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the share of each source column in each target column (target, source), around the circle; rows
    sum to 1.
    """
    return _shares(*_columns_of(source), *_columns_of(target), turns=TURNS)[0]


def _rows_of(latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lower and upper edges of rows as sines, which their area is proportional to."""
    edges = np.sin(np.deg2rad(latitude_edges(latitude)))
    return edges[1:], edges[:-1]


def _columns_of(longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    before = np.concatenate([[longitude[-1] - 360.0], longitude[:-1]])
    after = np.concatenate([longitude[1:], [longitude[0] + 360.0]])
    return (before + longitude) / 2, (longitude + after) / 2


def _shares(
    low: np.ndarray, high: np.ndarray, bottom: np.ndarray, top: np.ndarray, turns: Sequence[float] = (0.0,)
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the share of each source cell in each target cell (target, source), and that share times the distance of
    its middle from the source cell's.

    Args:
        low, high: edges of the source cells.
        bottom, top: edges of the target cells.
        turns: distances at which the source is repeated.
    """
    overlap, moment = np.zeros((2, len(bottom), len(low)))
    for turn in turns:
        start, end = np.maximum(low + turn, bottom[:, None]), np.minimum(high + turn, top[:, None])
        part = np.clip(end - start, 0, None)
        overlap += part
        moment += part * ((start + end) / 2 - (low + high) / 2 - turn)
    slivers = overlap < 1e-12 * overlap.max()  # rounding leaves some of 1e-16 at shared edges
    overlap[slivers] = moment[slivers] = 0.0
    total = overlap.sum(1, keepdims=True)
    return overlap / total, moment / total


class _Axis:
    """Takes the means of fields over target cells along one axis.

    Source cells are flat, or, where the target's are smaller, rise linearly from one edge to the other: else a finer
    grid would have steps. Slopes leave the mean of a cell as it is, and are no steeper than its neighbors allow, so
    that there are no new extremes.

    Source of the slopes: van Leer (1977), https://doi.org/10.1016/0021-9991(77)90095-X.

    Args:
        source, target: lower and upper edges of the cells.
        is_circle: whether the axis is that of longitudes, in degrees.
    """

    def __init__(
        self, source: tuple[np.ndarray, np.ndarray], target: tuple[np.ndarray, np.ndarray], *, is_circle: bool
    ) -> None:
        shares, moments = _shares(*source, *target, turns=TURNS if is_circle else (0.0,))
        places = [_present(row) for row in shares]
        self.bands = [(at, row[at], rises[at]) for at, row, rises in zip(places, shares, moments, strict=True)]
        self.is_finer = len(target[0]) > len(source[0])
        self.low, self.high = source
        self.is_circle = is_circle

    def means(self, values: np.ndarray, *, flat: bool) -> np.ndarray:
        """Returns the means (target, other) of values (source, other)."""
        slopes = self._slopes(values) if self.is_finer and not flat else None
        out = np.empty((len(self.bands), values.shape[1]))
        for number, (where, shares, moments) in enumerate(self.bands):
            np.einsum("s,so->o", shares, values[where], out=out[number])
            if slopes is not None:
                out[number] += np.einsum("s,so->o", moments, slopes[where])
        return out

    def _slopes(self, values: np.ndarray) -> np.ndarray:
        """Returns how values rise within each source cell, for one unit of the edges."""
        centers = (self.low + self.high) / 2
        behind, ahead = values - np.roll(values, 1, axis=0), np.roll(values, -1, axis=0) - values
        distance = np.roll(centers, -1) - np.roll(centers, 1)
        if self.is_circle:
            distance = np.mod(distance, 360.0)
        else:
            behind[0] = ahead[-1] = 0.0  # beyond the poles
        steepest = np.minimum(np.abs(behind), np.abs(ahead)) * 2 / (self.high - self.low)[:, None]
        between = (behind + ahead) / np.where(distance == 0.0, 1.0, distance)[:, None]
        return np.where(behind * ahead > 0, np.clip(between, -steepest, steepest), 0.0)


class Regridder:
    """Takes fields from one grid to another; does nothing at all between equal grids."""

    def __init__(self, source: LatLonGrid, target: LatLonGrid) -> None:
        self.identity = source.same_as(target)
        self.shape = target.shape
        if not self.identity:
            self.rows = _Axis(_rows_of(source.latitude), _rows_of(target.latitude), is_circle=False)
            self.columns = _Axis(_columns_of(source.longitude), _columns_of(target.longitude), is_circle=True)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Returns fields (..., latitude, longitude) on the target grid, computed in float64, in the dtype that came.

        Of a cell that is partly unknown (not a number) the mean of the known part is taken where it is at least half.
        """
        if self.identity:
            return values
        unknown = np.isnan(values)
        if not unknown.any():
            return self._means(values)
        share = self._means((~unknown).astype(values.dtype), flat=True)
        means = self._means(np.where(unknown, 0, values), flat=True)
        return np.where(share >= LEAST_SHARE, means / np.maximum(share, LEAST_SHARE), np.nan).astype(values.dtype)

    def _means(self, values: np.ndarray, *, flat: bool = False) -> np.ndarray:
        out = np.empty((*values.shape[:-2], *self.shape), dtype=values.dtype)
        for index in np.ndindex(*values.shape[:-2]):  # one field at a time bounds the memory
            narrow = self.rows.means(values[index].astype(np.float64), flat=flat)
            out[index] = self.columns.means(np.ascontiguousarray(narrow.T), flat=flat).T
        return out


def _present(shares: np.ndarray) -> slice | np.ndarray:
    """Returns where the few sources stand that one target overlaps."""
    where = np.flatnonzero(shares)
    together = where[-1] - where[0] + 1 == len(where)  # not so across the meridian of Greenwich
    return slice(int(where[0]), int(where[-1]) + 1) if together else where
