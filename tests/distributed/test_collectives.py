"""Collectives and their backward passes, to any order, against the same sums done by hand."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from sciml.distributed import collectives as c
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World

# The shape that goes in on each rank; dims 0 and 1 are cut and joined.
OPERATIONS = {
    "copy_to_region": (c.copy_to_region, (4, 6)),
    "all_reduce": (c.all_reduce, (4, 6)),
    "scatter": (partial(c.scatter, dim=1), (4, 6)),
    "gather_replicated": (partial(c.gather_replicated, dim=1), (4, 3)),
    "all_gather": (partial(c.all_gather, dim=1), (4, 3)),
    "reduce_scatter": (partial(c.reduce_scatter, dim=1), (4, 6)),
    "all_to_all": (partial(c.all_to_all, cut=0, join=1), (4, 3)),
}
PARTNERS = {
    "copy_to_region": "all_reduce", "all_reduce": "copy_to_region",
    "scatter": "gather_replicated", "gather_replicated": "scatter",
    "all_gather": "reduce_scatter", "reduce_scatter": "all_gather",
}  # fmt: skip


def draw(rank: int, number: int, shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 * rank + number)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def derivatives(world: World, name: str) -> tuple[torch.Tensor, ...]:
    """Output, gradient for a random one of the output, and that gradient's own gradient."""
    group = Mesh(world, {"tp": world.size}).group("tp")
    operation, shape = OPERATIONS[name]
    x = draw(world.rank, 0, shape).requires_grad_()
    out = operation(x, group=group)
    v = draw(world.rank, 1, tuple(out.shape)).requires_grad_()
    (first,) = torch.autograd.grad(out, x, v, create_graph=True)
    (second,) = torch.autograd.grad(first, v, draw(world.rank, 2, shape))
    return out.detach(), first.detach(), second


def by_hand(name: str, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """What each rank gets."""
    size = len(inputs)
    total, whole = sum(inputs), torch.cat(inputs, dim=1)
    if name == "copy_to_region":
        return inputs
    if name == "all_reduce":
        return [total] * size
    if name == "scatter":
        return [x.chunk(size, 1)[rank] for rank, x in enumerate(inputs)]
    if name in ("gather_replicated", "all_gather"):
        return [whole] * size
    if name == "reduce_scatter":
        return list(total.chunk(size, 1))
    return [torch.cat([x.chunk(size, 0)[rank] for x in inputs], dim=1) for rank in range(size)]


@pytest.mark.parametrize("name", OPERATIONS)
def test_values_and_derivatives_are_those_by_hand(ranks, name):
    found = ranks(2).run(derivatives, name)
    shape = OPERATIONS[name][1]

    def inputs(number: int, of: tuple[int, ...]) -> list[torch.Tensor]:
        return [draw(rank, number, of) for rank in range(2)]

    for number, at in ((0, 0), (2, 2)):  # the second derivative is the operation again
        for got, expected in zip(found, by_hand(name, inputs(number, shape)), strict=True):
            torch.testing.assert_close(got[at], expected, rtol=1e-14, atol=0)
    gradients = inputs(1, tuple(found[0][0].shape))
    if name == "all_to_all":  # the way back
        expected_gradients = [torch.cat([g.chunk(2, 1)[rank] for g in gradients], dim=0) for rank in range(2)]
    else:
        expected_gradients = by_hand(PARTNERS[name], gradients)
    for got, expected in zip(found, expected_gradients, strict=True):
        torch.testing.assert_close(got[1], expected, rtol=1e-14, atol=0)


def bucketed(world: World) -> list[torch.Tensor]:
    group = Mesh(world, {"dp": world.size}).group("dp")
    tensors = [draw(world.rank, 0, (3, 2)), draw(world.rank, 1, (5,)).float(), draw(world.rank, 2, ()), torch.ones(0)]
    c.BUCKET_BYTES, kept = 16, c.BUCKET_BYTES
    c.all_reduce_buckets(tensors, group)
    c.BUCKET_BYTES = kept
    return tensors


def test_buckets_add_every_tensor(ranks):
    one, other = (
        [draw(rank, 0, (3, 2)), draw(rank, 1, (5,)).float(), draw(rank, 2, ()), torch.ones(0)] for rank in range(2)
    )
    for found in ranks(2).run(bucketed):
        for got, a, b in zip(found, one, other, strict=True):
            torch.testing.assert_close(got, a + b, rtol=1e-6, atol=0)


def largest_and_ends(world: World) -> tuple[torch.Tensor, list[torch.Tensor]]:
    group = Mesh(world, {"pp": world.size}).group("pp")
    x = draw(world.rank, 0, (3, 2)).requires_grad_()
    largest = c.all_reduce_max(x, group)
    assert not largest.requires_grad
    tensors = [draw(world.rank, 1, (3, 2)), draw(world.rank, 2, (5,)).float()]
    c.all_reduce_ends(tensors if world.rank in (0, world.size - 1) else [], group)
    return largest, tensors


def test_the_largest_of_all_and_the_sum_of_the_ends(ranks):
    size = 4
    found = ranks(size).run(largest_and_ends)
    expected = torch.stack([draw(rank, 0, (3, 2)) for rank in range(size)]).amax(0)
    for rank, (largest, tensors) in enumerate(found):
        assert torch.equal(largest, expected)
        for number, (tensor, shape) in enumerate(zip(tensors, [(3, 2), (5,)], strict=True), 1):
            terms = (0, size - 1) if rank in (0, size - 1) else (rank,)
            assert torch.equal(tensor, sum(draw(term, number, shape).to(tensor.dtype) for term in terms))


def test_one_rank_needs_no_group():
    x = torch.randn(2, 2)
    assert c.all_reduce_max(x, None) is x
    c.all_reduce_ends([x], None)
    for operation, _ in OPERATIONS.values():
        assert operation(x, group=None) is x
