"""Air at rest, in hydrostatic balance: what a flow is a perturbation of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from domains.fluids.solver.grid import WEIGHTS, SolverGrid

GRAVITY = 9.8
"""m/s^2."""
CP, CV, RD = 1004.0, 717.0, 287.0
"""J/(kg K)."""
P0 = 1e5
"""Pa."""
GAMMA = 1.40027894002789400278940027894
C0 = 27.5629410929725921310572974482
"""Constants of the equation of state, p = C0 (rho theta)^gamma."""
SURFACE_THETA = 300.0
"""K."""
GHOSTS = 2


@dataclass(frozen=True)
class Background:
    """Holds profiles of density and density times potential temperature, SI units.

    Attributes:
        dens: averages of cells.
        dens_theta: averages of cells.
        dens_face: at the interfaces of cells, from the ground to the top.
        dens_theta_face: at the interfaces.
        ghost_ratio: density in the two ghost cells below and the two above over that in the cell at the edge, from
            bottom to top.
    """

    dens: Float[np.ndarray, "z"]
    dens_theta: Float[np.ndarray, "z"]
    dens_face: Float[np.ndarray, "faces"]
    dens_theta_face: Float[np.ndarray, "faces"]
    ghost_ratio: Float[np.ndarray, "4"]

    @classmethod
    def of(cls, grid: SolverGrid, frequency: float) -> Background:
        """Makes a background of constant Brunt-Vaisala frequency.

        Args:
            frequency: 1/s; 0 is neutral air, of the same potential temperature everywhere.
        """
        dens, dens_theta = profiles(grid.quadrature_z(GHOSTS), frequency)
        dens, dens_theta = dens @ WEIGHTS, dens_theta @ WEIGHTS
        inner = slice(GHOSTS, -GHOSTS)
        below, above = dens[:GHOSTS] / dens[GHOSTS], dens[-GHOSTS:] / dens[-GHOSTS - 1]
        faces = profiles(np.arange(grid.nz + 1) * grid.dz, frequency)
        return cls(dens[inner], dens_theta[inner], *faces, np.concatenate([below, above]))

    @property
    def theta(self) -> Float[np.ndarray, "z"]:
        """Returns the potential temperature of cells, K."""
        return self.dens_theta / self.dens


def profiles(z: np.ndarray, frequency: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns density, and density times potential temperature, at heights in m."""
    if frequency == 0:
        theta = np.full_like(z, SURFACE_THETA)
        exner = 1 - GRAVITY * z / (CP * SURFACE_THETA)
    else:
        theta = SURFACE_THETA * np.exp(frequency**2 * z / GRAVITY)
        exner = 1 - GRAVITY**2 / (CP * frequency**2) * (theta - SURFACE_THETA) / (SURFACE_THETA * theta)
    dens_theta = (P0 * exner ** (CP / RD) / C0) ** (1 / GAMMA)
    return dens_theta / theta, dens_theta
