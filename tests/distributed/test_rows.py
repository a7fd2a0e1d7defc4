"""Ranks that share the rows of a grid see at the edges of their bands what one process sees there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sciml.distributed.axes import RING
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.nn.convolution import ChannelNorm
from sciml.nn.spectral import SpectralConv
from sciml.nn.topology import Odd, Plane, Planes, Side, Sphere, Topology
from sciml.parallel.rows import SameRows, SharedRows, shared_rows

ROWS, COLUMNS, FINER = 9, 6, 2
WALLS = Plane((Side.PERIODIC, Side.PERIODIC), (Side.WALL, Side.WALL))
PLANES = Planes((WALLS, Plane((Side.WALL, Side.OPEN), (Side.OPEN, Side.WALL))))
TORUS = Plane((Side.PERIODIC, Side.PERIODIC), (Side.PERIODIC, Side.PERIODIC))
TOPOLOGIES = {
    "sphere": Sphere(), "poles": Sphere((True, True)), "walls": WALLS, "planes": PLANES, "torus": TORUS,
}  # fmt: skip
ODD: Odd = ((True, False, False, False), (False, True, False, False))


def cells(number: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(2, 4, ROWS * FINER, COLUMNS, generator=generator, dtype=torch.float64)


def seen(fields: torch.Tensor, own: Topology) -> list[torch.Tensor]:
    """Returns what a rank's rows meet, and what a normalization and the longest waves make of them."""
    band = own.scattered(fields)
    padded = own.pad(band, (1, 2, 3, 2), ODD)
    inner = padded[..., 3 : 3 + band.shape[-2], 1 : 1 + COLUMNS]
    # each row with what stands two rows before and two rows behind it
    around = padded[..., 1 : 1 + band.shape[-2], 2 : 2 + COLUMNS] + 3 * padded[..., 5:, 3 : 3 + COLUMNS]
    torch.testing.assert_close(inner, band, rtol=0, atol=0)
    norm = ChannelNorm(2, 4).double()
    waves = SpectralConv(4, (2, 2)).double()
    with torch.no_grad():
        waves.weight.copy_(torch.linspace(-1, 1, waves.weight.numel()).view_as(waves.weight))
    return [around, norm(band, own), waves(band, own)]


def on_ranks(world: World, name: str) -> list[torch.Tensor]:
    group = Mesh(world, {RING: world.size}).group(RING)
    fields, topology = cells(0).requires_grad_(), TOPOLOGIES[name]
    own = shared_rows(topology, ROWS, group)
    assert isinstance(own, SharedRows)
    results = seen(fields, own)
    along = [own.own(cells(number)) for number in range(1, 4)]
    (gradient,) = torch.autograd.grad(sum((x * y).sum() for x, y in zip(results, along, strict=True)), fields)
    return [*(own.complete(x.detach()) for x in results), gradient]


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_bands_meet_what_a_whole_grid_meets(ranks: Any, name: str, size: int):
    fields, topology = cells(0).requires_grad_(), TOPOLOGIES[name]
    results = seen(fields, topology)
    along = [cells(number) for number in range(1, 4)]
    (gradient,) = torch.autograd.grad(sum((x * y).sum() for x, y in zip(results, along, strict=True)), fields)
    for found in ranks(size).run(on_ranks, name):
        for mine, expected in zip(found, [*(x.detach() for x in results), gradient], strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)


def too_few(world: World) -> tuple[bool, torch.Tensor]:
    group = Mesh(world, {RING: world.size}).group(RING)
    fields = cells(0).requires_grad_()
    own = shared_rows(Sphere(), 2 * world.size - 1, group)
    (gradient,) = torch.autograd.grad(own.complete(own.scattered(fields)).sum(), fields)
    return isinstance(own, SameRows), gradient


def test_too_few_rows_are_worked_on_by_all_and_count_once(ranks: Any):
    for repeated, gradient in ranks(2).run(too_few):
        assert repeated
        torch.testing.assert_close(gradient, torch.ones_like(gradient))


def test_one_process_keeps_the_grid_as_it_is():
    assert shared_rows(WALLS, ROWS, None) is WALLS
