"""miniWeather's NetCDF: winds, and perturbations of density and potential temperature, on (t, z, x)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from domains.fluids.data.boundary import Boundary
from domains.fluids.data.readers.netcdf import NetCDFFrames, opened, read, read_times, require
from domains.fluids.data.readers.source import Axis, FlowSource
from domains.fluids.solver import VARIABLES, SolverGrid

BOUNDARY = Boundary.of("periodic", "wall")
PROFILES = ("hy_dens", "hy_theta")
"""Names of the background's variables, which a variant of the format has."""


def is_miniweather(dataset: Any) -> bool:
    """Says whether most of its variables are there; those that are missing are named later."""
    return sum(name in dataset.variables for name in VARIABLES) >= 2


def open_miniweather(file: str, boundary: Boundary | None) -> Iterator[FlowSource]:
    """Opens the one flow of a file. Where it has no coordinates, the plane is 20 km by 10 km, and times are in s.

    Raises:
        DataError: a variable is missing.
    """
    require(file, ("t",), ("t",))
    require(file, VARIABLES, ("t", "z", "x"))
    dimensions = opened(file).dimensions
    grid = SolverGrid(len(dimensions["x"]), len(dimensions["z"]))
    profiles = {name: read(file, name).astype(np.float64) for name in PROFILES if name in opened(file).variables}
    x, z = (
        Axis.of(read(file, name), f"{file}: {name}") if name in opened(file).variables else Axis.from_zero(step, size)
        for name, step, size in (("x", grid.dx, grid.nx), ("z", grid.dz, grid.nz))
    )
    yield FlowSource(
        file, VARIABLES, ("uwnd", "wwnd"), read_times(file, "t")[0], x, z, boundary or BOUNDARY,
        NetCDFFrames(file), profiles=profiles, units=("m", "s"),
    )  # fmt: skip
