"""The Well's HDF5 schema: what other programs for learned simulation read.

Ohana et al. (2024), doi:10.48550/arXiv.2412.00568. Dimensions are (member, time, x, z): x comes first there. Winds are
one vector field; the background's profiles are fields that do not change in time or along x. Other constants are fields
that do not change in time, or numbers where they are the same everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from domains.fluids.data.boundary import OBSTACLE
from domains.fluids.data.writers.ensemble import PROFILES, Ensemble, Layout
from sciml.core.files import atomic_file
from sciml.nn.topology import Side

WINDS = ("uwnd", "wwnd")


def write_well(path: Path, ensemble: Ensemble) -> None:
    """Writes one file, whole or not at all."""
    layout = ensemble.layout
    with atomic_file(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["dataset_name"] = ensemble.record["name"]
        file.attrs["grid_type"] = "cartesian"
        file.attrs["n_spatial_dims"] = 2
        file.attrs["n_trajectories"] = layout.members
        _names(file, "simulation_parameters", [])
        for name in ("title", "source", "license"):
            file.attrs[name] = ensemble.record[name]
        dimensions = file.create_group("dimensions")
        _names(dimensions, "spatial_dims", ["x", "z"])
        for name, values in (("time", ensemble.times), ("x", layout.x), ("z", layout.z)):
            _varying(dimensions.create_dataset(name, data=values.astype(ensemble.precision)), sample=False, time=False)
        _write_boundary(file.create_group("boundary_conditions"), layout)
        scalars, vectors, tensors = (file.create_group(f"t{order}_fields") for order in range(3))
        _names(tensors, "field_names", [])
        constants = _write_constants(file.create_group("scalars"), scalars, ensemble)
        _write_fields(scalars, vectors, ensemble, constants)


def _write_boundary(group: Any, layout: Layout) -> None:
    """Writes one condition for both ends of each axis, and the walls inside."""
    sizes = {"x": len(layout.x), "z": len(layout.z)}
    for axis, (side, _) in layout.boundary.names.items():
        condition = group.create_group(f"{axis}_{side}")
        _names(condition, "associated_dims", [axis])
        _names(condition, "associated_fields", [])
        condition.attrs["bc_type"] = side.upper()
        _varying(condition, sample=False, time=False)
        mask = np.zeros(sizes[axis], dtype=bool)
        mask[[0, -1]] = True
        condition.create_dataset("mask", data=mask)
        condition.create_dataset("values", data=np.zeros(int(mask.sum()), dtype=np.float32))
    if OBSTACLE in layout.constants:
        condition = group.create_group(OBSTACLE)
        _names(condition, "associated_dims", list(sizes))
        _names(condition, "associated_fields", [])
        condition.attrs["bc_type"] = Side.WALL.upper()
        _varying(condition, sample=True, time=False)
        condition.create_dataset("mask", data=layout.constants[OBSTACLE].swapaxes(1, 2) > 0)


def _write_constants(numbers: Any, fields: Any, ensemble: Ensemble) -> list[str]:
    """Writes what does not change in time, and returns the names of what is among the fields."""
    layout, written = ensemble.layout, []
    constants = {name: values for name, values in layout.constants.items() if name != OBSTACLE}
    for name, values in constants.items():
        if np.ptp(values, axis=(1, 2)).any():
            field = fields.create_dataset(name, data=values.swapaxes(1, 2).astype(ensemble.precision))
            _varying(field, sample=True, time=False, along=[True, True])
            written.append(name)
        else:
            number = numbers.create_dataset(name, data=values[:, 0, 0].astype(ensemble.precision))
            _varying(number, sample=True, time=False)
    _names(numbers, "field_names", [name for name in constants if name not in written])
    if layout.profiles is not None:
        for column, name in enumerate(PROFILES):
            field = fields.create_dataset(name, data=layout.profiles[:, column].astype(ensemble.precision))
            _varying(field, sample=True, time=False, along=[False, True])
            written.append(name)
    return written


def _write_fields(scalars: Any, vectors: Any, ensemble: Ensemble, constants: list[str]) -> None:
    """Writes what changes in time.

    Args:
        constants: names of the fields that are there already.
    """
    layout = ensemble.layout
    has_winds = set(WINDS) <= set(layout.variables)
    channels = {name: channel for channel, name in enumerate(layout.variables) if not (has_winds and name in WINDS)}
    winds = [layout.variables.index(name) for name in WINDS if has_winds]
    shape = (layout.members, len(ensemble.times), len(layout.x), len(layout.z))
    datasets = {
        name: scalars.create_dataset(name, shape, ensemble.precision, chunks=(1, 1, *shape[2:])) for name in channels
    }
    _names(scalars, "field_names", [*channels, *constants])
    _names(vectors, "field_names", ["velocity"] * has_winds)
    velocity = None
    if has_winds:
        velocity = vectors.create_dataset("velocity", (*shape, 2), ensemble.precision, chunks=(1, 1, *shape[2:], 2))
    for field in (*datasets.values(), *([velocity] * has_winds)):
        _varying(field, sample=True, time=True, along=[True, True])
    for member, values in enumerate(ensemble.members()):
        for frame, fields in enumerate(values):
            for name, channel in channels.items():
                datasets[name][member, frame] = fields[channel].T
            if velocity is not None:
                velocity[member, frame] = fields[winds].transpose(2, 1, 0)


def _varying(target: Any, *, sample: bool, time: bool, along: list[bool] | None = None) -> None:
    target.attrs["sample_varying"] = sample
    target.attrs["time_varying"] = time
    if along is not None:
        target.attrs["dim_varying"] = np.array(along)


def _names(group: Any, key: str, names: list[str]) -> None:
    group.attrs.create(key, names, shape=(len(names),), dtype=h5py.string_dtype())
