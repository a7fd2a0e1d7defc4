"""The cells of miniWeather's vertical plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from domains.fluids.cells import Cells

LENGTH_M = 2e4
HEIGHT_M = 1e4
CFL = 1.5
MAX_SPEED = 450.0
"""m/s, sound and wind together."""

# Three points of Gauss and Legendre on [0, 1], with miniWeather's digits.
NODES = np.array([0.112701665379258311482073460022, 0.5, 0.887298334620741688517926539980])
WEIGHTS = np.array([5 / 18, 8 / 18, 5 / 18])

STENCIL = 4
"""Cells of which an interface is interpolated: two at each side, so two layers of ghost cells."""


@dataclass(frozen=True)
class SolverGrid(Cells):
    """Divides a plane of 20 km by 10 km into equal cells; lengths are in m."""

    length, height, fewest = LENGTH_M, HEIGHT_M, STENCIL

    def coarsened(self, factor: int) -> SolverGrid:
        """Returns the grid whose cells are squares of so many cells; the factor divides both numbers."""
        return SolverGrid(self.nx // factor, self.nz // factor)

    @property
    def largest_step(self) -> float:
        """Returns the original's time step, s; its order of operations decides when the original writes a frame."""
        return min(self.dx, self.dz) / MAX_SPEED * CFL

    def quadrature_z(self, ghosts: int = 0) -> Float[np.ndarray, "z 3"]:
        """Returns the heights of the quadrature points in each cell, m, with layers of ghost cells below and above."""
        return (np.arange(-ghosts, self.nz + ghosts)[:, None] + NODES) * self.dz

    def quadrature_x(self) -> Float[np.ndarray, "x 3"]:
        """Returns the positions of the quadrature points in each cell, m."""
        return (np.arange(self.nx)[:, None] + NODES) * self.dx
