"""Gyres of an ocean basin between four walls, which the wind drives and the turning of the Earth leans to the west.

``dq/dt + u . grad(q) + beta * w = wind - friction * q + viscosity * Laplacian(q)`` with the vorticity ``q = dw/dx -
du/dz``, which is zero at the walls, as the flow across them is. Finite differences on the cells: Arakawa's Jacobian,
which keeps energy and enstrophy, and three stages of Runge and Kutta.

Sources: Veronis (1966), https://doi.org/10.1016/0011-7471(66)90003-9; Arakawa (1966),
https://doi.org/10.1016/0021-9991(66)90015-5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from domains.fluids.data.boundary import Boundary
from domains.fluids.physics.kind import Physics
from domains.fluids.physics.plane import HEIGHT, Plane, Waves
from domains.fluids.physics.spectral import planes

COURANT = 0.8
FASTEST = 1.6
"""No flow of what is drawn is faster than this."""
MOST_WAVES = 3.0
SPEED = (0.1, 0.6)
BETA = (3.0, 15.0)
WIND = (0.3, 1.5)
VISCOSITY = (2e-3, 6e-3)
FRICTION = 0.05

Planes = Float[Tensor, "member z x"]


class DoubleGyre:
    """Steps a vorticity.

    Args:
        start: vorticity.
        beta: how fast the planet's vorticity grows along z, of each flow.
        wind: by which the wind turns the water, its curl.
        viscosity: of each flow.
        friction: at the bottom.
        speed: that no flow exceeds.
    """

    def __init__(
        self,
        plane: Plane,
        start: Planes,
        beta: Float[Tensor, "member"],
        wind: Planes,
        viscosity: Float[Tensor, "member"],
        friction: float = FRICTION,
        speed: float = FASTEST,
    ) -> None:
        self.plane, self.start, self.wind, self.friction = plane, start, wind, friction
        self.beta, self.viscosity = beta[:, None, None], viscosity[:, None, None]
        self.constants = torch.cat([planes(beta, plane), wind[:, None], planes(viscosity, plane)], dim=1)
        self.largest_step = COURANT * plane.smallest_cell / speed
        waves_x, waves_z = np.fft.rfftfreq(2 * plane.nx), np.fft.fftfreq(2 * plane.nz)[:, None]
        squared = (2 * np.sin(np.pi * waves_x) / plane.dx) ** 2 + (2 * np.sin(np.pi * waves_z) / plane.dz) ** 2
        squared[0, 0] = 1.0  # a mean, which no vorticity has whose images in the walls turn the other way
        self.squared = torch.from_numpy(squared).to(start.device)

    def step(self, state: Planes, dt: float) -> Planes:
        first = state + dt * self._tendency(state)
        second = (3 * state + first + dt * self._tendency(first)) / 4
        return (state + 2 * (second + dt * self._tendency(second))) / 3

    def fields(self, state: Planes) -> Float[Tensor, "member 2 z x"]:
        """Returns the velocities."""
        stream = _with_images(self.stream(state))
        u = -(stream[:, 2:, 1:-1] - stream[:, :-2, 1:-1]) / (2 * self.plane.dz)
        return torch.stack([u, self._along_x(stream)], dim=1)

    def stream(self, state: Planes) -> Planes:
        """Returns the stream function ``p`` of a vorticity, with ``u = -dp/dz`` and ``w = dp/dx``."""
        there = torch.cat([state, -state.flip(2)], dim=2)
        waves = torch.fft.rfft2(torch.cat([there, -there.flip(1)], dim=1))
        whole = torch.fft.irfft2(-waves / self.squared, s=(2 * self.plane.nz, 2 * self.plane.nx))
        return whole[:, : self.plane.nz, : self.plane.nx]

    def energy(self, state: Planes) -> Float[Tensor, "member"]:
        """Returns the mean kinetic energy, which without wind, friction, viscosity and beta does not change."""
        return -(self.stream(state) * state).mean((1, 2)) / 2

    def _tendency(self, state: Planes) -> Planes:
        stream, vorticity = _with_images(self.stream(state)), _with_images(state)
        carried = _jacobian(stream, vorticity) / (self.plane.dx * self.plane.dz)
        spread = self.viscosity * self._laplacian(vorticity) - self.friction * state
        return self.wind + spread - carried - self.beta * self._along_x(stream)

    def _along_x(self, padded: Planes) -> Planes:
        return (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / (2 * self.plane.dx)

    def _laplacian(self, padded: Planes) -> Planes:
        along_x = padded[:, 1:-1].diff(n=2, dim=2) / self.plane.dx**2
        return along_x + padded[:, :, 1:-1].diff(n=2, dim=1) / self.plane.dz**2


def _with_images(field: Planes) -> Planes:
    """Returns a field that is zero at the walls, with the cells behind them."""
    field = torch.cat([-field[:, :, :1], field, -field[:, :, -1:]], dim=2)
    return torch.cat([-field[:, :1], field, -field[:, -1:]], dim=1)


def _jacobian(p: Planes, q: Planes) -> Planes:
    """Returns ``dp/dx dq/dz - dp/dz dq/dx`` times the area of a cell, by the mean of Arakawa's three forms."""

    def at(field: Planes, up: int, right: int) -> Planes:
        rows, columns = field.shape[1:]
        return field[:, 1 + up : rows - 1 + up, 1 + right : columns - 1 + right]

    east, west, north, south = (0, 1), (0, -1), (1, 0), (-1, 0)
    pe, pw, pn, ps = (at(p, *side) for side in (east, west, north, south))
    qe, qw, qn, qs = (at(q, *side) for side in (east, west, north, south))
    pne, pnw, pse, psw = (at(p, *corner) for corner in ((1, 1), (1, -1), (-1, 1), (-1, -1)))
    qne, qnw, qse, qsw = (at(q, *corner) for corner in ((1, 1), (1, -1), (-1, 1), (-1, -1)))
    plain = (pe - pw) * (qn - qs) - (pn - ps) * (qe - qw)
    by_p = pe * (qne - qse) - pw * (qnw - qsw) - pn * (qne - qnw) + ps * (qse - qsw)
    by_q = qn * (pne - pnw) - qs * (pse - psw) - qe * (pne - pse) + qw * (pnw - psw)
    return (plain + by_p + by_q) / 12


