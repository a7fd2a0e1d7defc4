"""Says what a kind of physics is, and how flows of it are carried on from frame to frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from domains.fluids.data.boundary import Boundary
from domains.fluids.physics.plane import Plane
from sciml.core.errors import RunError


class Simulation(Protocol):
    """Steps the flows of a batch together, in float64; each as it would go alone.

    Attributes:
        largest_step: that is stable, whatever the flows of this kind do.
        constants: what does not change in time, in the order of the kind's names.
    """

    largest_step: float
    constants: Float[Tensor, "member constant z x"]

    @property
    def start(self) -> Shaped[Tensor, "member ..."]:
        """Returns the first state; its first axis is that of the flows."""
        ...

    def step(self, state: Shaped[Tensor, "member ..."], dt: float) -> Shaped[Tensor, "member ..."]:
        """Returns the state after a time."""
        ...

    def fields(self, state: Shaped[Tensor, "member ..."]) -> Float[Tensor, "member variable z x"]:
        """Returns the variables of a state."""
        ...


Draw = Callable[[Plane, Sequence[np.random.Generator], torch.device], Simulation]


@dataclass(frozen=True)
class Physics:
    """Describes flows of one kind, without units, on the plane of :mod:`domains.fluids.physics.plane`.

    Attributes:
        title: what they are.
        variables: names; velocities are ``uwnd`` and ``wwnd``, as in every data set.
        constants: names of what does not change in time.
        boundary: what is at the sides.
        interval: usual time between frames.
        draw: draws a flow for each random generator.
    """

    title: str
    variables: tuple[str, ...]
    constants: tuple[str, ...]
    boundary: Boundary
    interval: float
    draw: Draw


def run(simulation: Simulation, frames: int, interval: float) -> Iterator[Float[Tensor, "member variable z x"]]:
    """Yields the fields at the start and after each interval, which is cut into equal steps.

    Raises:
        RunError: a flow is not finite any more.
    """
    steps = math.ceil(interval / simulation.largest_step - 1e-9)
    state: Any = simulation.start
    yield simulation.fields(state)
    for frame in range(1, frames):
        for _ in range(steps):
            state = simulation.step(state, interval / steps)
        fields = simulation.fields(state)
        if not torch.isfinite(fields).all():
            raise RunError(f"a flow is not finite any more at t = {frame * interval:g}; choose a finer grid (nx, nz)")
        yield fields
