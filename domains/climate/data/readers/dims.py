"""Finds what the dimensions of a dataset are, whatever they are called: by the attributes of the CF conventions first,
then by their names. Latitudes, longitudes and times may also stand in an auxiliary coordinate along a dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
import xarray as xr

from domains.climate.data.readers.times import is_time
from sciml.core.errors import DataError

DIMS = ("latitude", "longitude", "time", "expver", "member", "step")
_NAMES = {
    "latitude": ("latitude", "lat", "nav_lat"),
    "longitude": ("longitude", "lon", "nav_lon"),
    "time": ("time", "valid_time", "forecast_reference_time", "init_time", "initial_time", "reference_time"),
    "expver": ("expver",),
    "member": ("number", "member", "realization", "ensemble", "ensemble_member", "ens", "sample"),
    "step": ("step", "forecast_period", "prediction_timedelta", "lead_time", "lead"),
}
_STANDARD_NAMES = {
    "time": ("time", "forecast_reference_time"),
    "member": ("realization",),
    "step": ("forecast_period",),
}
_DIRECTIONS = {"latitude": ("n", "north", "y"), "longitude": ("e", "east", "x")}
"""How units of degrees end, in full and in short, and the letter of the axis."""


def with_our_dims(dataset: xr.Dataset, file: str) -> xr.Dataset:
    """Renames dimensions, and scalar coordinates that stand for one, to :data:`DIMS`.

    Raises:
        DataError: latitudes or longitudes in a unit that is no angle.
    """
    coordinates = {ours: _coordinate_of(ours, dataset) for ours in ("latitude", "longitude")}
    dims = [dataset[name].dims for name in coordinates.values() if name is not None]
    if len(set(dims)) == len(dims):  # else they are the places of stations or of a cloud of cells
        for ours, name in coordinates.items():
            dataset = dataset if name is None else _with_degrees(dataset, ours, name, file)
    dataset = _with_times_along_their_dimension(dataset)
    names: dict[Hashable, Hashable] = {}
    for ours in DIMS[2:]:
        candidates = _called(ours, dataset)
        if candidates and ours != candidates[0]:
            if ours in dataset.variables:
                dataset = dataset.drop_vars(ours)
            names[candidates[0]] = ours
        if ours == "time" and str(candidates[:1]) == "['valid_time']":
            # a valid time has its forecast step in it already
            dataset = dataset.drop_vars([n for n in _NAMES["step"] if n in dataset.coords and n not in dataset.dims])
    return dataset.rename(names)


def check_grid(dataset: xr.Dataset, file: str) -> None:
    """Refuses a dataset, of our dimensions, that is on no regular grid of latitudes and longitudes.

    Raises:
        DataError: naming what is missing.
    """
    for ours in DIMS[:2]:
        if ours in dataset.coords and ours in dataset.dims:
            continue
        bare = [dim for dim in dataset.dims if str(dim).casefold() in _NAMES[ours] and dim not in dataset.coords]
        if bare:
            raise DataError(
                f"{file}: the dimension {bare[0]} has no coordinate; add its {ours}s in degrees, as a variable "
                f"{bare[0]}({bare[0]})"
            )
        raise DataError(
            f"{file}: no {ours} along a dimension; a regular latitude-longitude grid is needed, "
            f"found dimensions {', '.join(map(str, dataset.dims))} (regrid it beforehand)"
        )


def _coordinate_of(ours: str, dataset: xr.Dataset) -> Hashable | None:
    """Returns the name of the coordinate of latitudes or longitudes along one dimension; None where there is none."""
    short, full, axis = _DIRECTIONS[ours]
    along = [name for name, variable in dataset.variables.items() if variable.ndim == 1]
    along.sort(key=lambda name: (name != ours, name not in dataset.dims))

    def unit(name: Hashable) -> str:
        return _said("units", dataset[name]).casefold().replace("_", "").replace(" ", "")

    tests: tuple[Callable[[Hashable], bool], ...] = (
        lambda name: _said("standard_name", dataset[name]) == ours,
        lambda name: unit(name) in {f"degree{s}{end}" for s in ("", "s") for end in (short, full)},
        lambda name: str(name).casefold() in _NAMES[ours],
        lambda name: _said("axis", dataset[name]) == axis.upper() and unit(name).startswith("deg"),
        lambda name: str(name) == axis and unit(name).startswith("deg"),
    )
    return next((name for test in tests for name in along if test(name)), None)


def _with_degrees(dataset: xr.Dataset, ours: str, name: Hashable, file: str) -> xr.Dataset:
    """Makes a coordinate that of its dimension, under our name and in degrees."""
    dim = dataset[name].dims[0]
    if ours in dataset.dims and dim != ours:
        return dataset
    degrees = _in_degrees(dataset[name], ours, file)
    dataset = dataset.drop_vars([known for known in {ours, name, dim} if known in dataset.variables])
    return dataset.rename({dim: ours} if dim != ours else {}).assign_coords({ours: (ours, degrees)})


def _with_times_along_their_dimension(dataset: xr.Dataset) -> xr.Dataset:
    """Gives a dimension without a coordinate of its own the times along it, as ``time(record)``."""
    if any(str(dim).casefold() in _NAMES["time"] for dim in dataset.dims):
        return dataset
    for known in _NAMES["time"]:
        for name, variable in dataset.variables.items():
            if str(name).casefold() != known or variable.ndim != 1 or not is_time(variable.values):
                continue
            (dim,) = variable.dims
            if dim not in dataset.variables:
                return dataset.set_coords(name).swap_dims({dim: name})
    return dataset


def _in_degrees(coordinate: xr.DataArray, ours: str, file: str) -> np.ndarray:
    unit = _said("units", coordinate)
    if unit.casefold() in ("radian", "radians", "rad"):
        return np.rad2deg(coordinate.values.astype(np.float64))
    if unit and unit != "1" and "deg" not in unit.casefold() and "°" not in unit:
        raise DataError(f"{file}: the {ours}s are in {unit!r}; give them in degrees")
    return np.asarray(coordinate.values)


def _called(ours: str, dataset: xr.Dataset) -> list[Hashable]:
    """Returns the dimensions that are one of ours, else the scalar coordinates, the likeliest first."""
    known = _NAMES[ours]
    dims = [dim for name in known for dim in dataset.dims if str(dim).casefold() == name]
    if not dims:
        said = [dim for dim in dataset.dims if dim in dataset.coords and _is_said(ours, dataset[dim])]
        dims = [dim for dim in said if str(dim) not in DIMS]
    return dims or [name for wanted in known for name in dataset.coords if str(name).casefold() == wanted]


def _is_said(ours: str, coordinate: xr.DataArray) -> bool:
    """Says whether attributes make a coordinate one of our dimensions."""
    if _said("standard_name", coordinate) in _STANDARD_NAMES.get(ours, ()):
        return True
    return ours == "time" and _said("axis", coordinate) == "T" and is_time(coordinate.values)


def _said(attribute: str, coordinate: xr.DataArray) -> str:
    """Returns an attribute as text; nothing where there is none."""
    return str(coordinate.attrs.get(attribute, "")).strip()
