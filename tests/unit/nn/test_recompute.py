"""Activations that are computed again change nothing, also where a block is applied twice under autocast."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sciml.core.seeding import seed_step, shared_generator
from sciml.nn.recompute import RECOMPUTES, recompute


@pytest.mark.parametrize("mode", RECOMPUTES)
@pytest.mark.parametrize("first_without_gradient", [False, True])
def test_gradients_are_the_same_for_a_block_that_is_applied_twice_in_half_precision(mode, first_without_gradient):
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
    x = torch.randn(3, 4)

    def gradients(how: str) -> list[torch.Tensor]:
        block.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.set_grad_enabled(not first_without_gradient):
                once = recompute(how, block, x)
            twice = recompute(how, block, once)
        twice.float().square().sum().backward()
        return [parameter.grad.clone() for parameter in block.parameters()]

    for found, expected in zip(gradients(mode), gradients("none"), strict=True):
        assert expected.abs().sum() > 0
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    assert torch.is_autocast_cache_enabled()


@pytest.mark.parametrize("mode", RECOMPUTES)
def test_what_ranks_draw_together_is_drawn_alike_again(mode):
    x = torch.ones(5, requires_grad=True)

    def drop(values):
        return values * (torch.rand(5, generator=shared_generator()) < 0.5)

    seed_step(0, 1)
    kept = drop(torch.ones(5)), drop(torch.ones(5)), torch.rand(1, generator=shared_generator())
    seed_step(0, 1)
    once = recompute(mode, drop, x)
    twice = recompute(mode, drop, x)
    after = torch.rand(1, generator=shared_generator())
    (once.sum() + 2 * twice.sum()).backward()
    assert torch.equal(x.grad, kept[0] + 2 * kept[1])
    assert torch.equal(after, kept[2])
