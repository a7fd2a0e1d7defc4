"""Shallow water on a rotating plane: gravity waves and vortices of a layer, periodic along x, between walls along z.

Finite volumes: slopes limited by van Leer, fluxes of Harten, Lax and van Leer, three stages of Runge and Kutta. Depth
is conserved to rounding, and energy never grows.

Source: LeVeque (2002), Finite Volume Methods for Hyperbolic Problems, doi:10.1017/CBO9780511791253.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from domains.fluids.data.boundary import Boundary
from domains.fluids.physics.kind import Physics
from domains.fluids.physics.plane import Plane, Waves

GRAVITY = 1.0
"""With a mean depth of 1, waves travel one unit of length in one of time."""
COURANT = 0.4
FASTEST = 2.0
"""No wave with its flow is faster than this, for what is drawn."""
MOST_WAVES = 3.0
HEIGHT = (0.05, 0.25)
SPEED = (0.0, 0.4)
CORIOLIS = (0.0, 6.0)
GHOSTS = 2

State = Float[Tensor, "member 3 z x"]


class ShallowWater:
    """Steps depth and momenta (depth times velocity) along x and z.

    Args:
        start: depth and velocities.
        coriolis: parameter of each flow; the velocity turns right where it is positive.
        fastest: wave with its flow.
    """

    def __init__(self, plane: Plane, start: State, coriolis: Float[Tensor, "member"], fastest: float = FASTEST) -> None:
        self.plane = plane
        self.start = torch.cat([start[:, :1], start[:, :1] * start[:, 1:]], dim=1)
        self.turning = coriolis[:, None, None]
        self.constants = coriolis[:, None, None, None].expand(-1, 1, plane.nz, plane.nx)
        self.largest_step = COURANT * plane.smallest_cell / fastest

    def step(self, state: State, dt: float) -> State:
        first = state + dt * self._tendency(state)
        second = (3 * state + first + dt * self._tendency(first)) / 4
        return (state + 2 * (second + dt * self._tendency(second))) / 3

    def fields(self, state: State) -> State:
        """Returns depth and velocities."""
        return torch.cat([state[:, :1], state[:, 1:] / state[:, :1]], dim=1)

    def energy(self, state: State) -> Float[Tensor, "member"]:
        """Returns the mean of kinetic and potential energy, which never grows."""
        depth, momenta = state[:, 0], state[:, 1:]
        kinetic = momenta.square().sum(1) / (2 * depth)
        return (kinetic + GRAVITY * depth.square() / 2).mean((1, 2))

    def _tendency(self, state: State) -> State:
        fields = self.fields(state)
        ahead = _flux_differences(_periodic(fields)) / self.plane.dx
        # along z the velocities change places, so that the first of them is again the one across the edge
        turned = fields[:, (0, 2, 1)].transpose(2, 3)
        across = _flux_differences(_between_walls(turned))[:, (0, 2, 1)].transpose(2, 3) / self.plane.dz
        rotation = torch.stack(
            [torch.zeros_like(state[:, 0]), self.turning * state[:, 2], -self.turning * state[:, 1]], dim=1
        )
        return rotation - ahead - across


def _periodic(fields: State) -> State:
    return torch.cat([fields[..., -GHOSTS:], fields, fields[..., :GHOSTS]], dim=-1)


def _between_walls(fields: State) -> State:
    """Returns fields with their images in walls at both ends, in which the first velocity turns around."""
    signs = fields.new_tensor([1.0, -1.0, 1.0])[:, None, None]
    below, above = fields[..., :GHOSTS].flip(-1), fields[..., -GHOSTS:].flip(-1)
    return torch.cat([signs * below, fields, signs * above], dim=-1)


def _flux_differences(padded: State) -> State:
    """Returns what leaves each cell at its end along the last axis less what comes in at its start."""
    steps = padded.diff(dim=-1)
    before, after = steps[..., :-1], steps[..., 1:]
    product = before * after
    slope = torch.where(product > 0, 2 * product / torch.where(product > 0, before + after, 1.0), 0.0)
    cells = padded[..., 1:-1]
    left, right = (cells + slope / 2)[..., :-1], (cells - slope / 2)[..., 1:]
    return _flux(left, right).diff(dim=-1)


def _flux(left: State, right: State) -> State:
    """Returns the flux through edges of what is conserved, from the fields at both sides."""
    sides = []
    for depth, across, along in (left.unbind(1), right.unbind(1)):
        conserved = torch.stack([depth, depth * across, depth * along], dim=1)
        pressure = GRAVITY * depth.square() / 2
        flux = torch.stack([depth * across, depth * across.square() + pressure, depth * across * along], dim=1)
        sides.append((conserved, flux, across, (GRAVITY * depth).sqrt()))
    (low, low_flux, low_speed, low_wave), (high, high_flux, high_speed, high_wave) = sides
    slowest = torch.minimum(low_speed - low_wave, high_speed - high_wave).clamp(max=0)[:, None]
    fastest = torch.maximum(low_speed + low_wave, high_speed + high_wave).clamp(min=0)[:, None]
    return (fastest * low_flux - slowest * high_flux + slowest * fastest * (high - low)) / (fastest - slowest)


def draw(plane: Plane, rngs: Sequence[np.random.Generator], device: torch.device) -> ShallowWater:
    """Draws a surface that is level at the walls, and a flow along them."""
    starts, coriolis = [], []
    for rng in rngs:
        surface = Waves.draw(rng, MOST_WAVES, half_waves=True).mirrored(1).with_largest(rng.uniform(*HEIGHT))
        stream = Waves.draw(rng, MOST_WAVES, half_waves=True).mirrored(-1).with_fastest(rng.uniform(*SPEED))
        starts.append(np.stack([1 + surface.on(plane), *stream.flow_on(plane)]))
        coriolis.append(rng.uniform(*CORIOLIS))
    return ShallowWater(plane, torch.tensor(np.stack(starts), device=device), torch.tensor(coriolis, device=device))


SHALLOW_WATER = Physics(
    "Shallow water on a rotating plane between two walls",
    ("height", "uwnd", "wwnd"),
    ("coriolis",),
    Boundary.of("periodic", "wall"),
    0.1,
    draw,
)
