"""Scales of a data set from its training trajectories, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from domains.fluids.amr.indicator_inputs import WINDS
from domains.fluids.data.datasets import Flows, Trajectory
from domains.fluids.data.schema import Scale

BLOCK = 64
"""Frames that are read together."""


def measure(flows: Flows, strides: Sequence[int]) -> Scale:
    """Measures means, standard deviations, and those of increments over some numbers of frames, obstacles left out.

    A quantity that never changes has the standard deviation one.
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
    scales = (np.where(values > 0, values, 1.0) for values in (np.sqrt(np.maximum(variance, 0)), increments))
    std, increment_std = (torch.tensor(values, dtype=torch.float32) for values in scales)
    seconds = torch.tensor([stride * flows.data_set.interval for stride in strides], dtype=torch.float64)
    mean_of_all = torch.tensor(mean, dtype=torch.float32)
    return Scale(mean_of_all, std, seconds, increment_std, torch.tensor(flows.data_set.shape))


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
