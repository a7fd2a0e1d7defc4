"""Fits a propagator to the training flows by least squares, and measures what it leaves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from domains.fluids.data.datasets import Flows, Trajectory
from domains.fluids.data.mirror import can_be_mirrored
from domains.fluids.data.schema import DataSet, Scale
from domains.fluids.propagator.propagator import Propagator
from sciml.nn.topology import Side

STAGES = 2
"""Times that it acts in a step."""
PENALTIES = (1e-2, 1e-1, 1.0, 10.0)
"""What the squares of matrices may cost, over the mean power of what they act on; that which is best on flows that
were not fitted is taken. With less, one step is better by a twentieth, and fifty are off by twice as much.
"""
BLOCK = 32
"""Frames that are read together."""
MOST_CELLS, LEAST_PAIRS, HELD_OUT = 16_000_000, 128, 64
"""Cells of the pairs of states that are fitted at most, unless these are fewer pairs than that; pairs that judge."""
LEAST = 0.01
"""Mean square of a pair's increments, over that of all, below which the pair counts no more than as much."""
WORTH = 0.9
"""Largest error of a step, over that of persistence, with which a propagator is worth having."""

Pairs = tuple[Float[Tensor, "batch variable z x"], Float[Tensor, "batch variable z x"]]


@dataclass(frozen=True)
class HeldOut:
    """Selects the pairs of states that decide what is worth having.

    Attributes:
        trajectories: of the validation split; of the training where there is none.
        stride: frames from a state to the next.
        increment_std: of each variable, over such a step.
    """

    trajectories: Sequence[Trajectory]
    stride: int
    increment_std: Float[Tensor, "variable"]

    def error(self, step: Propagator) -> Float[Tensor, "variable"]:
        """Returns the root mean square of what a step leaves of each variable, over that of its increments."""
        moved, _, left = self._sums(step)
        return torch.where(moved > 0, (left / moved).sqrt(), 1.0).float()

    def gain(self, step: Propagator) -> Float[Tensor, "variable"]:
        """Returns the share of a step's changes, from 0 to 1, that leaves the least of each variable."""
        moved, along, left = self._sums(step)
        own = left - moved + 2 * along  # of the step's changes
        return torch.where(own > 0, along / own, 0.0).clamp(0, 1).float()

    def _sums(self, step: Propagator) -> Float[Tensor, "3 variable"]:
        """Returns mean squares of increments, means of increments by the step's, and mean squares of what it leaves."""
        sums = torch.zeros(3, len(step.std), dtype=torch.float64)
        for before, after in _pairs(self.trajectories, self.stride, HELD_OUT):
            seconds = torch.full((len(before),), self.stride * step.data_set.interval)
            made, moved = step(before, seconds, float(seconds[0])) - before, after - before
            weights = weights_of(moved, self.increment_std)
            each = (moved.square(), moved * made, (moved - made).square())
            sums += torch.stack([weights @ values.double().mean((2, 3)) for values in each])
        return sums


@torch.no_grad()
def fit_propagator(flows: Flows, scale: Scale, strides: Sequence[int], *, mirrored: bool) -> Scale:
    """Returns a scale with the propagator of a data set and with what it leaves, or without one worth having.

    Args:
        strides: frames of the steps that are learned; it makes the step by which all of them are reached.
        mirrored: whether mirror images along x are as likely, where no constant of the flows says otherwise.
    """
    base, data_set = math.gcd(*strides), flows.data_set
    if not any(len(trajectory) > base for trajectory in flows.trajectories["train"]):
        return scale
    judges = flows.trajectories["valid"] or flows.trajectories["train"]
    increment_std = scale.increments_over(torch.tensor([base * data_set.interval]))[0, :, 0, 0]
    held_out = HeldOut(judges, base, increment_std)
    step = Propagator.unfitted(data_set, scale, base * data_set.interval)
    images = mirrored and data_set.boundary.x[0] is Side.PERIODIC and can_be_mirrored(data_set.constants)
    for stage in range(STAGES):
        candidates = _solved(step, flows.trajectories["train"], base, increment_std, mirrored=images)
        before = [step.matrices] if stage else []
        tried = [replace(step, matrices=torch.cat([*before, found[None]])) for found in candidates]
        errors = [float(held_out.error(each).mean()) for each in tried]
        step = tried[int(np.argmin(np.nan_to_num(errors, nan=np.inf)))]
    step = replace(step, gain=held_out.gain(step))
    if not float(held_out.error(step).mean()) < WORTH:
        return scale
    left = [replace(held_out, stride=stride).error(step) for stride in strides]
    return replace(
        scale,
        propagator=step.matrices.half(),
        propagator_gain=step.gain,
        propagator_seconds=torch.tensor(step.seconds, dtype=torch.float64),
        left_by_propagator=torch.stack(left),
    )


