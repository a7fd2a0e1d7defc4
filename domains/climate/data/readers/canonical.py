"""From a dataset as some center writes it to pieces in one vocabulary, order and unit."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from domains.climate.data.readers.field import FieldPiece, Orientation, show
from domains.climate.data.variables import Conversion, Role, Variable, find, identify
from sciml.core.errors import DataError

_DIMS = {
    "latitude": ("latitude", "lat", "y"),
    "longitude": ("longitude", "lon", "x"),
    "time": ("time", "valid_time", "forecast_reference_time"),
    "level": ("level", "pressure_level", "isobaricInhPa", "plev", "pressure", "lev"),
    "expver": ("expver",),
    "member": ("number", "member", "realization", "ensemble"),
    "step": ("step", "forecast_period", "prediction_timedelta", "lead_time"),
}
_MINUTES = {"day": 1440, "hour": 60, "h": 60, "minute": 1, "second": 1 / 60, "nanosecond": 1 / 60e9}
LONGITUDE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Reading:
    """Holds what was found in one dataset.

    Attributes:
        pieces: of all variables that are known.
        num_members: how many ensemble members there are to choose from.
    """

    pieces: list[FieldPiece]
    num_members: int


def canonical_pieces(dataset: xr.Dataset, file: str, member: int) -> Reading:
    """Returns all known variables of a dataset.

    Raises:
        DataError: no grid, times that cannot be understood, a unit that cannot be converted.
    """
    dataset = _with_our_dims(dataset)
    for dim in ("latitude", "longitude"):
        if dim not in dataset.dims:
            raise DataError(
                f"{file}: no {dim}; a regular latitude-longitude grid is needed, "
                f"found dimensions {', '.join(map(str, dataset.dims))}"
            )
    orientation = orient(np.asarray(dataset["latitude"].values), np.asarray(dataset["longitude"].values), file)
    num_members = dataset.sizes.get("member", 1)
    if "member" in dataset.dims:
        if member >= num_members:
            raise DataError(f"{file}: there is no ensemble member {member}; it has 0 to {num_members - 1}")
        dataset = dataset.isel(member=member)
    pieces: list[FieldPiece] = []
    for name, array in dataset.data_vars.items():
        variable = _variable_of(str(name), array)
        if variable is not None and {"latitude", "longitude"} <= set(array.dims):
            pieces.extend(_pieces_of(variable, array, dataset, file, orientation))
    return Reading(pieces, num_members)


def _with_our_dims(dataset: xr.Dataset) -> xr.Dataset:
    """Renames dimensions, and scalar coordinates that stand for one, to ours."""
    names: dict[Hashable, Hashable] = {}
    for ours, theirs in _DIMS.items():
        candidates = [n for n in theirs if n in dataset.dims] or [n for n in theirs if n in dataset.coords]
        if candidates and ours != candidates[0]:
            if ours in dataset.variables:
                dataset = dataset.drop_vars(ours)
            names[candidates[0]] = ours
        if ours == "time" and candidates[:1] == ["valid_time"]:
            # a valid time has its forecast step in it already
            dataset = dataset.drop_vars([n for n in _DIMS["step"] if n in dataset.coords and n not in dataset.dims])
    return dataset.rename(names)


def _variable_of(name: str, array: xr.DataArray) -> Variable | None:
    attributes = (array.attrs.get(key) for key in ("GRIB_shortName", "short_name", "standard_name"))
    variable = next((v for v in map(identify, [name, *(a for a in attributes if a)]) if v is not None), None)
    if (
        variable is not None
        and variable.name == "geopotential"
        and "level" not in array.dims
        and "level" not in array.coords
    ):
        return find("geopotential_at_surface")  # z without a level is the orography, in GRIB and in CDS
    return variable


def _pieces_of(
    variable: Variable, array: xr.DataArray, dataset: xr.Dataset, file: str, orientation: Orientation
) -> Iterator[FieldPiece]:
    conversion = _conversion(variable, array, file)
    levels = _levels(variable, array, file)
    strange = [d for d in array.dims if d not in (*_DIMS, "member") and array.sizes[d] > 1]
    if strange:
        raise DataError(
            f"{file}: {variable.name} has a dimension {strange[0]!r} of {array.sizes[strange[0]]} "
            "that is not understood; select one of them beforehand"
        )
    array = array.isel({d: 0 for d in array.dims if d not in _DIMS})
    if variable.role is Role.STATIC:
        array = array.isel({d: 0 for d in ("time", "step", "expver") if d in array.dims})
        yield FieldPiece(file, variable, array, np.empty(0, "datetime64[m]"), (), conversion, orientation)
        return
    times = _times(variable, dataset, file)
    for number, step in enumerate(_steps(variable, array, file)):
        part = array.isel(step=number) if "step" in array.dims else array
        yield FieldPiece(file, variable, part, times + step, levels, conversion, orientation)


def _conversion(variable: Variable, array: xr.DataArray, file: str) -> Conversion:
    unit = array.attrs.get("units")
    if unit is None:
        return Conversion()  # values are checked against the possible range when they are read
    conversion = variable.conversion(str(unit))
    if conversion is None:
        raise DataError(
            f"{file}: {variable.name} is in {str(unit)!r}, which is no unit of it; "
            f"accepted are {variable.accepted_units}"
        )
    return conversion


def _levels(variable: Variable, array: xr.DataArray, file: str) -> tuple[int, ...]:
    if not variable.on_levels:
        if "level" in array.dims and array.sizes["level"] > 1:
            raise DataError(f"{file}: {variable.name} is a surface variable but has {array.sizes['level']} levels")
        return ()
    if "level" not in array.coords:
        raise DataError(f"{file}: {variable.name} says nothing of its pressure level; add a coordinate 'level' in hPa")
    values = np.atleast_1d(array["level"].values).astype(np.float64)
    if str(array["level"].attrs.get("units", "")).strip() == "Pa":
        values = values / 100
    return tuple(round(float(v)) for v in values)


def _times(variable: Variable, dataset: xr.Dataset, file: str) -> np.ndarray:
    if "time" not in dataset.variables:
        raise DataError(f"{file}: {variable.name} says nothing of its time; add a coordinate 'time'")
    times = np.atleast_1d(dataset["time"].values)
    if not np.issubdtype(times.dtype, np.datetime64):
        calendar = dataset["time"].encoding.get("calendar") or dataset["time"].attrs.get("calendar")
        reason = f"are in the calendar {calendar!r}" if calendar else f"are plain numbers ({times[0]} ...)"
        raise DataError(
            f"{file}: the times {reason}; give them as CF times in the standard calendar, "
            "e.g. units='hours since 1970-01-01'"
        )
    minutes = times.astype("datetime64[m]")
    if np.isnat(minutes).any():
        raise DataError(f"{file}: time number {int(np.isnat(minutes).argmax())} is missing (NaT)")
    if (minutes != times).any():
        raise DataError(
            f"{file}: the time {times[(minutes != times).argmax()]} is not on a full minute; "
            f"did you mean {show(times[(minutes != times).argmax()])}?"
        )
    return minutes


def _steps(variable: Variable, array: xr.DataArray, file: str) -> np.ndarray:
    """Returns forecast steps, as GRIB has them for accumulated fields; zero for analyses."""
    if "step" not in array.coords:
        return np.zeros(1, "timedelta64[m]")
    steps = np.atleast_1d(array["step"].values)
    if not np.issubdtype(steps.dtype, np.timedelta64):
        unit = str(array["step"].attrs.get("units", ""))
        if unit.rstrip("s") not in _MINUTES:
            raise DataError(f"{file}: the forecast steps of {variable.name} are in {unit!r}; give them in hours")
        return np.round(steps * _MINUTES[unit.rstrip("s")]).astype("timedelta64[m]")
    return np.where(np.isnat(steps), np.timedelta64(0, "m"), steps).astype("timedelta64[m]")


def orient(latitude: np.ndarray, longitude: np.ndarray, file: str) -> Orientation:
    """Sorts a grid: latitude decreasing, longitude increasing within [0, 360), a repeated meridian dropped.

    Raises:
        DataError: coordinates that are no regular grid of the globe's directions.
    """
    if latitude.ndim != 1 or longitude.ndim != 1:
        raise DataError(f"{file}: latitude and longitude are not one-dimensional; a regular grid is needed")
    latitude, longitude = latitude.astype(np.float64), longitude.astype(np.float64)
    if not (np.isfinite(latitude).all() and np.isfinite(longitude).all() and (np.abs(latitude) <= 90.01).all()):
        raise DataError(
            f"{file}: latitudes must lie within -90 and 90 degrees, found "
            f"{np.nanmin(latitude):g} to {np.nanmax(latitude):g}"
        )
    rows = np.argsort(-latitude, kind="stable")
    # wrap, then read 359.99999 as 0
    wrapped = np.mod(longitude, 360.0)
    wrapped = np.where(wrapped > 360.0 - LONGITUDE_TOLERANCE, 0.0, wrapped)
    columns = np.argsort(wrapped, kind="stable")
    distinct = np.concatenate([[True], np.diff(wrapped[columns]) > LONGITUDE_TOLERANCE])
    columns = columns[distinct]
    if (np.diff(latitude[rows]) > -1e-6).any():
        raise DataError(
            f"{file}: the latitude {latitude[rows][:-1][np.diff(latitude[rows]) > -1e-6][0]:g} is there twice"
        )
    return Orientation(np.clip(latitude[rows], -90, 90), wrapped[columns], rows, columns)
