"""Map projections, and fields drawn through them pixel by pixel.

Every pixel asks which point of the Earth it shows and interpolates the field there. So a map has no seam
at the date line, no hole at the poles and no ragged limb, whatever the grid, and needs no map library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

from domains.climate.data.schema import ClimateSchema

Points = Float[np.ndarray, "..."]

# Šavrič, Patterson and Jenny (2018), The Equal Earth map projection, https://doi.org/10.1080/13658816.2018.1504949
EQUAL_EARTH = (1.340264, -0.081106, 0.000893, 0.003796)


class Projection(Protocol):
    """Maps degrees to a plane in units of the Earth's radius, and back."""

    def forward(self, latitude: Points, longitude: Points) -> tuple[Points, Points]:
        """Returns plane coordinates; NaN where a point is out of sight."""
        ...

    def inverse(self, x: Points, y: Points) -> tuple[Points, Points]:
        """Returns degrees of a plane point; those outside the outline get the nearest edge's, to be clipped away."""
        ...

    def outline(self) -> Float[np.ndarray, "point 2"]:
        """Returns the closed edge of the map."""
        ...


@dataclass(frozen=True)
class Orthographic:
    """Shows the globe from afar."""

    latitude: float = 35.0
    longitude: float = 0.0

    def forward(self, latitude: Points, longitude: Points) -> tuple[Points, Points]:
        phi, lam = np.deg2rad(latitude), np.deg2rad(np.asarray(longitude) - self.longitude)
        phi0 = np.deg2rad(self.latitude)
        x = np.cos(phi) * np.sin(lam)
        y = np.cos(phi0) * np.sin(phi) - np.sin(phi0) * np.cos(phi) * np.cos(lam)
        depth = np.sin(phi0) * np.sin(phi) + np.cos(phi0) * np.cos(phi) * np.cos(lam)
        hidden = depth < 0
        return np.where(hidden, np.nan, x), np.where(hidden, np.nan, y)

    def inverse(self, x: Points, y: Points) -> tuple[Points, Points]:
        radius = np.maximum(np.hypot(x, y), 1.0)
        x, y = x / radius, y / radius
        depth = np.sqrt(np.maximum(0.0, 1 - x**2 - y**2))
        phi0 = np.deg2rad(self.latitude)
        phi = np.arcsin(np.clip(depth * np.sin(phi0) + y * np.cos(phi0), -1, 1))
        lam = np.arctan2(x, depth * np.cos(phi0) - y * np.sin(phi0))
        return np.rad2deg(phi), np.rad2deg(lam) + self.longitude

    def outline(self) -> Float[np.ndarray, "point 2"]:
        angle = np.linspace(0, 2 * np.pi, 361)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)


@dataclass(frozen=True)
class EqualEarth:
    """Shows the whole Earth with true areas, so that an error looks as large as it counts in an area-weighted score."""

    longitude: float = 0.0

    def forward(self, latitude: Points, longitude: Points) -> tuple[Points, Points]:
        theta = np.arcsin(np.sqrt(3) / 2 * np.sin(np.deg2rad(latitude)))
        offset = (np.asarray(longitude) - self.longitude + 180) % 360 - 180
        return np.deg2rad(offset) * _parallel_scale(theta), _height(theta)

    def inverse(self, x: Points, y: Points) -> tuple[Points, Points]:
        table = np.linspace(-np.pi / 3, np.pi / 3, 4001)
        theta = np.interp(y, _height(table), table)
        offset = np.clip(np.rad2deg(x / _parallel_scale(theta)), -180, 180)
        return np.rad2deg(np.arcsin(2 / np.sqrt(3) * np.sin(theta))), offset + self.longitude

    def outline(self) -> Float[np.ndarray, "point 2"]:
        theta = np.linspace(-np.pi / 3, np.pi / 3, 181)
        right = np.stack([np.pi * _parallel_scale(theta), _height(theta)], axis=1)
        return np.concatenate([right, (right * [-1, 1])[::-1], right[:1]])


@dataclass(frozen=True)
class PlateCarree:
    """Shows latitude against longitude, true to scale in the middle, for a grid that covers a part of the Earth
    only.
    """

    south: float
    north: float
    west: float
    east: float

    def forward(self, latitude: Points, longitude: Points) -> tuple[Points, Points]:
        return np.deg2rad(longitude) * self._scale, np.deg2rad(latitude)

    def inverse(self, x: Points, y: Points) -> tuple[Points, Points]:
        return (
            np.clip(np.rad2deg(y), self.south, self.north),
            np.clip(np.rad2deg(x / self._scale), self.west, self.east),
        )

    def outline(self) -> Float[np.ndarray, "point 2"]:
        (west, east), (south, north) = self.forward(
            np.array([self.south, self.north]), np.array([self.west, self.east])
        )
        return np.array([[west, south], [east, south], [east, north], [west, north], [west, south]])

    @property
    def _scale(self) -> float:
        return float(np.cos(np.deg2rad((self.south + self.north) / 2)))


def _parallel_scale(theta: Points) -> Points:
    """Returns plane distance per radian of longitude on the parallel of parametric latitude ``theta``."""
    a1, a2, a3, a4 = EQUAL_EARTH
    slope = a1 + 3 * a2 * theta**2 + 7 * a3 * theta**6 + 9 * a4 * theta**8
    return 2 * np.sqrt(3) * np.cos(theta) / (3 * slope)


def _height(theta: Points) -> Points:
    a1, a2, a3, a4 = EQUAL_EARTH
    return theta * (a1 + a2 * theta**2 + a3 * theta**6 + a4 * theta**8)


