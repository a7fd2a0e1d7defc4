"""What the vertical coordinate of a field is: pressure, height above the ground, or something that is not read.

Names alone do not tell: ``level`` may be hPa, Pa or the number of a model level. What a file says of it decides
(type of level, units, standard and long name), and only then which numbers are plausible.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from domains.climate.data.units import plain_unit
from domains.climate.data.variables import identify

_NAMES = (
    "level", "levels", "pressure_level", "plev", "pressure", "lev", "air_pressure", "isobaricInhPa", "isobaricInPa",
    "isobaric", "model_level", "modelLevel", "hybrid", "hybrid_level", "hybridPressure", "sigma", "height",
    "heightAboveGround", "height_above_ground", "depth", "depthBelowLandLayer",
)  # fmt: skip
_PRESSURE_UNITS = {"hpa": 1.0, "pa": 0.01, "kpa": 10.0, "bar": 1000.0}
_STANDARD_LEVELS = {
    1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 125, 150, 175, 200, 225, 250, 300, 350, 400, 450, 500, 550, 600, 650, 700,
    750, 775, 800, 825, 850, 875, 900, 925, 950, 975, 1000,
}  # fmt: skip
"""Pressure levels of ERA5, hPa."""
HIGHEST_MAST_M = 100
"""Numbers in names up to this one may be m above the ground: ``u100`` of ERA5 is the wind 100 m above it."""
_LEVEL_IN_NAME = re.compile(
    r"(?P<name>.+?)(_?(?P<level>\d+(\.\d+)?)(?P<unit>mb|maboveground|)|_(surface|meansealevel|entireatmosphere))"
)
_AT_SURFACE = (
    "surface", "meanSea", "entireAtmosphere", "atmosphere", "atmosphereSingleLayer", "nominalTop", "unknown",
    "entireAtmosphereConsideredAsASingleLayer", "depthBelowLandLayer", "depthBelowLand",
)  # fmt: skip


@dataclass(frozen=True)
class Vertical:
    """Describes where in the vertical a field is.

    Attributes:
        kind: ``pressure``, ``height`` (above the ground), ``none`` for one field at or near the surface, or ``other``.
        dim: dimension along which there are several; None for a single one.
        values: hPa or m; empty for ``none`` and ``other``.
        reason: for ``other``: why it is not read.
    """

    kind: str
    dim: str | None = None
    values: tuple[float, ...] = ()
    reason: str = ""


def vertical_of(array: xr.DataArray) -> Vertical:
    """Returns the vertical coordinate of a field."""
    type_of_level = str(array.attrs.get("GRIB_typeOfLevel", ""))
    coordinate = _coordinate(array)
    dim = str(coordinate.dims[0]) if coordinate is not None and coordinate.ndim else None
    values = () if coordinate is None else _values(coordinate)
    if type_of_level:
        return _of_grib(type_of_level, dim, values)
    if coordinate is None:
        height = re.fullmatch(r"(\d+) m", str(array.attrs.get("level_desc", "")).strip())  # as NOAA's PSL has it
        return Vertical("height", None, (float(height[1]),)) if height else split_name(str(array.name))[1]
    return _of_cf(str(coordinate.name), coordinate.attrs, dim, values)


def split_name(name: str) -> tuple[str, Vertical]:
    """Returns the name of a field without the level that stands in it, and that level: ``HGT_500mb`` and
    ``TMP_2maboveground`` of wgrib2, and channels (``z500``, ``temperature_850``).
    """
    if identify(name) is not None or (found := _LEVEL_IN_NAME.fullmatch(name)) is None:
        return name, Vertical("none")
    variable, level, unit = identify(found["name"]), found["level"], found["unit"]
    if variable is None or level is None:
        return found["name"], Vertical("none")
    if unit == "maboveground":
        return found["name"], Vertical("height", None, (float(level),))
    is_told = unit == "mb" or (float(level) in _STANDARD_LEVELS and float(level) > HIGHEST_MAST_M)
    return (
        (found["name"], Vertical("pressure", None, (float(level),)))
        if variable.on_levels and is_told
        else (name, Vertical("none"))
    )


def is_vertical(name: str) -> bool:
    """Says whether a coordinate's name is one of those that verticals have."""
    return name in _NAMES or re.fullmatch(r"(plev|isobaric|height|lev|depth)_?\d+[a-z]?", name) is not None


