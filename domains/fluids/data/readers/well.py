"""The Well's HDF5: (trajectory, time, x, y) in groups by order of tensor, with typed boundaries.

Ohana et al. (2024), doi:10.48550/arXiv.2412.00568; https://polymathic-ai.org/the_well/data_format/
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from domains.fluids.data.boundary import Boundary
from domains.fluids.data.readers.hdf5 import attribute, laid_out_as, opened, text
from domains.fluids.data.readers.source import Axis, FlowSource
from domains.fluids.data.readers.well_boundary import Sides, read_sides
from domains.fluids.solver import VARIABLES
from sciml.core.errors import DataError

ORDERS = ("t0_fields", "t1_fields", "t2_fields")
OURS = {"velocity_x": "uwnd", "velocity_z": "wwnd"}
PROFILES = ("hy_dens", "hy_theta")
CURVED = {"r", "rho", "theta", "phi", "lat", "lon", "latitude", "longitude", "colatitude"}
"""Names of axes that are no straight lines in a plane."""


@dataclass(frozen=True)
class _Layout:
    """Says what the arrays of a file must look like.

    Attributes:
        members: trajectories.
        times: of each.
        axes: of space, with their numbers of points.
    """

    name: str
    members: int
    times: int
    axes: Mapping[str, int]


@dataclass(frozen=True)
class _Place:
    """Says where a variable is: a data set, in what it varies, and which component of it."""

    path: str
    by_sample: bool
    by_time: bool
    along: tuple[bool, ...]
    component: tuple[int, ...] = ()

    def read(self, file: Any, member: int, times: slice) -> np.ndarray:
        """Returns (time, z, x), or what of these axes it varies along; the others have length 1."""
        index: tuple[Any, ...] = ((member,) if self.by_sample else ()) + ((times,) if self.by_time else ())
        values = np.asarray(file[self.path][index + (slice(None),) * sum(self.along) + self.component])
        if not self.by_time:
            values = values[None]
        for axis, varies in enumerate(self.along):
            if not varies:
                values = np.expand_dims(values, axis + 1)
        return values.swapaxes(-1, -2)  # x comes first there


@dataclass(frozen=True)
class WellFrames:
    """Reads one trajectory of a file."""

    file: str
    member: int
    places: Mapping[str, _Place]
    shape: tuple[int, int]

    def read(self, times: slice, variables: Sequence[str]) -> np.ndarray:
        return np.stack([self._field(self.places[name], times) for name in variables], axis=1)

    def _field(self, place: _Place, times: slice) -> np.ndarray:
        try:
            values = place.read(opened(self.file), self.member, times)
        except OSError as error:
            raise DataError(f"{self.file}: {place.path} cannot be read, the file is damaged ({error})") from error
        return np.broadcast_to(values, (len(values), *self.shape))


def is_well(file: Any) -> bool:
    return "dimensions" in file and any(group in file for group in (*ORDERS, "boundary_conditions"))


@laid_out_as("The Well's schema")
def open_well(name: str, boundary: Boundary | None) -> Iterator[FlowSource]:
    """Opens one flow a trajectory; of a plane x and y, y is our z. What does not change in time is a constant input.

    Raises:
        DataError: three dimensions of space or curved ones, an unknown boundary, no field that changes in time, or
            arrays that are not what the file says of them.
    """
    file = opened(name)
    layout, times, (x, y) = _layout(file, name)
    first, second = layout.axes
    places = {**_scalars(file, layout), **_fields(file, layout)}
    moving = {key: place for key, place in places.items() if place.by_time}
    if not any(all(place.along) for place in moving.values()):
        raise DataError(f"{name}: no field that changes in time and along {first} and {second}")
    velocity = (f"velocity_{first}", f"velocity_{second}")
    still = {key: place for key, place in places.items() if not place.by_time}
    is_ours = set(OURS) | {"dens", "theta"} <= set(moving) and set(PROFILES) <= set(still)
    if is_ours:
        moving = {ours: moving[theirs] for theirs, ours in _our_order(moving)}
        velocity = ("uwnd", "wwnd")
    along_x, along_y = Axis.of(x, f"{name}: {first}"), Axis.of(y, f"{name}: {second}")
    shape = (along_y.size, along_x.size)
    found: Sides = read_sides(file, name, layout.axes, layout.members)
    sides = boundary or found.boundary((along_x.descends, along_y.descends))
    for member in range(layout.members):
        profiles = {
            key: still[key].read(file, member, slice(None))[0, :, 0].astype(float) for key in PROFILES * is_ours
        }
        constants = {
            key: np.broadcast_to(place.read(file, member, slice(None))[0], shape).astype(np.float32)
            for key, place in still.items()
            if key not in profiles
        }
        yield FlowSource(
            f"{name}@{member}", tuple(moving), velocity if set(velocity) <= set(moving) else None,
            times[member] if times.ndim == 2 else times, along_x, along_y, sides,
            WellFrames(name, member, moving, shape), found.obstacle(member), profiles, constants,
            units=("m", "s") if is_ours else ("", ""),
        )  # fmt: skip


def _layout(file: Any, name: str) -> tuple[_Layout, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Returns what arrays must look like, times, and the coordinates of the plane."""
    dimensions = file["dimensions"]
    axes = [text(axis) for axis in attribute(dimensions, "spatial_dims", name)]
    if len(axes) != 2:
        raise DataError(f"{name}: has {len(axes)} dimensions of space ({', '.join(axes)}); flows in a plane are needed")
    grid = text(file.attrs.get("grid_type", "cartesian")).lower()
    if not grid.startswith("cartesian") or CURVED & {axis.lower() for axis in axes}:
        kind = f"a {grid} grid" if not grid.startswith("cartesian") else f"axes {' and '.join(axes)}"
        raise DataError(f"{name}: has {kind}; a plane with straight axes (grid_type cartesian) is needed")
    for key in ("time", *axes):
        if key not in dimensions:
            raise DataError(f"{name}: dimensions has no {key}; found {', '.join(dimensions) or 'nothing'}")
    x, y = (np.asarray(dimensions[axis], dtype=np.float64) for axis in axes)
    if x.ndim != 1 or y.ndim != 1:
        raise DataError(f"{name}: the grid is not the same in all trajectories; write them to files of their own")
    times = np.asarray(dimensions["time"], dtype=np.float64)
    members = int(attribute(file, "n_trajectories", name))
    if members < 1 or times.ndim not in (1, 2) or (times.ndim == 2 and len(times) != members):
        raise DataError(f"{name}: has {members} trajectories and times of shape {times.shape}, which do not fit")
    return _Layout(name, members, times.shape[-1], {axes[0]: len(x), axes[1]: len(y)}), times, (x, y)


