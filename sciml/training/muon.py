"""Muon: steps of orthogonal matrices for the trunk, AdamW for everything else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from sciml.parallel.data import local
from sciml.parallel.placement import Parts

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.AdamW):
    """Moves a matrix along the orthogonal matrix nearest to its momentum; other parameters as AdamW does.

    A matrix that is cut over ranks is put together for it: each rank is handed some matrices whole, makes them
    orthogonal, and hands every rank its part of the result. So a step is that of one process on any mesh, no rank has
    more whole matrices at a time than its share of all, and the momentum is cut as the parameter is.

    Steps are scaled by 0.2 sqrt(largest dim), to the size of AdamW's, so that one learning rate serves both.
    Orthogonalization is in the precision of the parameters, and not in bfloat16 as torch.optim.Muon's, whose rounding
    would make trainings on two meshes differ.

    Source: Jordan et al. (2024), https://kellerjordan.github.io/posts/muon; Liu et al. (2025),
    https://doi.org/10.48550/arXiv.2502.16982 (scale).

    A scalar ``found_inf`` above 0, which torch's gradient scalers set on fused optimizers, leaves weights as they are.

    Args:
        groups: of parameters, with their ``rule`` and ``fragments`` as :class:`OptimizerSpec` gives them.
        momentum: decay of the average of gradients that matrices follow, with Nesterov's look ahead.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], *, momentum: float, **adamw: Any) -> None:
        super().__init__(groups, **adamw)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Updates all parameters that have gradients."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["rule"].needs_whole_matrices]
        super().step()
        self.param_groups = groups
        for group in groups:
            if group["rule"].needs_whole_matrices:
                self._update_matrices(group)

    def _update_matrices(self, group: dict[str, Any]) -> None:
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        kept = 1 - group["lr"] * group["weight_decay"]
        for parameter, steps in self._directions(group):
            matrix = local(parameter)
            decay: float | Tensor = kept
            if found_inf is not None:
                skip = found_inf > 0
                decay = torch.full((), kept, dtype=matrix.dtype, device=matrix.device).masked_fill_(skip, 1.0)
                steps = steps.masked_fill_(skip, 0.0)
            matrix.mul_(decay).add_(steps, alpha=-group["lr"])

    def _directions(self, group: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
        """Returns parameters, or other tensors that hold parts of matrices, and the steps to take."""
        updates: list[tuple[Tensor, Tensor]] = []
        parts: list[Tensor] = []
        shared: list[Parts] = []
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            update = self._followed(parameter).reshape(-1)
            updates.append((parameter, update))
            for fragment in group["fragments"][parameter]:
                size = fragment.parts.sizes[group_rank(fragment.parts)]
                parts.append(update[fragment.first : fragment.first + size])
                shared.append(fragment.parts)
        for part, step in zip(parts, orthogonal_parts(parts, shared, group["rule"].iterations), strict=True):
            part.copy_(step)
        return [(parameter, update.view_as(local(parameter))) for parameter, update in updates]

    def _followed(self, parameter: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Returns this rank's part of what is made orthogonal: the gradient on the way to the momentum's next value."""
        assert parameter.grad is not None
        state, gradient = self.state[parameter], local(parameter.grad)
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        average = local(state["momentum_buffer"]).lerp_(gradient, 1 - self.momentum)
        return gradient.lerp(average, self.momentum).contiguous()


def group_rank(parts: Parts) -> int:
    """Returns this process's rank among those that share a matrix."""
    return 0 if parts.group is None else parts.group.rank()


def orthogonal_parts(parts: Sequence[Tensor], placements: Sequence[Parts], iterations: int) -> list[Tensor]:
    """Returns this rank's parts of the orthogonal matrices nearest to some matrices, scaled to the size of a step.

    Args:
        parts: this rank's parts of the matrices, flattened.
        placements: how each is shared by ranks; all ranks that share one call this with the same, in the same order.
    """
    steps: list[Tensor] = [torch.empty(0)] * len(parts)
    groups: dict[dist.ProcessGroup | None, list[int]] = {}
    for number, placement in enumerate(placements):
        groups.setdefault(placement.group, []).append(number)
    for group, numbers in groups.items():
        own = [parts[n] for n in numbers], [placements[n] for n in numbers]
        for number, part in zip(numbers, _of_group(*own, iterations, group), strict=True):
            steps[number] = part.reshape(-1)
    return steps


def _of_group(
    parts: Sequence[Tensor], placements: Sequence[Parts], iterations: int, group: dist.ProcessGroup | None
) -> list[Tensor]:
    """Does the same for matrices that one group of ranks shares, each of which makes some of them orthogonal."""
    if group is None:
        # Flattened here, so that a tall matrix is not there twice when the next one is made orthogonal.
        return [
            p.split(orthogonal(p.join([part]), iterations))[0].reshape(-1)
            for part, p in zip(parts, placements, strict=True)
        ]
    rank, ranks = group.rank(), range(group.size())
    sizes = [placement.sizes for placement in placements]
    shares = shared_evenly([sum(size) for size in sizes], group.size())
    # To each rank this one's parts of the matrices that are its own; and the way back.
    there = [sum(sizes[n][rank] for n in shares[other]) for other in ranks]
    back = [sum(sizes[n][other] for n in shares[rank]) for other in ranks]
    sent = torch.cat([parts[n].reshape(-1) for share in shares for n in share])
    received = [_cut(flat, [sizes[n][other] for n in shares[rank]])
                for other, flat in enumerate(_exchange(sent, there, back, group).split(back))]  # fmt: skip
    results: list[list[Tensor]] = [[] for _ in ranks]
    for position, number in enumerate(shares[rank]):
        whole = orthogonal(placements[number].join([of_rank[position] for of_rank in received]), iterations)
        for other, part in enumerate(placements[number].split(whole)):
            results[other].append(part.reshape(-1))
    flat = torch.cat([part for of_rank in results for part in of_rank]) if shares[rank] else sent.new_empty(0)
    order = [number for share in shares for number in share]
    own = dict(zip(order, _cut(_exchange(flat, back, there, group), [sizes[n][rank] for n in order]), strict=True))
    return [own[number] for number in range(len(parts))]


def _cut(flat: Float[Tensor, "element"], sizes: list[int]) -> list[Tensor]:
    return list(flat.split(sizes)) if sizes else []


def _exchange(
    sent: Float[Tensor, "sent"], sizes: list[int], received: list[int], group: dist.ProcessGroup
) -> Float[Tensor, "received"]:
    """Sends every rank of a group a stretch of a vector, and receives one from each."""
    result = sent.new_empty(sum(received))
    dist.all_to_all_single(result, sent, received, sizes, group=group)
    return result


def shared_evenly(sizes: Sequence[int], ranks: int) -> list[list[int]]:
    """Returns numbers of items for each rank: the largest first, each to the rank that has least so far."""
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for number in sorted(range(len(sizes)), key=lambda n: -sizes[n]):
        least = loads.index(min(loads))
        shares[least].append(number)
        loads[least] += sizes[number]
    return shares


def orthogonal(matrix: Float[Tensor, "row *column"], iterations: int) -> Float[Tensor, "row *column"]:
    """Returns a matrix with the singular vectors of another and singular values near 1, times 0.2 sqrt(largest dim).

    The kernels of a convolution are a matrix from all inputs of an output to it. Newton-Schulz iteration with
    coefficients that reach the neighborhood of 1 fast and stay there without converging.
    """
    if matrix.ndim > 2:
        return orthogonal(matrix.flatten(1), iterations).view_as(matrix)
    a, b, c = COEFFICIENTS
    x = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x * (0.2 * math.sqrt(max(matrix.shape)))
    return x if len(matrix) <= matrix.shape[1] else x.T
