"""Collectives that autograd knows, differentiable any number of times.

They come in pairs, and the backward pass of each applies the other, here on the right: a force is itself a gradient,
and the loss of a force differentiates through these backward passes again. A group of None is this process alone, and
all are then the identity.

    copy_to_region     replicated, for ranks that compute different things       | all_reduce
    all_reduce         partial sums to their total on every rank                 | copy_to_region
    scatter            replicated to a part of it on each rank                   | gather_replicated
    gather_replicated  parts to the whole, from which ranks compute the same     | scatter
    all_gather         parts to the whole, from which ranks compute what differs | reduce_scatter
    reduce_scatter     partial sums to a part of their total on each rank        | all_gather
    all_to_all         cut along one dim to cut along another                    | all_to_all, the other way
    exchange_rows      rows for other ranks to rows from other ranks             | exchange_rows, the other way

Source: Shoeybi et al. (2019), https://doi.org/10.48550/arXiv.1909.08053 (copy, reduce); Korthikanti et al. (2022),
https://doi.org/10.48550/arXiv.2205.05198 (all_gather, reduce_scatter); Jacobs et al. (2023),
https://doi.org/10.48550/arXiv.2309.14509 (all_to_all).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from sciml.distributed.not_compiled import NotCompiled

Group = dist.ProcessGroup | None
Map = Callable[..., Tensor]
Keep = Callable[[Callable[[], Tensor]], Tensor]
"""Calls a function that sends a message, or returns what that returned when a pass was made for the first time."""

BUCKET_BYTES = 64 * 2**20

# torch 2.13 renamed both and warns of the old names.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def copy_to_region(x: Shaped[Tensor, "*shape"], group: Group) -> Shaped[Tensor, "*shape"]:
    """Returns a replicated tensor, for ranks that compute different things with it."""
    return _mapped(x, group, _same, _sum)


def all_reduce(x: Shaped[Tensor, "*shape"], group: Group, keep: Keep | None = None) -> Shaped[Tensor, "*shape"]:
    """Returns the sum of the ranks' tensors, on every rank."""
    return _mapped(x, group, _sum if keep is None else partial(_kept, there=_sum, keep=keep), _same)


def scatter(x: Shaped[Tensor, "..."], dim: int, group: Group) -> Shaped[Tensor, "..."]:
    """Returns this rank's part of a replicated tensor; the group's size divides the dim."""
    return _mapped(x, group, partial(_part, dim=dim), partial(_joined, dim=dim))


def gather_replicated(x: Shaped[Tensor, "..."], dim: int, group: Group) -> Shaped[Tensor, "..."]:
    """Returns the ranks' parts joined along a dim; every rank must go on to compute the same."""
    return _mapped(x, group, partial(_joined, dim=dim), partial(_part, dim=dim))


def all_gather(x: Shaped[Tensor, "..."], dim: int, group: Group) -> Shaped[Tensor, "..."]:
    """Returns the ranks' parts joined along a dim, for ranks that compute different things with the whole."""
    return _mapped(x, group, partial(_joined, dim=dim), partial(_scattered, dim=dim))


@torch.no_grad()
def start_all_gather(x: Shaped[Tensor, "..."], dim: int, group: dist.ProcessGroup) -> Callable[[], Tensor]:
    """Starts to join the ranks' parts along a dim, beside what is computed meanwhile and without a gradient.

    Returns:
        Waits for the whole and returns it.
    """
    own = _first(x, dim).contiguous()
    parts = own.new_empty(group.size() * len(own), *own.shape[1:])
    work = _all_gather(parts, own, group=group, async_op=True)

    def whole() -> Shaped[Tensor, "..."]:
        work.wait()
        return parts.movedim(0, dim).contiguous()

    return whole


def reduce_scatter(x: Shaped[Tensor, "..."], dim: int, group: Group, keep: Keep | None = None) -> Shaped[Tensor, "..."]:
    """Returns this rank's part of the sum of the ranks' tensors; the group's size divides the dim."""
    there: Map = partial(_scattered, dim=dim)
    return _mapped(
        x, group, there if keep is None else partial(_kept, there=there, keep=keep), partial(_joined, dim=dim)
    )


def all_to_all(x: Shaped[Tensor, "..."], cut: int, join: int, group: Group) -> Shaped[Tensor, "..."]:
    """Turns parts along dim ``join`` into parts along dim ``cut``, which the group's size divides."""
    return _mapped(x, group, partial(_exchanged, cut=cut, join=join), partial(_exchanged, cut=join, join=cut))


def exchange_rows(
    x: Shaped[Tensor, "sent *any"], sent: Sequence[int], received: Sequence[int], group: Group
) -> Shaped[Tensor, "received *any"]:
    """Returns the rows that other ranks have for this one.

    Args:
        x: rows for the others, rank by rank.
        sent, received: how many there are for each rank, and from each.
    """
    there, back = (tuple(sent), tuple(received)), (tuple(received), tuple(sent))
    return _mapped(x, group, partial(_rows, counts=there), partial(_rows, counts=back))


def share_gradient(x: Shaped[Tensor, "*shape"], num_ranks: int) -> Shaped[Tensor, "*shape"]:
    """Returns a tensor that all ranks have alike; each takes an equal part of its gradient."""
    return _Map.apply(x, torch.clone, partial(torch.div, other=num_ranks))