def _our_order(places: Mapping[str, _Place]) -> list[tuple[str, str]]:
    """Returns names there and here of what this project's simulations write."""
    there = {OURS.get(name, name): name for name in places}
    return [(there[name], name) for name in VARIABLES]


def _fields(file: Any, layout: _Layout) -> dict[str, _Place]:
    """Finds every component of every field, by name."""
    places = {}
    for order, group in enumerate(ORDERS):
        for key in _names(file[group]) if group in file else ():
            if key not in file[group]:
                raise DataError(f"{layout.name}: {group} names {key}, which is not there")
            field = file[group][key]
            along = tuple(bool(varies) for varies in attribute(field, "dim_varying", layout.name))
            place = _varying(field, f"{group}/{key}", layout, along)
            expected = _shape(place, layout)
            parts = field.shape[len(expected) :]
            if field.shape[: len(expected)] != expected or parts not in ((2,) * order, (2**order,) * (order > 0)):
                wanted = (*expected, *(2,) * order)
                raise DataError(f"{layout.name}: {group}/{key} has the shape {field.shape}, {wanted} is needed")
            for component in itertools.product(range(2), repeat=order):
                suffix = "".join(list(layout.axes)[axis] for axis in component)
                # the components of a matrix may stand in a row
                index = (2 * component[0] + component[1],) if len(parts) < order else component
                places[f"{key}_{suffix}" if suffix else key] = _Place(
                    place.path, place.by_sample, place.by_time, place.along, index
                )
    return places


def _scalars(file: Any, layout: _Layout) -> dict[str, _Place]:
    """Finds the numbers of a flow, such as a Reynolds number."""
    places = {}
    group = file.get("scalars", {})
    for key in _names(group) if group else ():
        if key not in group:
            raise DataError(f"{layout.name}: scalars names {key}, which is not there")
        place = _varying(group[key], f"scalars/{key}", layout, (False, False))
        if group[key].shape != _shape(place, layout):
            raise DataError(
                f"{layout.name}: scalars/{key} has the shape {group[key].shape}, {_shape(place, layout)} is needed"
            )
        places[key] = place
    return places


def _names(group: Any) -> list[str]:
    """Returns the names of a group's fields; writers leave an empty attribute where there are none."""
    names = group.attrs.get("field_names", ())
    return list(map(text, names)) if np.shape(names) else []


def _varying(field: Any, path: str, layout: _Layout, along: tuple[bool, ...]) -> _Place:
    if len(along) != len(layout.axes):
        raise DataError(f"{layout.name}: dim_varying of {path} has {len(along)} values, one an axis is needed")
    by_sample, by_time = (bool(attribute(field, key, layout.name)) for key in ("sample_varying", "time_varying"))
    return _Place(path, by_sample, by_time, along)


def _shape(place: _Place, layout: _Layout) -> tuple[int, ...]:
    """Returns the shape of a field without its components."""
    sizes = (size for size, varies in zip(layout.axes.values(), place.along, strict=True) if varies)
    return (*(layout.members,) * place.by_sample, *(layout.times,) * place.by_time, *sizes)
