"""From a dataset as some center writes it to pieces in one vocabulary, order and unit."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from domains.climate.data.calendar import WORLD, Calendar
from domains.climate.data.readers.dims import DIMS, check_grid, with_our_dims
from domains.climate.data.readers.field import FieldPiece, Orientation, as_slice
from domains.climate.data.readers.periods import NOT_STATED, is_unstated, stated_spans
from domains.climate.data.readers.times import steps_of, times_of
from domains.climate.data.readers.vertical import Vertical, split_name, vertical_of
from domains.climate.data.regrid import in_a_row
from domains.climate.data.variable import Conversion, Role, Variable
from domains.climate.data.variables import identify, of_standard_name
from domains.climate.data.vocabulary import HEIGHTS
from sciml.core.errors import DataError

LONGITUDE_TOLERANCE = 1e-3
LEVEL_TOLERANCE = 0.01
"""hPa by which a level may lie beside a whole number."""
GROUND_TOLERANCE = 1e-3
"""Share of the highest ground by which packing may change it from time to time."""
HIGHEST_LOWLAND = 8000.0
"""m2/s2 of geopotential above which the lowest ground of the globe cannot be."""
UNKNOWN = "unknown here"


@dataclass(frozen=True)
class Reading:
    """Holds what was found in one dataset.

    Attributes:
        pieces: of all variables that are known and wanted.
        num_members: how many ensemble members there are to choose from.
        calendar: that the times are counted in.
        left_out: why other fields on the grid were not read, by name.
    """

    pieces: list[FieldPiece]
    num_members: int = 1
    calendar: Calendar = WORLD
    left_out: dict[str, str] = field(default_factory=dict)


def canonical_pieces(dataset: xr.Dataset, file: str, member: int, wanted: Collection[str] | None = None) -> Reading:
    """Returns the variables of a dataset that are known and wanted.

    Args:
        wanted: long names; None for all. Only what is wanted is checked.

    Raises:
        DataError: no grid, times that cannot be understood, a unit that cannot be converted.
    """
    dataset = with_our_dims(dataset, file)
    chosen, left_out = _choose(dataset, wanted)
    if not chosen:
        return Reading([], left_out=left_out)
    check_grid(dataset, file)
    orientation = orient(np.asarray(dataset["latitude"].values), np.asarray(dataset["longitude"].values), file)
    num_members = dataset.sizes.get("member", 1)
    if "member" in dataset.dims:
        if member >= num_members:
            raise DataError(f"{file}: there is no ensemble member {member}; it has 0 to {num_members - 1}")
        dataset = dataset.isel(member=member)
    pieces: list[FieldPiece] = []
    for name, (variable, vertical) in chosen.items():
        pieces += _pieces_of(variable, vertical, dataset[name], dataset, file, orientation)
    calendar = next((piece.calendar for piece in pieces if len(piece.times)), WORLD)
    return Reading(pieces, num_members, calendar, left_out)


def _choose(
    dataset: xr.Dataset, wanted: Collection[str] | None
) -> tuple[dict[str, tuple[Variable, Vertical]], dict[str, str]]:
    """Returns the fields that are known and wanted, and why the others are not read."""
    chosen: dict[str, tuple[Variable, Vertical]] = {}
    left_out: dict[str, str] = {}
    for name, array in dataset.data_vars.items():
        if not {"latitude", "longitude"} <= set(array.dims) and "latitude" in dataset.dims:
            continue  # bounds of cells, attributes of the grid
        vertical = vertical_of(array)
        variable = _variable_of(str(name), array, vertical)
        if isinstance(variable, Variable) and is_unstated(variable, array, dataset):
            variable = NOT_STATED
        if isinstance(variable, Variable) and variable.on_levels:
            fractions = [value for value in vertical.values if not _is_whole(value)]
            if fractions:
                left_out[str(name)] = f"not read at {', '.join(f'{value:g}' for value in fractions)} hPa"
            if len(fractions) == len(vertical.values):
                continue
        if isinstance(variable, str):
            left_out[str(name)] = variable
        elif wanted is None or variable.name in wanted:
            chosen[str(name)] = (variable, vertical)
    return chosen, left_out


def _variable_of(name: str, array: xr.DataArray, vertical: Vertical) -> Variable | str:
    """Returns the variable that a field is, or why it is not read."""
    variable = next((found for found in map(identify, _names(array, name)) if found is not None), None)
    standard_name = str(array.attrs.get("standard_name", ""))
    if variable is None:
        height = vertical.values[0] if vertical.kind == "height" and len(vertical.values) == 1 else None
        variable = of_standard_name(standard_name, vertical.kind == "pressure", height) or identify(standard_name)
    if variable is None:
        return UNKNOWN
    if variable.name == "geopotential" and vertical.kind == "none" and _is_ground(array, variable):
        return identify("geopotential_at_surface") or UNKNOWN  # z without a level is the orography, in GRIB and in CDS
    several = vertical.dim is not None and array.sizes[vertical.dim] > 1
    if vertical.kind == "other" and (variable.on_levels or several or "GRIB_typeOfLevel" in array.attrs):
        return vertical.reason  # a single depth or height of a surface field says nothing
    if variable.on_levels and vertical.kind != "pressure":
        height = vertical.values[0] if len(vertical.values) == 1 else None
        at_height = of_standard_name(variable.standard_name, False, height)
        if at_height is not None:
            return at_height
        return "on heights above the ground" if vertical.kind == "height" else "says nothing of its pressure level"
    return variable


def _names(array: xr.DataArray, name: str) -> list[str]:
    """Returns the names of a field: that in the file, its beginning in ``tmp-pres-an-ll125`` and ``HGT_500mb``, and
    those of GRIB.
    """
    keys = ("GRIB_shortName", "short_name", "abbreviation")
    return [
        name,
        *name.split("-")[:1],
        split_name(name)[0],
        *(str(array.attrs[key]) for key in keys if key in array.attrs),
    ]


def _pieces_of(
    variable: Variable,
    vertical: Vertical,
    array: xr.DataArray,
    dataset: xr.Dataset,
    file: str,
    orientation: Orientation,
) -> Iterator[FieldPiece]:
    conversion = _conversion(variable, array, file)
    if "level" in array.dims and vertical.dim != "level" and array.sizes["level"] > 1:
        raise DataError(
            f"{file}: {variable.name} has the vertical dimensions {vertical.dim!r} and 'level'; select one of them"
        )
    if vertical.dim not in (None, "level") and vertical.dim in array.dims:
        array = array.isel(level=0) if "level" in array.dims else array  # of one entry, beside the levels
        array = array.drop_vars("level", errors="ignore").rename({vertical.dim: "level"})
    whole = [number for number, value in enumerate(vertical.values) if _is_whole(value)]
    if variable.on_levels and "level" in array.dims and len(whole) < len(vertical.values):
        array = array.isel(level=as_slice(np.array(whole)))
    levels = _levels(variable, vertical, array, file)
    dims = (*DIMS, "level")
    strange = [d for d in array.dims if d not in dims and array.sizes[d] > 1]
    if strange:
        raise DataError(
            f"{file}: {variable.name} has a dimension {strange[0]!r} of {array.sizes[strange[0]]} "
            "that is not understood; select one of them beforehand"
        )
    array = array.isel({d: 0 for d in array.dims if d not in dims})
    if variable.role is Role.STATIC:
        array = array.isel({d: 0 for d in ("time", "step", "expver") if d in array.dims})
        yield FieldPiece(file, variable, array, np.empty(0, "datetime64[m]"), (), conversion, orientation)
        return
    times, calendar = times_of(variable.name, dataset, file)
    steps = steps_of(array, variable.name, file)
    spans = stated_spans(array, dataset, times, steps, calendar)
    for number, (step, span) in enumerate(zip(steps, spans, strict=True)):
        part = array.isel(step=number) if "step" in array.dims else array
        begins, ends = span or (None, None)
        yield FieldPiece(
            file, variable, part, times + step, levels, conversion, orientation, calendar, begins=begins, ends=ends
        )


def _is_ground(array: xr.DataArray, variable: Variable) -> bool:
    """Says whether a geopotential without a level is that of the ground: GRIB says so; else it stays the same, and is
    as low as the sea somewhere on the globe.
    """
    if "GRIB_typeOfLevel" in array.attrs:
        return True
    still = {dim: 0 for dim in array.dims if dim not in DIMS[:2]}
    moves = "time" in array.dims and array.sizes["time"] > 1
    try:
        first = np.asarray(array.isel(still).values, dtype=np.float64)
        last = np.asarray(array.isel(still | {"time": -1}).values, dtype=np.float64) if moves else first
    except Exception:  # whatever a broken file makes the libraries raise: reading the field says what it is
        return True
    if not (np.isfinite(first).any() and np.isfinite(last).any()):
        return True
    if moves:
        return bool(np.nanmax(np.abs(last - first)) <= GROUND_TOLERANCE * max(np.nanmax(np.abs(first)), 1.0))
    how = variable.conversion(str(array.attrs.get("units", variable.unit))) or Conversion()
    degrees = array.coords["latitude"].values if "latitude" in array.coords else np.zeros(1)
    is_global = np.ptp(degrees) > 150.0 and array.sizes.get("longitude", 0) > 1
    return not is_global or bool(np.nanmin(first) * how.scale + how.offset < HIGHEST_LOWLAND)


def _conversion(variable: Variable, array: xr.DataArray, file: str) -> Conversion:
    unit = array.attrs.get("units")
    said = {found.casefold() for found in (*_names(array, str(array.name)), str(array.attrs.get("standard_name", "")))}
    if unit is None and said & HEIGHTS and variable.conversion("m") is not None:
        unit = "m"
    if unit is None:
        return Conversion()  # values are checked against the possible range when they are read
    conversion = variable.conversion(str(unit))
    if conversion is None:
        raise DataError(
            f"{file}: {variable.name} is in {str(unit)!r}, which is no unit of it; "
            f"accepted are {variable.accepted_units}"
        )
    return conversion


def _levels(variable: Variable, vertical: Vertical, array: xr.DataArray, file: str) -> tuple[int, ...]:
    if not variable.on_levels:
        if "level" in array.dims and array.sizes["level"] > 1:
            raise DataError(f"{file}: {variable.name} is a surface variable but has {array.sizes['level']} levels")
        return ()
    levels = tuple(round(value) for value in vertical.values if _is_whole(value))
    if len(set(levels)) < len(levels):
        twice = next(level for level in levels if levels.count(level) > 1)
        raise DataError(
            f"{file}: {variable.name} has several levels at about {twice} hPa; select one of them beforehand"
        )
    return levels


def _is_whole(level: float) -> bool:
    """Says whether a level is a whole number of hPa, as channels name it."""
    return round(level) >= 1 and abs(level - round(level)) <= LEVEL_TOLERANCE


def orient(latitude: np.ndarray, longitude: np.ndarray, file: str) -> Orientation:
    """Sorts a grid: latitude decreasing, longitude increasing, a repeated meridian dropped.

    The longitudes of a global grid lie within [0, 360); a region's begin in the west, whichever meridian it crosses.

    Raises:
        DataError: coordinates that are no regular grid of the globe's directions.
    """
    if latitude.ndim != 1 or longitude.ndim != 1:
        raise DataError(f"{file}: latitude and longitude are not one-dimensional; a regular grid is needed")
    latitude, longitude = latitude.astype(np.float64), longitude.astype(np.float64)
    for name, values in (("latitude", latitude), ("longitude", longitude)):
        if not len(values) or not np.isfinite(values).all():
            wrong = f"found {values[~np.isfinite(values)][0]:g}" if len(values) else "there are none"
            raise DataError(f"{file}: {name}s must be finite numbers of degrees, {wrong}")
    if (np.abs(latitude) > 90.01).any():
        raise DataError(
            f"{file}: latitudes must lie within -90 and 90 degrees, found {latitude.min():g} to {latitude.max():g}"
        )
    rows = np.argsort(-latitude, kind="stable")
    # wrap, then read 359.99999 as 0
    wrapped = np.mod(longitude, 360.0)
    wrapped = np.where(wrapped > 360.0 - LONGITUDE_TOLERANCE, 0.0, wrapped)
    columns = np.argsort(wrapped, kind="stable")
    distinct = np.concatenate([[True], np.diff(wrapped[columns]) > LONGITUDE_TOLERANCE])
    columns = columns[distinct]
    gaps = np.diff(np.append(wrapped[columns], wrapped[columns[0]] + 360.0))
    if gaps.max() > 1.5 * np.median(gaps):  # a region begins behind the largest gap
        columns = np.roll(columns, -1 - int(gaps.argmax()))
    if (np.diff(latitude[rows]) > -1e-6).any():
        raise DataError(
            f"{file}: the latitude {latitude[rows][:-1][np.diff(latitude[rows]) > -1e-6][0]:g} is there twice"
        )
    return Orientation(np.clip(latitude[rows], -90, 90), in_a_row(wrapped[columns]), rows, columns)
