"""Scales of a data set from its training trajectories, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from domains.fluids.amr.indicator_inputs import WINDS
from domains.fluids.data.datasets import Flows, Trajectory
from domains.fluids.data.schema import Scale

BLOCK = 64
"""Frames that are read together."""
ROUNDING = 1e-6
"""Spread of a constant over its mean below which it is the same everywhere."""


def measure(flows: Flows, strides: Sequence[int]) -> Scale:
    """Measures means, standard deviations, and those of increments over some numbers of frames, obstacles left out.

    A quantity that is the same everywhere has the standard deviation one, and one that never changes has increments
    of zero.
    """
    variables = flows.data_set.variables
    sums = np.zeros((3, len(variables)))  # count, sum, sum of squares
    changes = np.zeros((len(strides), 2, len(variables)))  # count, sum of squares
    for trajectory in flows.trajectories["train"]:
        fluid = ~trajectory.source.mask if trajectory.source.mask is not None else slice(None)
        for states, ahead in _blocks(trajectory, max(strides)):
            own = states[: len(states) - ahead]
            sums += _sums(own[..., fluid] if isinstance(fluid, np.ndarray) else own)
            for position, stride in enumerate(strides):
                starts = min(len(own), len(states) - stride)
                if starts > 0:
                    moved = states[stride : stride + starts] - states[:starts]
                    moved = moved[..., fluid] if isinstance(fluid, np.ndarray) else moved
                    changes[position] += _sums(moved)[[0, 2]]
    mean = sums[1] / sums[0]
    mean[[name in WINDS.values() for name in variables]] = 0
    variance = sums[2] / sums[0] - mean**2
    increments = np.sqrt(changes[:, 1] / np.maximum(changes[:, 0], 1))
    std = np.sqrt(np.maximum(variance, 0))
    std = torch.tensor(np.where(std > 0, std, 1.0), dtype=torch.float32)
    increment_std = torch.tensor(increments, dtype=torch.float32)
    seconds = torch.tensor([stride * flows.data_set.interval for stride in strides], dtype=torch.float64)
    mean_of_all = torch.tensor(mean, dtype=torch.float32)
    constants = _measure_constants(flows)
    return Scale(mean_of_all, std, seconds, increment_std, torch.tensor(flows.data_set.shape), *constants)


def _measure_constants(flows: Flows) -> tuple[Tensor, Tensor]:
    """Returns means and standard deviations of constants, over the plane and the training trajectories."""
    known = [flow.constants for flow in flows.trajectories["train"]]
    fields = [values.astype(np.float64).reshape(len(values), -1) for values in known if values is not None]
    if not fields:
        return torch.zeros(0), torch.ones(0)
    flat = np.concatenate(fields, axis=1)
    mean, std = flat.mean(1), flat.std(1)
    std = np.where(std > ROUNDING * np.abs(mean), std, 1.0)
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)


def _blocks(trajectory: Trajectory, overlap: int):
    """Yields frames in blocks, each with some of the next block behind it, and how many those are."""
    for first in range(0, len(trajectory), BLOCK):
        last = min(first + BLOCK, len(trajectory))
        ahead = min(overlap, len(trajectory) - last)
        yield trajectory.read(first, last + ahead).astype(np.float64), ahead


def _sums(values: np.ndarray) -> np.ndarray:
    """Returns count, sum and sum of squares of each variable, from (time, variable, ...)."""
    flat = values.swapaxes(0, 1).reshape(values.shape[1], -1)
    return np.stack([np.full(len(flat), flat.shape[1]), flat.sum(1), np.square(flat).sum(1)])
