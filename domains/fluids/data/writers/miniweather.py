"""The original's NetCDF files: ``t``, and perturbations and winds on (t, z, x), classic format, nothing else in them.

The profiles of the background are added on request; they are then called ``hy_dens`` and ``hy_theta``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from domains.fluids.data.writers.ensemble import Ensemble
from domains.fluids.solver import VARIABLES, Background, SolverGrid
from sciml.core.files import atomic_directory


def write_folder(path: Path, ensemble: Ensemble) -> None:
    """Writes a folder with a file for each member, whole or not at all; each file has the background's profiles."""
    grid = SolverGrid(len(ensemble.layout.x), len(ensemble.layout.z))
    with atomic_directory(path) as temporary:
        for number, (flow, values) in enumerate(zip(ensemble.flows, ensemble.members(), strict=True)):
            background = Background.of(grid, flow.frequency)
            file = temporary / f"{number:06d}_{flow.case}.nc"
            write_miniweather(file, grid, zip(ensemble.times, values, strict=True), background)


def write_miniweather(
    path: Path, grid: SolverGrid, frames: Iterable[tuple[float, np.ndarray]], background: Background | None
) -> None:
    """Writes one flow.

    Args:
        frames: times in s and fields (4, z, x), in order.
        background: adds its profiles, as a variant of the format has them.
    """
    import netCDF4

    with netCDF4.Dataset(path, "w", format="NETCDF3_64BIT_OFFSET") as file:
        for name, size in (("t", None), ("x", grid.nx), ("z", grid.nz)):
            file.createDimension(name, size)
        file.createVariable("t", "f8", ("t",))
        for name in VARIABLES:
            file.createVariable(name, "f8", ("t", "z", "x"))
        if background is not None:
            file.createVariable("hy_dens", "f8", ("z",))[:] = background.dens
            file.createVariable("hy_theta", "f8", ("z",))[:] = background.theta
        for number, (time, fields) in enumerate(frames):
            file["t"][number] = time
            for name, field in zip(VARIABLES, fields, strict=True):
                file[name][number] = field
