"""From the keys of a simulation to flows of a kind of physics: what they have in common, and their frames."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from domains.fluids.data.boundary import OBSTACLE
from domains.fluids.data.writers.ensemble import Layout
from domains.fluids.physics import PHYSICS, Plane, Simulation, run
from domains.fluids.solver.simulate_config import SimulateConfig
from sciml.core.seeding import seed_of


def frames_of(
    config: SimulateConfig, device: torch.device, first: int, last: int
) -> Iterator[Float[Tensor, "member variable z x"]]:
    """Yields the fields of the flows with numbers from ``first`` up to ``last``, frame by frame."""
    drawn = _drawn(config, device, first, last)
    for fields in run(drawn, len(config.times), config.frame_interval):
        yield _coarsened(fields, config.coarsen)


def layout_of_physics(config: SimulateConfig) -> Layout:
    """Returns what the flows have in common, and the constants of all of them."""
    kind, plane = PHYSICS[config.physics], Plane(config.nx // config.coarsen, config.nz // config.coarsen)
    constants = []
    for first in range(0, config.count, config.batch):
        drawn = _drawn(config, torch.device("cpu"), first, min(first + config.batch, config.count))
        constants.append(_coarsened(drawn.constants, config.coarsen).numpy().astype(np.float32))
    values = np.concatenate(constants)
    by_name = {name: values[:, number] for number, name in enumerate(kind.constants)}
    if OBSTACLE in by_name:  # a cell that is half of it is no fluid
        by_name[OBSTACLE] = np.round(by_name[OBSTACLE] + 1e-6)
    return Layout(config.count, kind.variables, plane.z, plane.x, kind.boundary, constants=by_name, units=("", ""))


def _drawn(config: SimulateConfig, device: torch.device, first: int, last: int) -> Simulation:
    """Draws flows by their numbers; the same at any time and in any company."""
    rngs = [np.random.default_rng(seed_of(config.seed, config.physics, number)) for number in range(first, last)]
    return PHYSICS[config.physics].draw(Plane(config.nx, config.nz), rngs, device)


def _coarsened(fields: Float[Tensor, "member field z x"], factor: int) -> Float[Tensor, "member field _z _x"]:
    return fields if factor == 1 else F.avg_pool2d(fields, factor)