def with_zero_propagator(data_set: DataSet, scale: Scale, strides: Sequence[int]) -> Scale:
    """Returns a scale with a propagator of the shape that a fitted one has, for plans."""
    seconds = math.gcd(*strides) * data_set.interval
    step = Propagator.unfitted(data_set, scale, seconds)
    waves, numbers = step.waves.shape
    inputs, outputs = step.num_inputs * numbers, len(data_set.variables) * numbers
    return replace(
        scale,
        propagator=torch.zeros(STAGES, waves, inputs, outputs, 2, dtype=torch.float16),
        propagator_gain=step.gain,
        propagator_seconds=torch.tensor(seconds, dtype=torch.float64),
        left_by_propagator=torch.ones(len(strides), len(data_set.variables)),
    )


def _solved(
    step: Propagator,
    trajectories: Sequence[Trajectory],
    stride: int,
    increment_std: Float[Tensor, "variable"],
    *,
    mirrored: bool,
) -> list[Float[Tensor, "wave _input _output 2"]]:
    """Returns the matrices of the stage behind those that a propagator has, one for each penalty."""
    waves, squares, products = step.waves, torch.zeros(()), torch.zeros(())
    most = max(LEAST_PAIRS, MOST_CELLS // math.prod(step.data_set.shape))
    for before, after in _pairs(trajectories, stride, most):
        carried, inputs = step.inputs(before, step.step(before))
        known, wanted = waves.of(inputs), waves.of(step.on_grid(after - carried))
        roots = weights_of(after - before, increment_std).sqrt()[None, :, None]
        known, wanted = known * roots, wanted * roots  # in double precision: means may exceed what changes by far
        squares = squares + known.mH @ known
        products = products + known.mH @ wanted
    if mirrored:
        squares, products = squares + waves.mirrored(squares), products + waves.mirrored(products)
    power = torch.diagonal(squares, dim1=1, dim2=2).real
    # of each set of inputs, without the wave that never changes: means are no measure of what does
    sets = [part[1:].mean().expand_as(part) for part in power.split(products.shape[2], dim=1)]
    scale = torch.cat(sets, dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    return [_ridge(squares, products, penalty * scale) for penalty in PENALTIES]


def weights_of(
    moved: Float[Tensor, "batch variable z x"], increment_std: Float[Tensor, "variable"]
) -> Float[Tensor, "batch"]:
    """Returns how much each pair counts, so that gentle flows count as much as violent ones."""
    return 1 / ((moved / increment_std[:, None, None]).square().mean((1, 2, 3)) + LEAST).double()


def _ridge(
    squares: Complex[Tensor, "wave _input _input"],
    products: Complex[Tensor, "wave _input _output"],
    penalty: Float[Tensor, "wave _input"],
) -> Float[Tensor, "wave _input _output 2"]:
    factor = torch.linalg.cholesky(squares + torch.diag_embed(penalty).to(squares.dtype))
    return torch.view_as_real(torch.cholesky_solve(products, factor).to(torch.complex64))


def _pairs(trajectories: Sequence[Trajectory], stride: int, most: int) -> Iterator[Pairs]:
    """Yields states and those a stride later, evenly chosen, in blocks."""
    total = sum(max(0, len(trajectory) - stride) for trajectory in trajectories)
    every = max(1, -(-total // most))
    offset = 0
    for trajectory in trajectories:
        starts = range(-offset % every, len(trajectory) - stride, every)
        offset += max(0, len(trajectory) - stride)
        together = max(1, BLOCK // every)
        for first in range(0, len(starts), together):
            chosen = starts[first : first + together]
            states = trajectory.read(chosen[0], chosen[-1] + stride + 1)
            at = np.array(chosen) - chosen[0]
            yield torch.from_numpy(states[at]), torch.from_numpy(states[at + stride])