class Canvas:
    """Draws fields of one grid on the pixels of a map, by sixteen weighted neighbors a pixel.

    Catmull-Rom splines in both directions pass through every grid value. Rows beyond a pole are those of the
    far side of the Earth, so that the pole is a place like any other.

    Attributes:
        x, y: plane coordinates of the pixel columns and rows (rows from south to north).
        extent: of the image, as matplotlib has it.
    """

    def __init__(self, schema: ClimateSchema, projection: Projection, height: int = 320) -> None:
        self.projection = projection
        edge = projection.outline()
        (left, bottom), (right, top) = edge.min(axis=0), edge.max(axis=0)
        width = max(2, round(height * (right - left) / (top - bottom)))
        self.x, self.y = np.linspace(left, right, width), np.linspace(bottom, top, height)
        margin_x, margin_y = (self.x[1] - self.x[0]) / 2, (self.y[1] - self.y[0]) / 2
        self.extent = (left - margin_x, right + margin_x, bottom - margin_y, top + margin_y)
        latitude, longitude = projection.inverse(*np.meshgrid(self.x, self.y))
        self._index, self._weight = _stencil(schema, latitude, longitude)

    @property
    def aspect(self) -> float:
        """Returns the map's width over its height."""
        left, right, bottom, top = self.extent
        return float((right - left) / (top - bottom))

    def image(self, field: Float[np.ndarray, "latitude longitude"]) -> Float[np.ndarray, "row column"]:
        """Returns the field seen on the map; never beyond the range of its own values."""
        values = np.asarray(field, dtype=np.float64)
        drawn = (values.reshape(-1)[self._index] * self._weight).sum(axis=0)
        return np.clip(drawn, np.nanmin(values), np.nanmax(values))


def covers_globe(schema: ClimateSchema) -> bool:
    """Returns whether the grid goes around the Earth and from pole to pole, give or take a row."""
    latitude, longitude = np.asarray(schema.latitude), np.asarray(schema.longitude)
    if len(latitude) < 2 or len(longitude) < 2:
        return False
    around = longitude[-1] - longitude[0] + 1.5 * (longitude[1] - longitude[0]) > 360
    row = abs(latitude[0] - latitude[1])
    return bool(around and max(latitude) + 1.5 * row > 90 and min(latitude) - 1.5 * row < -90)


def world_map(schema: ClimateSchema) -> Projection:
    """Returns Equal Earth for a global grid, latitude against longitude for a region."""
    if covers_globe(schema):
        return EqualEarth()
    return PlateCarree(min(schema.latitude), max(schema.latitude), schema.longitude[0], schema.longitude[-1])


def _stencil(schema: ClimateSchema, latitude: Points, longitude: Points) -> tuple[np.ndarray, np.ndarray]:
    """Returns flat indices and weights (16, row, column) of the grid points around each place."""
    grid_lat, grid_lon = np.asarray(schema.latitude), np.asarray(schema.longitude)
    rows, columns = len(grid_lat), len(grid_lon)
    if covers_globe(schema):
        column = (longitude - grid_lon[0]) % 360 / (360 / columns)
        at_north, at_south = _on_poles(schema)
        # With a row beyond each pole, places between the last row and the pole lie inside the grid, too.
        beyond_north, beyond_south = 180 - grid_lat[int(at_north)], -180 - grid_lat[-1 - int(at_south)]
        extended = np.concatenate([[beyond_north], grid_lat, [beyond_south]])
        row = np.interp(-latitude, -extended, np.arange(-1, rows + 1))
    else:
        column = np.interp(longitude, grid_lon, np.arange(columns))
        row = np.interp(-latitude, -grid_lat, np.arange(rows))
    index, weight = [], []
    row_base, column_base = np.floor(row).astype(int), np.floor(column).astype(int)
    for i, row_weight in enumerate(_catmull_rom(row - row_base)):
        for j, column_weight in enumerate(_catmull_rom(column - column_base)):
            index.append(_flat_index(schema, row_base + i - 1, column_base + j - 1))
            weight.append(row_weight * column_weight)
    return np.stack(index), np.stack(weight)


def _flat_index(schema: ClimateSchema, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Returns the position of a grid point whose row may lie beyond a pole, and its column beyond the seam."""
    rows, columns = schema.grid_shape
    if not covers_globe(schema):
        return np.clip(row, 0, rows - 1) * columns + np.clip(column, 0, columns - 1)
    at_north, at_south = _on_poles(schema)
    north = -row if at_north else -1 - row  # a row on the pole itself is not repeated
    south = 2 * (rows - 1) - row if at_south else 2 * rows - 1 - row
    beyond = (row < 0) | (row >= rows)
    row = np.where(row < 0, north, np.where(row >= rows, south, row))
    return np.clip(row, 0, rows - 1) * columns + (column + np.where(beyond, columns // 2, 0)) % columns


def _on_poles(schema: ClimateSchema) -> tuple[bool, bool]:
    """Returns whether the first row lies on the north pole and the last one on the south pole."""
    return abs(schema.latitude[0] - 90) < 1e-6, abs(schema.latitude[-1] + 90) < 1e-6


def _catmull_rom(t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns weights of the values at -1, 0, 1, 2 for a place t in [0, 1]."""
    return (
        0.5 * t * (-1 + t * (2 - t)),
        0.5 * (2 + t * t * (3 * t - 5)),
        0.5 * t * (1 + t * (4 - 3 * t)),
        0.5 * t * t * (t - 1),
    )
