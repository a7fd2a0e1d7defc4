"""Sets up bubbles, wind, waves and jets in the air: the five cases of miniWeather."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from domains.fluids.solver.background import profiles
from domains.fluids.solver.grid import HEIGHT_M, LENGTH_M, WEIGHTS, SolverGrid

FORCING_REPEATS = 3
"""The original adds its forcing of gravity waves once for each variable up to the momentum that it is meant for."""


@dataclass(frozen=True)
class Bubble:
    """Adds a squared cosine around a center; it goes out at one side of the plane and comes in at the other.

    Attributes:
        amplitude: at the center.
        x: m.
        z: m.
        radius_x: m.
        radius_z: m.
    """

    amplitude: float
    x: float
    z: float
    radius_x: float
    radius_z: float

    def at(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Returns its value at positions in m."""
        beside = (x - self.x + LENGTH_M / 2) % LENGTH_M - LENGTH_M / 2
        distance = np.pi / 2 * np.hypot(beside / self.radius_x, (z - self.z) / self.radius_z)
        return np.where(distance <= np.pi / 2, self.amplitude * np.cos(distance) ** 2, 0.0)


@dataclass(frozen=True)
class Jet:
    """Blows air in at the left.

    Attributes:
        speed: m/s.
        theta: its potential temperature, K.
        z: height of its middle, m.
        half_width: m.
    """

    speed: float = 50.0
    theta: float = 298.0
    z: float = 0.75 * HEIGHT_M
    half_width: float = HEIGHT_M / 16


@dataclass(frozen=True)
class Flow:
    """Describes a flow that is to be simulated.

    Attributes:
        case: name of the case it belongs to.
        bubbles: of potential temperature at the start, K.
        wind: along x at the start, m/s.
        frequency: Brunt-Vaisala frequency of the background, 1/s; 0 is neutral air.
        forcing: of vertical momentum, always on, m/s^2.
        jet: what is blown in.
    """

    case: str
    bubbles: tuple[Bubble, ...] = ()
    wind: float = 0.0
    frequency: float = 0.0
    forcing: Bubble | None = None
    jet: Jet | None = None

    @property
    def is_fixed(self) -> bool:
        """Says whether something in it has its place, so that moved copies of it would be other flows."""
        return self.jet is not None or self.forcing is not None

    def start(self, grid: SolverGrid) -> Float[np.ndarray, "4 z x"]:
        """Returns density, momenta along x and z, and density times potential temperature, as averages of cells.

        Density and the last one without their background.
        """
        z, x = grid.quadrature_z(), grid.quadrature_x()
        dens, _ = profiles(z, self.frequency)
        state = np.zeros((4, grid.nz, grid.nx))
        state[1] = (dens @ WEIGHTS)[:, None] * self.wind
        theta = sum(
            (bubble.at(x[None, :, None, :], z[:, None, :, None]) for bubble in self.bubbles),
            start=np.zeros((grid.nz, grid.nx, 3, 3)),
        )
        state[3] = np.einsum("zxij,zi,i,j->zx", theta, dens, WEIGHTS, WEIGHTS)
        return state

    def force(self, grid: SolverGrid) -> Float[np.ndarray, "z x"]:
        """Returns what the momentum along z gains all the time, kg/(m^2 s^2)."""
        if self.forcing is None:
            return np.zeros((grid.nz, grid.nx))
        dens = profiles(grid.quadrature_z(), self.frequency)[0] @ WEIGHTS
        return FORCING_REPEATS * self.forcing.at(grid.x, grid.z[:, None]) * dens[:, None]

    def jet_rows(self, grid: SolverGrid, finer: int = 1) -> Float[np.ndarray, "z"]:
        """Returns into which share of each row of cells the jet blows.

        Args:
            finer: rows of the grid that the flow is known on, in each of these: there the jet blows into those whose
                centers it covers.
        """
        if self.jet is None:
            return np.zeros(grid.nz)
        fine = (np.arange(grid.nz * finer) + 0.5) * grid.dz / finer
        covered: np.ndarray = np.abs(fine - self.jet.z) <= self.jet.half_width
        return covered.reshape(grid.nz, finer).mean(1)


CASES: dict[str, Flow] = {
    "collision": Flow("collision", (Bubble(20, LENGTH_M / 2, 2e3, 2e3, 2e3), Bubble(-20, LENGTH_M / 2, 8e3, 2e3, 2e3))),
    "thermal": Flow("thermal", (Bubble(3, LENGTH_M / 2, 2e3, 2e3, 2e3),)),
    "gravity": Flow("gravity", wind=15.0, frequency=0.02, forcing=Bubble(0.01, LENGTH_M / 8, 1e3, 500, 500)),
    "density": Flow("density", (Bubble(-20, LENGTH_M / 2, 5e3, 4e3, 2e3),)),
    "injection": Flow("injection", jet=Jet()),
}
"""The original's five, by name."""
