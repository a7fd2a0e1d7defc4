"""Wakes of a cylinder in a channel, from which vortices part in turn on either side.

A fluid flows in at the left with one velocity, around a cylinder, and out at the right; it slips along the walls at the
bottom and the top. The recursively regularized lattice Boltzmann method with nine velocities: a step collides and
streams populations that are made of pressure, velocity and rate of strain, and takes these from them again, so that a
state has no step of its own. What meets the cylinder goes back where it came from, halfway between the cells. The
velocity of what flows in is given, and the pressure of what flows out. The fluid is weakly compressible, and moves a
twelfth of a cell in a step.

Sources: Malaspinas (2015), https://doi.org/10.48550/arXiv.1505.06900; Guo, Zheng and Shi (2002),
https://doi.org/10.1088/1009-1963/11/4/310.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from domains.fluids.data.boundary import OBSTACLE, Boundary
from domains.fluids.physics.kind import Physics
from domains.fluids.physics.plane import Plane, Waves
from domains.fluids.physics.spectral import planes
from sciml.core.errors import ConfigError

COURANT = 0.08
"""Cells that the inflow moves in a step."""
SPEED = (0.8, 1.2)
RADIUS = (0.06, 0.1)
PLACE = ((0.4, 0.6), (0.4, 0.6))
REYNOLDS = (60.0, 160.0)
DISTURBED = 0.3
"""Speed of what disturbs the flow at first, of that of the inflow."""
MOST_WAVES = 3.0
SETTLED = 8.0
"""Time after which vortices part regularly, and a flow begins."""

ACROSS = (0, 1, 0, -1, 0, 1, -1, -1, 1)
UP = (0, 0, 1, 0, -1, 1, 1, -1, -1)
WEIGHTS = (4 / 9, *[1 / 9] * 4, *[1 / 36] * 4)
BACK = [0, 3, 4, 1, 2, 7, 8, 5, 6]
MIRRORED = [0, 1, 4, 3, 2, 8, 7, 6, 5]
"""Numbers of the nine velocities, in cells a step; of their opposites; and of their images in a wall."""

Planes = Float[Tensor, "member z x"]
State = Float[Tensor, "member 6 z x"]
"""Pressure over density, both velocities, and the rate of strain: along x, along z, and between them."""
Populations = Float[Tensor, "member 9 z x"]


class CylinderWake:
    """Steps pressure, velocities and rate of strain.

    Args:
        velocity: along x and z, at the start of the settling.
        inflow: velocity at the left, of each flow.
        solid: where the cylinder is.
        viscosity: of each flow.
        settled: time that passes before the first state.
        speed: that no inflow exceeds.
    """

    def __init__(
        self,
        plane: Plane,
        velocity: Float[Tensor, "member 2 z x"],
        inflow: Float[Tensor, "member"],
        solid: Bool[Tensor, "member z x"],
        viscosity: Float[Tensor, "member"],
        settled: float = SETTLED,
        speed: float = SPEED[1],
    ) -> None:
        self.plane, self.velocity, self.settled = plane, velocity, settled
        self.solid, self.inflow = solid[:, None], inflow[:, None, None]
        self.viscosity = viscosity[:, None, None, None]
        self.constants = torch.cat([self.solid.to(velocity), planes(viscosity, plane)], dim=1)
        self.largest_step = COURANT * plane.dx / speed
        came_from = [solid.roll((up, across), (1, 2)) for across, up in zip(ACROSS, UP, strict=True)]
        self.goes_back = torch.stack(came_from, dim=1) & ~self.solid

    @cached_property
    def start(self) -> State:
        """Returns the state after the settling."""
        steps = int(np.ceil(self.settled / self.largest_step))
        rest = torch.zeros_like(self.velocity)
        state = torch.cat([rest[:, :1], self.velocity * ~self.solid, rest, rest[:, :1]], dim=1)
        for _ in range(steps):
            state = self.step(state, self.largest_step)
        return state

    def step(self, state: State, dt: float) -> State:
        lattice = _Lattice(dt, self.plane.dx, self.viscosity)
        collided = lattice.collided(state)
        moved = self._streamed(collided, lattice.collided(self._inflow(state)), lattice.collided(self._outflow(state)))
        return lattice.state(torch.where(self.goes_back, collided[:, BACK], moved)) * ~self.solid

    def fields(self, state: State) -> Float[Tensor, "member 2 z x"]:
        """Returns the velocities, zero in the cylinder."""
        return state[:, 1:3]

    def _inflow(self, state: State) -> State:
        """Returns what lies left of the plane: the velocity is given, the rest as beside it."""
        beside = state[..., :1].clone()
        beside[:, 1], beside[:, 2] = self.inflow, 0.0
        return beside

    def _outflow(self, state: State) -> State:
        """Returns what lies right of the plane: the pressure is given, the rest as beside it."""
        beside = state[..., -1:].clone()
        beside[:, 0] = 0.0
        return beside

    def _streamed(self, inside: Populations, left: Populations, right: Populations) -> Populations:
        wide = torch.cat([left, inside, right], dim=3)
        tall = torch.cat([wide[:, MIRRORED, :1], wide, wide[:, MIRRORED, -1:]], dim=2)
        rows, columns = inside.shape[2:]
        from_where = enumerate(zip(ACROSS, UP, strict=True))
        return torch.stack(
            [tall[:, n, 1 - up : 1 - up + rows, 1 - x : 1 - x + columns] for n, (x, up) in from_where], dim=1
        )


class _Lattice:
    """Makes populations of a state and the state of populations, for a time step.

    The unit of length is a cell, that of time the step, and the speed of sound the root of a third. Populations are
    sums of Hermite polynomials of their velocities up to the third order, whose third follows from the second.
    """

    def __init__(self, dt: float, dx: float, viscosity: Float[Tensor, "member 1 1 1"]) -> None:
        self.velocity, self.strain, self.pressure = dt / dx, dt, 3 * (dt / dx) ** 2
        self.relaxation = 3 * viscosity * dt / dx**2 + 0.5
        x, z, weight = (viscosity.new_tensor(each) for each in (ACROSS, UP, WEIGHTS))
        xx, zz = x * x - 1 / 3, z * z - 1 / 3
        self.moments = torch.stack([torch.ones_like(x), x, z, x * x, z * z, x * z])
        polynomials = [torch.ones_like(x), 3 * x, 3 * z, 4.5 * xx, 4.5 * zz, 9 * x * z, 13.5 * xx * z, 13.5 * zz * x]
        self.polynomials = weight * torch.stack(polynomials)

    def collided(self, state: State) -> Populations:
        """Returns the populations after a collision, in which the rate of strain has lost its share."""
        density = 1 + self.pressure * state[:, :1]
        u, w = (self.velocity * state[:, 1:3]).split(1, 1)
        stress = -2 / 3 * (self.relaxation - 1) * self.strain * density * state[:, 3:]
        along_x, along_z, between = stress.split(1, 1)
        coefficients = [
            density, density * u, density * w,
            density * u * u + along_x, density * w * w + along_z, density * u * w + between,
            density * u * u * w + w * along_x + 2 * u * between, density * u * w * w + u * along_z + 2 * w * between,
        ]  # fmt: skip
        return torch.einsum("mczx,cp->mpzx", torch.cat(coefficients, 1), self.polynomials)

    def state(self, populations: Populations) -> State:
        moments = torch.einsum("mpzx,cp->mczx", populations, self.moments)
        density, u, w = moments[:, :1], moments[:, 1:2] / moments[:, :1], moments[:, 2:3] / moments[:, :1]
        there = torch.cat([u * u + 1 / 3, w * w + 1 / 3, u * w], 1) * density
        strain = (moments[:, 3:] - there) / (-2 / 3 * self.relaxation * self.strain * density)
        return torch.cat([(density - 1) / self.pressure, u / self.velocity, w / self.velocity, strain], dim=1)


def draw(plane: Plane, rngs: Sequence[np.random.Generator], device: torch.device) -> CylinderWake:
    """Draws a cylinder, how fast it is met and by how viscous a fluid, and what disturbs the flow at first.

    Raises:
        ConfigError: cells are not square, which the method asks for.
    """
    if not np.isclose(plane.dx, plane.dz):
        raise ConfigError(
            f"cells of a cylinder's wake are squares, and {plane.nx} by {plane.nz} are not",
            key="nx", hint=f"use nx={2 * plane.nz}",
        )  # fmt: skip
    velocities, inflows, solids, viscosities = [], [], [], []
    for rng in rngs:
        speed, radius = rng.uniform(*SPEED), rng.uniform(*RADIUS)
        (x, z) = (rng.uniform(*place) for place in PLACE)
        viscosities.append(speed * 2 * radius / np.exp(rng.uniform(*np.log(REYNOLDS))))
        stream = Waves.draw(rng, MOST_WAVES, half_waves=True).mirrored(-1).with_fastest(DISTURBED * speed)
        u, w = stream.flow_on(plane)
        velocities.append(np.stack([u + speed, w]))
        inflows.append(speed)
        solids.append(np.hypot(plane.x - x, (plane.z - z)[:, None]) < radius)
    drawn = (velocities, inflows, solids, viscosities)
    velocity, inflow, solid, viscosity = (torch.tensor(np.array(values), device=device) for values in drawn)
    return CylinderWake(plane, velocity, inflow, solid, viscosity)


CYLINDER_WAKE = Physics(
    "Wakes of a cylinder",
    ("uwnd", "wwnd"),
    (OBSTACLE, "viscosity"),
    Boundary.of("open", "wall"),
    0.2,
    draw,
)