def _coordinate(array: xr.DataArray) -> xr.DataArray | None:
    """Returns the vertical dimension, or the scalar coordinate that stands for one; of several dimensions the longest,
    and rather levels than heights.
    """
    names = [str(name) for name in array.dims if _is_vertical_dim(str(name), array)]
    names.sort(key=lambda name: (-array.sizes[name], name.startswith(("height", "depth"))))
    if names:
        name = names[0]
        return (
            array.coords[name]
            if name in array.coords
            else xr.DataArray(np.arange(array.sizes[name]), dims=name, name=name)
        )
    scalar = [str(n) for n, c in array.coords.items() if c.ndim == 0 and is_vertical(str(n))]
    return array.coords[min(scalar, key=len)] if scalar else None


def _is_vertical_dim(name: str, array: xr.DataArray) -> bool:
    attrs = array.coords[name].attrs if name in array.coords else {}
    return is_vertical(name) or attrs.get("axis") == "Z" or attrs.get("positive") in ("up", "down")


def _values(coordinate: xr.DataArray) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in np.atleast_1d(coordinate.values))
    except (TypeError, ValueError):
        return ()


def _of_grib(type_of_level: str, dim: str | None, values: tuple[float, ...]) -> Vertical:
    if type_of_level in ("isobaricInhPa", "isobaricInPa"):
        factor = 1.0 if type_of_level == "isobaricInhPa" else 0.01
        return Vertical("pressure", dim, tuple(factor * value for value in values))
    if type_of_level == "heightAboveGround":
        return Vertical("height", dim, values)
    if type_of_level in _AT_SURFACE:
        return Vertical("none", dim)
    return Vertical("other", dim, values, f"level type {type_of_level}")


def _of_cf(name: str, attrs: dict[str, Any], dim: str | None, values: tuple[float, ...]) -> Vertical:
    unit = plain_unit(str(attrs.get("units", "")))
    text = f"{name} {attrs.get('standard_name', '')} {attrs.get('long_name', '')}".lower().replace("_", " ")
    if any(word in text for word in ("hybrid", "sigma", "model level", "modellevel", "eta level")):
        return Vertical("other", dim, values, "model levels")
    if unit in _PRESSURE_UNITS:
        return Vertical("pressure", dim, tuple(_PRESSURE_UNITS[unit] * value for value in values))
    if unit == "m" or (unit == "1" and name.lower().startswith("height")):
        below = "depth" in text or attrs.get("positive") == "down"
        return Vertical("other", dim, values, "depth") if below else Vertical("height", dim, values)
    if unit not in ("1", "level", "levels"):
        return Vertical("other", dim, values, f"levels in {attrs['units']!r}")
    return _plausible(text, dim, values)


def _plausible(text: str, dim: str | None, values: tuple[float, ...]) -> Vertical:
    """Judges levels without a unit by their numbers."""
    if not values:
        return Vertical("other", dim, (), "levels without values")
    low, high = min(values), max(values)
    if 1100 < high <= 110000 and low >= 1:
        return Vertical("pressure", dim, tuple(value / 100 for value in values))
    named = "pressure" in text or "plev" in text or "isobaric" in text
    if low > 0 and high <= 1100 and (named or high >= 200 or set(values) <= _STANDARD_LEVELS):
        return Vertical("pressure", dim, values)
    return Vertical("other", dim, values, f"levels {low:g} to {high:g} without a unit")
