"""The Well's HDF5: (trajectory, time, x, y) in groups by order of tensor, with typed boundaries.

Ohana et al. (2024), doi:10.48550/arXiv.2412.00568; https://polymathic-ai.org/the_well/data_format/
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from domains.fluids.data.boundary import NAMES, Boundary
from domains.fluids.data.readers.hdf5 import opened, text
from domains.fluids.data.readers.source import FlowSource, spacing
from domains.fluids.solver import VARIABLES
from sciml.core.errors import DataError, nearest
from sciml.nn.topology import Side

ORDERS = ("t0_fields", "t1_fields", "t2_fields")
OURS = {"velocity_x": "uwnd", "velocity_z": "wwnd"}
PROFILES = ("hy_dens", "hy_theta")


@dataclass(frozen=True)
class _Place:
    """Says where a variable is: a data set, whether trajectories differ in it, and which component of it."""

    path: str
    by_sample: bool
    component: tuple[int, ...]


@dataclass(frozen=True)
class WellFrames:
    """Reads one trajectory of a file."""

    file: str
    member: int
    places: Mapping[str, _Place]

    def read(self, times: slice, variables: Sequence[str]) -> np.ndarray:
        return np.stack([self._field(self.places[name], times) for name in variables], axis=1)

    def _field(self, place: _Place, times: slice) -> np.ndarray:
        index: tuple[Any, ...] = ((self.member,) if place.by_sample else ()) + (times, slice(None), slice(None))
        try:
            values = opened(self.file)[place.path][index + place.component]
        except OSError as error:
            raise DataError(f"{self.file}: {place.path} cannot be read, the file is damaged ({error})") from error
        return np.asarray(values).swapaxes(-1, -2)  # x comes first there


def is_well(file: Any) -> bool:
    return "t0_fields" in file and "dimensions" in file


def open_well(name: str, boundary: Boundary | None) -> Iterator[FlowSource]:
    """Opens one flow a trajectory; of a plane x and y, y is our z.

    Raises:
        DataError: three dimensions of space, an unknown boundary, or no field that changes in time.
    """
    file = opened(name)
    axes = [text(axis) for axis in file["dimensions"].attrs["spatial_dims"]]
    if len(axes) != 2:
        raise DataError(f"{name}: has {len(axes)} dimensions of space ({', '.join(axes)}); flows in a plane are needed")
    places = _places(file, axes)
    if not places:
        raise DataError(f"{name}: no field that changes in time and along {axes[0]} and {axes[1]}")
    x, y = (np.asarray(file["dimensions"][axis]) for axis in axes)
    if x.ndim != 1 or y.ndim != 1:
        raise DataError(f"{name}: the grid is not the same in all trajectories; write them to files of their own")
    sides, mask = _boundary(file, name, axes) if boundary is None else (boundary, None)
    velocity = (f"velocity_{axes[0]}", f"velocity_{axes[1]}")
    if set(OURS) | {"dens", "theta"} <= set(places) and set(PROFILES) <= set(file["t0_fields"]):
        places = {ours: places[theirs] for theirs, ours in _our_order(places)}
        velocity = ("uwnd", "wwnd")
    dx, dy = spacing(x, f"{name}: {axes[0]}"), spacing(y, f"{name}: {axes[1]}")
    times = np.asarray(file["dimensions"]["time"], dtype=np.float64)
    for member in range(int(file.attrs["n_trajectories"])):
        own_times = times[member] if times.ndim == 2 else times
        yield FlowSource(
            f"{name}@{member}", tuple(places), velocity if set(velocity) <= set(places) else None, own_times, dx, dy,
            (len(y), len(x)), sides, WellFrames(name, member, places), mask, _profiles(file, member),
        )  # fmt: skip


def _our_order(places: Mapping[str, _Place]) -> list[tuple[str, str]]:
    """Returns names there and here of what this project's simulations write."""
    there = {OURS.get(name, name): name for name in places}
    return [(there[name], name) for name in VARIABLES]


def _places(file: Any, axes: Sequence[str]) -> dict[str, _Place]:
    """Finds every component that changes in time and along both axes, by name."""
    places = {}
    for order, group in enumerate(ORDERS):
        for name in map(text, file[group].attrs["field_names"] if group in file else ()):
            attributes = file[group][name].attrs
            if not (attributes["time_varying"] and all(attributes["dim_varying"])):
                continue
            by_sample = bool(attributes["sample_varying"])
            flat = file[group][name].ndim == by_sample + 4  # the components of a matrix may stand in a row
            for along in itertools.product(range(2), repeat=order):
                component = (2 * along[0] + along[1],) if order == 2 and flat else along
                suffix = "".join(axes[i] for i in along)
                places[f"{name}_{suffix}" if suffix else name] = _Place(f"{group}/{name}", by_sample, component)
    return places


def _profiles(file: Any, member: int) -> dict[str, np.ndarray]:
    group = file["t0_fields"]
    return {name: np.asarray(group[name][member], dtype=np.float64) for name in PROFILES if name in group}


def _boundary(file: Any, name: str, axes: Sequence[str]) -> tuple[Boundary, np.ndarray | None]:
    """Returns the conditions of both ends of each axis; a wall inside is an obstacle."""
    sides: dict[str, list[Side | None]] = {axis: [None, None] for axis in axes}
    obstacle = None
    for key, condition in file["boundary_conditions"].items():
        kind = text(condition.attrs["bc_type"]).lower()
        if kind not in NAMES:
            raise DataError(f"{name}: unknown boundary {kind!r} of {key}; {nearest(kind, NAMES)}")
        along = [text(axis) for axis in condition.attrs["associated_dims"]]
        where = np.asarray(condition["mask"])
        if len(along) == 2 and NAMES[kind] is Side.WALL:
            inside = where.T if along == list(axes) else where
            obstacle = inside if obstacle is None else obstacle | inside
        elif len(along) == 1:
            for end, index in enumerate((0, -1)):
                if where[index]:
                    sides[along[0]][end] = NAMES[kind]
    for axis, found in sides.items():
        if None in found:
            raise DataError(f"{name}: no boundary condition at an end of {axis}; give one, e.g. periodic, wall or open")
    names = [[side.value for side in sides[axis] if side] for axis in axes]
    return Boundary.of(*names), obstacle
