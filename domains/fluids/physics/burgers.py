"""Burgers' equation in two dimensions: a velocity that carries itself, steepens into fronts, and diffuses.

``du/dt + (u . grad) u = viscosity * Laplacian(u)``, periodic. Without vorticity, Hopf and Cole's transform solves it
exactly: ``u = -2 viscosity grad(log(theta))``, where ``theta`` only diffuses.
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

MOST_WAVES = 2.0
SPEED = (0.4, 0.8)
VISCOSITY = (0.02, 0.06)
"""Fronts as thick as some cells of a grid of 64x32."""


class Burgers(DiffusingFlow):
    """Steps velocities along x and z.

    Args:
        start: velocities.
        viscosity: of each flow.
        speed: that no component exceeds; none grows.
    """

    def __init__(
        self,
        plane: Plane,
        start: Float[Tensor, "member 2 z x"],
        viscosity: Float[Tensor, "member"],
        speed: float = SPEED[1],
    ) -> None:
        super().__init__(plane, start, viscosity, self._carried, speed)
        self.constants = planes(viscosity, plane)

    def _carried(self, state: Spectrum) -> Spectrum:
        velocity, (along_x, along_z) = self.waves.fields(state), self.waves.slopes(state)
        return self.waves.spectrum(-velocity[:, :1] * along_x - velocity[:, 1:] * along_z)

    def fields(self, state: Spectrum) -> Float[Tensor, "member 2 z x"]:
        return self.waves.fields(state)


def draw(plane: Plane, rngs: Sequence[np.random.Generator], device: torch.device) -> Burgers:
    """Draws both components apart from one another, so that flows converge and rotate."""
    starts, viscosity = [], []
    for rng in rngs:
        parts = [Waves.draw(rng, MOST_WAVES).with_largest(rng.uniform(*SPEED)).on(plane) for _ in range(2)]
        starts.append(np.stack(parts))
        viscosity.append(np.exp(rng.uniform(*np.log(VISCOSITY))))
    return Burgers(plane, torch.tensor(np.stack(starts), device=device), torch.tensor(viscosity, device=device))


BURGERS = Physics(
    "Burgers' equation in a periodic plane",
    ("uwnd", "wwnd"),
    ("viscosity",),
    Boundary.of("periodic", "periodic"),
    0.1,
    draw,
)
