"""A simulation from its start to its end, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from domains.fluids.solver.cases import Flow
from domains.fluids.solver.grid import SolverGrid
from domains.fluids.solver.step import Solver, block_mean
from sciml.core.errors import RunError

VARIABLES = ("dens", "uwnd", "wwnd", "theta")
"""Perturbation of density (kg/m^3), winds along x and z (m/s), perturbation of potential temperature (K)."""


@dataclass(frozen=True)
class Frame:
    """Holds all members at one time.

    Attributes:
        time: s.
        fields: in the order of ``VARIABLES``.
    """

    time: float
    fields: Float[Tensor, "member 4 z x"]


def run(
    flows: Sequence[Flow],
    grid: SolverGrid,
    steps: Iterable[tuple[float, float, bool]],
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    compiled: bool = False,
    native: bool = True,
    coarsen: int = 1,
) -> Iterator[Frame]:
    """Simulates flows together.

    Args:
        flows: one a member; cases may be mixed.
        steps: step, time after it and whether a frame is wanted, as a :class:`Schedule` gives them.
        dtype: float64 or float32.
        compiled, native: see :class:`Solver`.
        coarsen: cells along each axis that are averaged into one of a frame; it divides the grid.

    Yields:
        The start, and every frame that is wanted.

    Raises:
        RunError: a member became infinite or not a number.
    """
    solver = Solver(flows, grid, dtype=dtype, device=torch.device(device), compiled=compiled, native=native)
    view = solver.coarsened(coarsen)
    state = solver.start()
    yield Frame(0.0, view.fields(block_mean(state, coarsen)))
    for number, (step, time, wanted) in enumerate(steps):
        state = solver.step(state, step, number)
        if wanted:
            fields = view.fields(block_mean(state, coarsen))
            _check_finite(fields, flows, time)
            yield Frame(time, fields)


def _check_finite(fields: Float[Tensor, "member 4 z x"], flows: Sequence[Flow], time: float) -> None:
    broken = ~torch.isfinite(fields).flatten(1).all(1)
    if broken.any():
        flow = flows[int(np.argmax(broken.cpu().numpy()))]
        raise RunError(f"the flow is not finite any more at {time:.1f} s; make it weaker: {flow}")
