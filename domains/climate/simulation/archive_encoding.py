"""Rounds, compresses and describes the archive.

Fields of weather are smooth, and the last bits of a float32 are noise. Each channel is rounded to a step
of about a fifth of the standard deviation of its weather, which adds a white error of 5 to 6% of that
deviation: coarse, because a file of a given size then holds more weather, and harmless, because such an error
does not grow within three days (measured in data/climate/README.md).

The rounded value is stored as a small integer, as its difference from the neighbor to the west and, where
that pays, from the one to the north. Every codec belongs to the zarr 2 format: the store opens with plain
xarray and the rounded values come back exactly, as float32.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sciml.core.errors import RunError

if TYPE_CHECKING:
    import xarray

TIME_CHUNK = 365


@dataclass(frozen=True)
class Rounding:
    """Says how one variable becomes integers.

    Attributes:
        dtype: of the integers.
        unit_step: what an integer's 1 stands for, in the variable's unit.
        offset: what 0 stands for.
        multiples: by level in hPa, the rounding step as a multiple of ``unit_step``; a level that is not
            listed takes that of the nearest. One scale has to serve all levels of a variable, though
            weather is livelier aloft.
        from_north: whether the difference from the northern neighbor is taken too.
    """

    dtype: str
    unit_step: float
    offset: float
    multiples: Mapping[int, int] | None = None
    from_north: bool = False


# Steps near 0.2 standard deviations of the deviation from the time and zonal mean, in a T21 simulation
# of 10 layers. Bytes where the range allows it; the difference from the north only pays for bytes.
ROUNDING = {
    "geopotential": Rounding("<i2", 40.0, 60000.0, {250: 4, 500: 3, 850: 2}),
    "temperature": Rounding("<i2", 0.125, 260.0, {250: 2, 500: 4, 850: 5}),
    "u_component_of_wind": Rounding("<i2", 0.4, 0.0, {250: 4, 500: 3, 850: 2}),
    "v_component_of_wind": Rounding("|i1", 0.75, 0.0, {250: 3, 500: 2, 850: 1}, from_north=True),
    "2m_temperature": Rounding("|i1", 0.85, 280.0, from_north=True),
    "mean_sea_level_pressure": Rounding("|i1", 110.0, 100000.0, from_north=True),
    "10m_u_component_of_wind": Rounding("|i1", 0.9, 0.0),
    "10m_v_component_of_wind": Rounding("|i1", 1.0, 0.0, from_north=True),
}

_LOWEST_LAYER = "wind of the lowest model layer, not at 10 m: the model has no surface layer"
ATTRIBUTES = {
    "time": {"standard_name": "time", "axis": "T"},
    "level": {"standard_name": "air_pressure", "units": "hPa", "positive": "down", "axis": "Z"},
    "latitude": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
    "geopotential": {"standard_name": "geopotential", "units": "m**2 s**-2"},
    "temperature": {"standard_name": "air_temperature", "units": "K"},
    "u_component_of_wind": {"standard_name": "eastward_wind", "units": "m s**-1"},
    "v_component_of_wind": {"standard_name": "northward_wind", "units": "m s**-1"},
    "2m_temperature": {
        "standard_name": "air_temperature",
        "units": "K",
        "comment": "extrapolated to the ground from the two lowest model layers, linearly in log pressure",
    },
    "mean_sea_level_pressure": {
        "standard_name": "air_pressure_at_mean_sea_level",
        "units": "Pa",
        "comment": "the surface pressure itself: the simulated planet is flat",
    },
    "10m_u_component_of_wind": {"standard_name": "eastward_wind", "units": "m s**-1", "comment": _LOWEST_LAYER},
    "10m_v_component_of_wind": {"standard_name": "northward_wind", "units": "m s**-1", "comment": _LOWEST_LAYER},
}


def steps(name: str, levels: np.ndarray | None) -> np.ndarray:
    """Returns rounding steps in the variable's unit: ``(level, 1, 1)``, or a scalar without levels."""
    rounding = ROUNDING[name]
    if levels is None or rounding.multiples is None:
        return np.asarray(rounding.unit_step)
    known = rounding.multiples
    nearest = [known[min(known, key=lambda listed: abs(listed - level))] for level in levels]
    return rounding.unit_step * np.asarray(nearest)[:, None, None]


def round_to_step(name: str, values: np.ndarray, levels: np.ndarray | None) -> np.ndarray:
    """Rounds a variable to what its integers can hold.

    Args:
        name: long name of the variable.
        values: ``(time, [level,] latitude, longitude)`` in its unit.
        levels: hPa, for a variable on levels.

    Returns:
        The rounded values in float32, exactly as they are read back.

    Raises:
        RunError: a value lies outside the range of the integers.
    """
    rounding, multiple = ROUNDING[name], steps(name, levels) / ROUNDING[name].unit_step
    integers = np.rint((values - rounding.offset) / (multiple * rounding.unit_step)) * multiple
    if np.abs(integers).max() > np.iinfo(rounding.dtype).max:
        raise RunError(f"{name} reaches {np.abs(values).max():g}, beyond what its {rounding.dtype} integers hold")
    decoded = _scaling(rounding).decode(np.rint(integers).astype(rounding.dtype))
    return decoded.reshape(values.shape)


def encoding(dataset: xarray.Dataset) -> dict[str, dict[str, Any]]:
    """Returns how xarray is to write an archive with ``zarr_format=2``."""
    times = {"units": "hours since 1900-01-01", "dtype": "int64", "chunks": (2**16,)}
    layout: dict[str, dict[str, Any]] = {"time": times}
    for name, field in dataset.items():
        rounding = ROUNDING[str(name)]
        layout[str(name)] = {
            "chunks": (TIME_CHUNK, *field.shape[1:]),
            "filters": _filters(rounding),
            "compressors": [_compressor(rounding, field.sizes["longitude"])],
            "_FillValue": None,
        }
    return layout


def variable_attributes(name: str) -> dict[str, str]:
    """Returns the CF attributes of a variable or coordinate."""
    long_name = name.replace("_", " ")
    return {"long_name": long_name} | ATTRIBUTES[name]


def _scaling(rounding: Rounding) -> Any:
    from numcodecs import FixedScaleOffset

    scale = 1 / rounding.unit_step
    return FixedScaleOffset(offset=rounding.offset, scale=scale, dtype="<f4", astype=rounding.dtype)


def _filters(rounding: Rounding) -> list[Any]:
    from numcodecs import CRC32, Delta

    # The checksum turns a damaged file into an error instead of into weather.
    return [_scaling(rounding), Delta(dtype=rounding.dtype), CRC32()]


def _compressor(rounding: Rounding, num_longitudes: int) -> Any:
    from numcodecs import LZMA

    # The coder's contexts are told how wide an integer is, so that its high byte follows from its low one.
    log_width = np.dtype(rounding.dtype).itemsize - 1
    coder = {"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 3, "lp": log_width, "pb": log_width}
    north = [{"id": lzma.FILTER_DELTA, "dist": num_longitudes}] if rounding.from_north else []
    return LZMA(format=lzma.FORMAT_RAW, filters=[*north, coder])
