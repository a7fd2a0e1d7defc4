"""The Well's HDF5 schema: what other programs for learned simulation read.

Ohana et al. (2024), doi:10.48550/arXiv.2412.00568. Dimensions are (member, time, x, z): x comes first there. Winds are
one vector field; the background's profiles are fields that do not change in time or along x.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from domains.fluids.data.writers.ensemble import BOUNDARY, Ensemble
from sciml.core.files import atomic_file

SCALARS = {"dens": 0, "theta": 3}
WINDS = slice(1, 3)


def write_well(path: Path, ensemble: Ensemble) -> None:
    """Writes one file, whole or not at all."""
    grid = ensemble.grid
    with atomic_file(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["dataset_name"] = "miniweather_ensemble"
        file.attrs["grid_type"] = "cartesian"
        file.attrs["n_spatial_dims"] = 2
        file.attrs["n_trajectories"] = len(ensemble.flows)
        _names(file, "simulation_parameters", [])
        for name in ("title", "source", "license"):
            file.attrs[name] = ensemble.record[name]
        dimensions = file.create_group("dimensions")
        _names(dimensions, "spatial_dims", ["x", "z"])
        for name, values in (("time", ensemble.times), ("x", grid.x), ("z", grid.z)):
            _varying(dimensions.create_dataset(name, data=values.astype(ensemble.precision)), sample=False, time=False)
        _write_boundary(file.create_group("boundary_conditions"), {"x": grid.nx, "z": grid.nz})
        _names(file.create_group("scalars"), "field_names", [])
        _write_fields(file, ensemble)


def _write_boundary(group: Any, sizes: dict[str, int]) -> None:
    """Writes one condition for both ends of each axis."""
    for axis, (side, _) in BOUNDARY.names.items():
        condition = group.create_group(f"{axis}_{side}")
        _names(condition, "associated_dims", [axis])
        _names(condition, "associated_fields", [])
        condition.attrs["bc_type"] = side.upper()
        _varying(condition, sample=False, time=False)
        mask = np.zeros(sizes[axis], dtype=bool)
        mask[[0, -1]] = True
        condition.create_dataset("mask", data=mask)
        condition.create_dataset("values", data=np.zeros(int(mask.sum()), dtype=np.float32))


def _write_fields(file: Any, ensemble: Ensemble) -> None:
    grid = ensemble.grid
    scalars, vectors, tensors = (file.create_group(f"t{order}_fields") for order in range(3))
    _names(scalars, "field_names", [*SCALARS, "hy_dens", "hy_theta"])
    _names(vectors, "field_names", ["velocity"])
    _names(tensors, "field_names", [])
    shape = (len(ensemble.flows), len(ensemble.times), grid.nx, grid.nz)
    datasets = {
        name: scalars.create_dataset(name, shape, ensemble.precision, chunks=(1, 1, *shape[2:])) for name in SCALARS
    }
    velocity = vectors.create_dataset("velocity", (*shape, 2), ensemble.precision, chunks=(1, 1, *shape[2:], 2))
    for field in (*datasets.values(), velocity):
        _varying(field, sample=True, time=True, along=[True, True])
    for name, profile in zip(("hy_dens", "hy_theta"), ensemble.profiles, strict=True):
        field = scalars.create_dataset(name, data=profile.astype(ensemble.precision))
        _varying(field, sample=True, time=False, along=[False, True])
    for member, values in enumerate(ensemble.members()):
        for frame, fields in enumerate(values):
            for name, channel in SCALARS.items():
                datasets[name][member, frame] = fields[channel].T
            velocity[member, frame] = fields[WINDS].transpose(2, 1, 0)


def _varying(target: Any, *, sample: bool, time: bool, along: list[bool] | None = None) -> None:
    target.attrs["sample_varying"] = sample
    target.attrs["time_varying"] = time
    if along is not None:
        target.attrs["dim_varying"] = np.array(along)


def _names(group: Any, key: str, names: list[str]) -> None:
    group.attrs.create(key, names, shape=(len(names),), dtype=h5py.string_dtype())
