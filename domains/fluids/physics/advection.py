"""A tracer that a steady flow carries and that diffuses: ``dc/dt + u . grad(c) = diffusivity * Laplacian(c)``.

The flow is random and free of divergence; it is given beside the tracer, as a constant. Periodic.
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

TRACER_WAVES, FLOW_WAVES = 3.0, 2.0
SPEED = (0.4, 1.0)
DIFFUSIVITY = (5e-4, 5e-3)


class Advection(DiffusingFlow):
    """Steps a tracer.

    Args:
        start: the tracer.
        flow: velocities along x and z that stay.
        diffusivity: of each flow.
        speed: that no flow exceeds.
    """

    def __init__(
        self,
        plane: Plane,
        start: Float[Tensor, "member 1 z x"],
        flow: Float[Tensor, "member 2 z x"],
        diffusivity: Float[Tensor, "member"],
        speed: float = SPEED[1],
    ) -> None:
        super().__init__(plane, start, diffusivity, self._carried, speed)
        self.flow = flow
        self.constants = torch.cat([flow, planes(diffusivity, plane)], dim=1)

    def _carried(self, state: Spectrum) -> Spectrum:
        along_x, along_z = self.waves.slopes(state)
        return self.waves.spectrum(-self.flow[:, :1] * along_x - self.flow[:, 1:] * along_z)

    def fields(self, state: Spectrum) -> Float[Tensor, "member 1 z x"]:
        return self.waves.fields(state)


def draw(plane: Plane, rngs: Sequence[np.random.Generator], device: torch.device) -> Advection:
    starts, flows, diffusivity = [], [], []
    for rng in rngs:
        starts.append(Waves.draw(rng, TRACER_WAVES).with_largest(1.0).on(plane)[None])
        flows.append(np.stack(Waves.draw(rng, FLOW_WAVES).with_fastest(rng.uniform(*SPEED)).flow_on(plane)))
        diffusivity.append(np.exp(rng.uniform(*np.log(DIFFUSIVITY))))
    start, flow = (torch.tensor(np.stack(values), device=device) for values in (starts, flows))
    return Advection(plane, start, flow, torch.tensor(diffusivity, device=device))


ADVECTION = Physics(
    "A tracer in a steady flow in a periodic plane",
    ("tracer",),
    ("uwnd", "wwnd", "diffusivity"),
    Boundary.of("periodic", "periodic"),
    0.2,
    draw,
)
