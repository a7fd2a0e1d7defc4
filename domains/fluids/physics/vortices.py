"""Vortices of an incompressible fluid in two dimensions that merge and decay, by their vorticity.

``dq/dt + u . grad(q) = viscosity * Laplacian(q)`` with ``q = dw/dx - du/dz``, periodic: Navier and Stokes' equations
without their pressure.
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
from domains.fluids.physics.spectral import DiffusingFlow, Spectrum, planes

MOST_WAVES = 4.0
SPEED = (0.5, 1.0)
VISCOSITY = (1e-3, 4e-3)
FASTEST = 1.5
"""Energy only falls, but vortices that meet may be faster for a while than any was at the start."""


class Vortices(DiffusingFlow):
    """Steps a vorticity.

    Args:
        start: vorticity; its mean has no flow and must be zero.
        viscosity: of each flow.
        speed: that no flow exceeds.
    """

    def __init__(
        self,
        plane: Plane,
        start: Float[Tensor, "member 1 z x"],
        viscosity: Float[Tensor, "member"],
        speed: float = FASTEST,
    ) -> None:
        super().__init__(plane, start, viscosity, self._carried, speed)
        self.constants = planes(viscosity, plane)

    def _carried(self, state: Spectrum) -> Spectrum:
        (u, w), (along_x, along_z) = self.waves.flow(state), self.waves.slopes(state)
        return self.waves.spectrum(-u * along_x - w * along_z)

    def fields(self, state: Spectrum) -> Float[Tensor, "member 2 z x"]:
        return torch.cat(self.waves.flow(state), dim=1)

    def enstrophy(self, state: Spectrum) -> Float[Tensor, "member"]:
        """Returns half the mean square of the vorticity, which falls."""
        return self.waves.fields(state).square().mean((1, 2, 3)) / 2


def draw(plane: Plane, rngs: Sequence[np.random.Generator], device: torch.device) -> Vortices:
    starts, viscosity = [], []
    for rng in rngs:
        stream = Waves.draw(rng, MOST_WAVES).with_fastest(rng.uniform(*SPEED))
        starts.append(stream.laplacian().on(plane)[None])
        viscosity.append(np.exp(rng.uniform(*np.log(VISCOSITY))))
    start = torch.tensor(np.stack(starts), device=device)
    return Vortices(plane, -start, torch.tensor(viscosity, device=device))


VORTICES = Physics(
    "Vortices of an incompressible fluid in a periodic plane",
    ("uwnd", "wwnd"),
    ("viscosity",),
    Boundary.of("periodic", "periodic"),
    0.2,
    draw,
)