@torch.no_grad()
def all_reduce_max(x: Shaped[Tensor, "*shape"], group: Group) -> Shaped[Tensor, "*shape"]:
    """Returns the largest of the ranks' tensors, element by element; without a gradient."""
    if group is None:
        return x
    result = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(result, dist.ReduceOp.MAX, group=group)
    return result


@torch.no_grad()
def all_reduce_ends(tensors: Sequence[Tensor], group: Group) -> None:
    """Sums tensors of the first and the last rank of a group, in place on both; only these two call it.

    Both add the same two numbers, so what they get is equal to the bit.
    """
    if group is None or not tensors:
        return
    rank, last = group.rank(), group.size() - 1
    other = dist.get_global_rank(group, last if rank == 0 else 0)
    received = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors]
    exchange = [dist.P2POp(dist.isend, tensor.contiguous(), other, group) for tensor in tensors]
    exchange += [dist.P2POp(dist.irecv, tensor, other, group) for tensor in received]
    for work in dist.batch_isend_irecv(exchange):
        work.wait()
    torch._foreach_add_(list(tensors), received)


@torch.no_grad()
def all_reduce_buckets(tensors: Sequence[Tensor], group: Group) -> None:
    """Sums many tensors over a group, in place and in few calls."""
    if group is None:
        return
    for bucket in _buckets(tensors):
        flat = _flatten_dense_tensors(bucket)
        dist.all_reduce(flat, group=group)
        torch._foreach_copy_(bucket, list(_unflatten_dense_tensors(flat, bucket)))


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Returns tensors of one type each, in order, up to ``BUCKET_BYTES`` together unless one alone is larger."""
    buckets: list[list[Tensor]] = []
    for dtype in sorted({tensor.dtype for tensor in tensors}, key=str):
        size = BUCKET_BYTES + 1
        for tensor in (tensor for tensor in tensors if tensor.dtype == dtype):
            if size + tensor.nbytes > BUCKET_BYTES:
                buckets.append([])
                size = 0
            buckets[-1].append(tensor)
            size += tensor.nbytes
    return buckets


def _mapped(x: Shaped[Tensor, "..."], group: Group, there: Map, back: Map) -> Shaped[Tensor, "..."]:
    return x if group is None else _map(x, partial(there, group=group), partial(back, group=group))


class _Map(torch.autograd.Function):
    """Maps tensors linearly over ranks; its backward pass is another such map, whose backward pass is this one."""

    @staticmethod
    def forward(ctx: Any, x: Shaped[Tensor, "..."], there: Map, back: Map) -> Shaped[Tensor, "..."]:
        ctx.maps = back, there
        return there(x)

    @staticmethod
    def backward(ctx: Any, *grads: Shaped[Tensor, "..."]) -> tuple[Shaped[Tensor, "..."], None, None]:
        return _Map.apply(grads[0], *ctx.maps), None, None


_map = NotCompiled(_Map.apply)


def _kept(x: Shaped[Tensor, "..."], group: dist.ProcessGroup, there: Map, keep: Keep) -> Shaped[Tensor, "..."]:
    """Maps a tensor once, however often the pass is made; what is kept knows nothing of the graph."""
    return keep(partial(there, x, group=group)).detach()


def _same(x: Shaped[Tensor, "*shape"], group: dist.ProcessGroup) -> Shaped[Tensor, "*shape"]:
    return x.view_as(x)


def _sum(x: Shaped[Tensor, "*shape"], group: dist.ProcessGroup) -> Shaped[Tensor, "*shape"]:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


def _part(x: Shaped[Tensor, "..."], dim: int, group: dist.ProcessGroup) -> Shaped[Tensor, "..."]:
    return x.chunk(group.size(), dim)[group.rank()].contiguous()


def _joined(x: Shaped[Tensor, "..."], dim: int, group: dist.ProcessGroup) -> Shaped[Tensor, "..."]:
    parts = x.new_empty(group.size() * x.shape[dim], *_first(x, dim).shape[1:])
    _all_gather(parts, _first(x, dim).contiguous(), group=group)
    return parts.movedim(0, dim).contiguous()


def _scattered(x: Shaped[Tensor, "..."], dim: int, group: dist.ProcessGroup) -> Shaped[Tensor, "..."]:
    whole = _first(x, dim).contiguous()
    part = whole.new_empty(len(whole) // group.size(), *whole.shape[1:])
    _reduce_scatter(part, whole, group=group)
    return part.movedim(0, dim).contiguous()


def _first(x: Shaped[Tensor, "..."], dim: int) -> Shaped[Tensor, "..."]:
    """Returns a view with one dim in front, since collectives cut and join the first."""
    return x.movedim(dim, 0)


def _exchanged(x: Shaped[Tensor, "..."], cut: int, join: int, group: dist.ProcessGroup) -> Shaped[Tensor, "..."]:
    sent = torch.stack(x.chunk(group.size(), cut))
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=group)
    return torch.cat(list(received), dim=join)


def _rows(
    x: Shaped[Tensor, "sent *any"], counts: tuple[tuple[int, ...], tuple[int, ...]], group: dist.ProcessGroup
) -> Shaped[Tensor, "received *any"]:
    sent, received = counts
    found = x.new_empty(sum(received), *x.shape[1:])
    dist.all_to_all_single(found, x.contiguous(), list(received), list(sent), group=group)
    return found
