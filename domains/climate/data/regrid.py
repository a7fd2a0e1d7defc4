"""Conservative regridding between regular latitude-longitude grids.

Each target value is the mean of the source over the target's cell, weighted by the exact area of overlap, so
that the integral over the globe stays what it was. Overlaps of latitude-longitude boxes are a product of one
of latitudes and one of longitudes, so two small matrices do it.

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
    upper, lower = (np.sin(np.deg2rad(latitude_edges(source)[i])) for i in (slice(None, -1), slice(1, None)))
    top, bottom = (np.sin(np.deg2rad(latitude_edges(target)[i])) for i in (slice(None, -1), slice(1, None)))
    overlap = np.minimum(upper, top[:, None]) - np.maximum(lower, bottom[:, None])
    return _normalized(np.clip(overlap, 0, None))


def longitude_weights(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the share of each source column in each target column (target, source), around the circle; rows
    sum to 1.
    """
    west, east = _longitude_edges(source)
    left, right = _longitude_edges(target)
    overlap = np.zeros((len(target), len(source)))
    for turn in (-360.0, 0.0, 360.0):
        overlap += np.clip(np.minimum(east + turn, right[:, None]) - np.maximum(west + turn, left[:, None]), 0, None)
    return _normalized(overlap)


def _longitude_edges(longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    before = np.concatenate([[longitude[-1] - 360.0], longitude[:-1]])
    after = np.concatenate([longitude[1:], [longitude[0] + 360.0]])
    return (before + longitude) / 2, (longitude + after) / 2


def _normalized(overlap: np.ndarray) -> np.ndarray:
    # rounding leaves slivers of 1e-16 at shared edges
    overlap[overlap < 1e-12 * overlap.max()] = 0.0
    return overlap / overlap.sum(1, keepdims=True)


class Regridder:
    """Takes fields from one grid to another; does nothing at all between equal grids."""

    def __init__(self, source: LatLonGrid, target: LatLonGrid) -> None:
        self.identity = source.same_as(target)
        self.shape = target.shape
        if not self.identity:
            self.rows = _bands(latitude_weights(source.latitude, target.latitude))
            self.columns = _bands(longitude_weights(source.longitude, target.longitude))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Returns fields (..., latitude, longitude) on the target grid, computed in float64, in the dtype that came.

        Of a cell that is partly unknown (not a number) the mean of the known part is taken where it is at least half.
        """
        if self.identity:
            return values
        unknown = np.isnan(values)
        if not unknown.any():
            return self._means(values)
        share = self._means((~unknown).astype(values.dtype))
        means = self._means(np.where(unknown, 0, values))
        return np.where(share >= LEAST_SHARE, means / np.maximum(share, LEAST_SHARE), np.nan).astype(values.dtype)

    def _means(self, values: np.ndarray) -> np.ndarray:
        out = np.empty((*values.shape[:-2], *self.shape), dtype=values.dtype)
        narrow = np.empty((self.shape[0], values.shape[-1]))
        for index in np.ndindex(*values.shape[:-2]):  # one field at a time bounds the memory
            field, target = values[index].astype(np.float64), out[index]
            for row, (where, weights) in enumerate(self.rows):
                np.einsum("r,rx->x", weights, field[where], out=narrow[row])
            for column, (where, weights) in enumerate(self.columns):
                target[:, column] = np.einsum("yc,c->y", narrow[:, where], weights)
        return out


def _bands(weights: np.ndarray) -> list[tuple[slice | np.ndarray, np.ndarray]]:
    """Returns for each target the few sources that it overlaps, and their weights."""
    bands: list[tuple[slice | np.ndarray, np.ndarray]] = []
    for row in weights:
        where = np.flatnonzero(row)
        together = where[-1] - where[0] + 1 == len(where)  # not so across the meridian of Greenwich
        bands.append((slice(int(where[0]), int(where[-1]) + 1) if together else where, row[where]))
    return bands
