"""NetCDF as most programs write a flow in a plane: fields on (time, y, x) or (time, z, x), in any order of space.

So come files of Oceananigans, MITgcm, Dedalus and others, brought to common points by xarray where the grid was
staggered. An axis of space with one point (Oceananigans' ``Flat``) is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from domains.fluids.data.boundary import Boundary
from domains.fluids.data.readers.netcdf import opened, read, read_times
from domains.fluids.data.readers.obstacles import obstacles
from domains.fluids.data.readers.source import Axis, FlowSource
from sciml.core.errors import DataError

TIMES = {"time", "t", "times"}
WINDS_X = ("uwnd", "u", "vx", "ux", "velocity_x", "u_x")
WINDS_Z = {
    "z": ("wwnd", "w", "vz", "uz", "velocity_z", "u_z"),
    "y": ("v", "vy", "uy", "velocity_y", "u_y"),
}
"""Names of the wind along x and along the other axis, by the letter that this begins with; all in small letters."""
METERS = {"m": 1.0, "meter": 1.0, "metre": 1.0, "km": 1000.0, "kilometer": 1000.0, "cm": 0.01, "mm": 0.001}


@dataclass(frozen=True)
class PlaneFrames:
    """Reads fields of a file.

    Attributes:
        shape: of a frame in the file, without axes that have one point.
        turned: whether x comes before the other axis there.
    """

    file: str
    shape: tuple[int, int]
    turned: bool

    def read(self, times: slice, variables: Sequence[str]) -> np.ndarray:
        fields = [read(self.file, name, times).reshape(-1, *self.shape) for name in variables]
        values = np.stack(fields, axis=1)
        return values.swapaxes(-1, -2) if self.turned else values


def is_plane(dataset: Any) -> bool:
    """Says whether there are fields that change in time."""
    return bool(_fields(dataset))


def open_planes(file: str, boundary: Boundary | None) -> Iterator[FlowSource]:
    """Opens the one flow of a file; what lies on the plane alone is a constant.

    Raises:
        DataError: fields on different points, three dimensions of space, a coordinate that is missing or in degrees, or
            no boundary, which these files do not tell.
    """
    dataset = opened(file)
    fields = _fields(dataset)
    first = next(iter(fields))
    dims = fields[first]
    for name, others in fields.items():
        if others != dims:
            raise DataError(
                f"{file}: {first} is on ({', '.join(dims)}) and {name} on ({', '.join(others)}), a staggered grid; "
                "interpolate them to common points first"
            )
    space = [dim for dim in dims[1:] if len(dataset.dimensions[dim]) > 1]
    if len(space) != 2:
        raise DataError(
            f"{file}: {first} has {len(space)} dimensions of space with more than one point; a plane is needed"
        )
    turned = space[0].lower().startswith("x") and not space[1].lower().startswith("x")
    row, column = space[::-1] if turned else space
    (x, length), (z, _) = (_axis(file, dim) for dim in (column, row))
    if boundary is None:
        raise DataError(
            f"{file}: does not tell what is at the sides; give it, e.g. data.boundary={{x: periodic, z: wall}}"
        )
    if dims[0] not in dataset.variables:
        raise DataError(f"{file}: no times; a coordinate {dims[0]} is needed")
    times, unit = read_times(file, dims[0])
    frames = PlaneFrames(file, tuple(len(dataset.dimensions[dim]) for dim in space), turned)  # type: ignore[arg-type]
    winds = _winds(tuple(fields), row)
    constants = {
        name: (values.T if turned else values).astype(np.float32)
        for name, variable in dataset.variables.items()
        if variable.dimensions == tuple(space) and variable.dtype.kind == "f"
        for values in (read(file, name),)
    }
    mask = obstacles(frames, len(times), tuple(fields), winds) if len(times) else None
    yield FlowSource(
        file, tuple(fields), winds, times, x, z, boundary, frames, mask,
        constants=constants, units=(length, unit),
    )  # fmt: skip


def _fields(dataset: Any) -> dict[str, tuple[str, ...]]:
    """Returns the dimensions of what changes in time and in space, by name."""
    return {
        name: variable.dimensions
        for name, variable in dataset.variables.items()
        if len(variable.dimensions) > 2 and variable.dimensions[0].lower() in TIMES and variable.dtype.kind == "f"
    }


def _axis(file: str, dim: str) -> tuple[Axis, str]:
    """Returns the cells along a dimension, and their unit: m where it is one of length."""
    if dim not in opened(file).variables:
        raise DataError(f"{file}: no coordinate {dim}; write where the points are, as a variable of that name")
    unit = str(getattr(opened(file)[dim], "units", ""))
    if unit.lower().startswith("deg"):
        raise DataError(f"{file}: {dim} is in degrees; a plane with straight axes is needed")
    meters = METERS.get(unit.lower().rstrip("s"))
    values = read(file, dim).astype(np.float64)
    return Axis.of(values * (meters or 1.0), f"{file}: {dim}"), unit if meters is None else "m"


def _winds(names: tuple[str, ...], row: str) -> tuple[str, str] | None:
    """Returns the names of the winds along x and along the rows' axis, where both are there."""
    known = {name.lower(): name for name in names}
    other = WINDS_Z["z" if row.lower().startswith("z") else "y"]
    along = [next((known[name] for name in group if name in known), None) for group in (WINDS_X, other)]
    return (along[0], along[1]) if along[0] and along[1] else None