def draw(plane: Plane, rngs: Sequence[np.random.Generator], device: torch.device) -> DoubleGyre:
    """Draws a flow along the walls, and a wind that turns the lower half one way and the upper half the other."""
    starts, betas, winds, viscosity = [], [], [], []
    for rng in rngs:
        stream = Waves.draw(rng, MOST_WAVES, half_waves=True).mirrored(-1).with_fastest(rng.uniform(*SPEED))
        starts.append(stream.laplacian().on(plane) * np.sin(np.pi * plane.x / (plane.nx * plane.dx)))
        betas.append(rng.uniform(*BETA))
        winds.append(rng.uniform(*WIND) * rng.choice([-1, 1]) * np.sin(2 * np.pi * plane.z / HEIGHT))
        viscosity.append(np.exp(rng.uniform(*np.log(VISCOSITY))))
    numbers = (torch.tensor(values, device=device) for values in (betas, viscosity))
    beta, viscous = numbers
    start = torch.tensor(np.stack(starts), device=device)
    wind = torch.tensor(np.stack(winds), device=device)[:, :, None].expand_as(start)
    return DoubleGyre(plane, start, beta, wind, viscous)


DOUBLE_GYRE = Physics(
    "Two gyres of an ocean basin, driven by the wind",
    ("uwnd", "wwnd"),
    ("beta", "wind_curl", "viscosity"),
    Boundary.of("wall", "wall"),
    0.2,
    draw,
)
