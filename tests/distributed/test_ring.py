"""Attention around a ring of ranks is that of one process: mixtures, gradients, messages, what is kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sciml.distributed.axes import RING, Role
from sciml.distributed.communication import CommunicationVolume
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.nn.attention_kernel import Mixture, attend, attend_backward
from sciml.nn.recompute import recompute
from sciml.parallel.tokens import TokenLayout

BATCH, HEADS, CHANNELS = 2, 4, 6


def tensors(tokens: int, key_heads: int) -> list[torch.Tensor]:
    """Queries, keys, values and a gradient of their mixtures."""
    generator = torch.Generator().manual_seed(tokens)
    shapes = [(BATCH, tokens, heads, CHANNELS) for heads in (HEADS, key_heads, key_heads, HEADS)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def around(world: World, tokens: int, key_heads: int, causal: bool, how: str) -> tuple[list[torch.Tensor], Any]:
    """The mixtures and gradients of all ranks, and what this one sent for them."""
    mesh = Mesh(world, {RING: world.size})
    layout = TokenLayout(mesh, causal=causal)
    *own, along = (layout.scatter(x, 1, (Role.TOKEN,)) for x in tensors(tokens, key_heads))
    own = [x.requires_grad_() for x in own]
    with CommunicationVolume(mesh) as traffic:
        mixed = recompute(how, lambda *qkv: layout.mix_around(*(2 * x for x in qkv)), *own)
        gradients = torch.autograd.grad((mixed * along).sum(), own)
    found = [layout.gather_replicated(x, 1) for x in (mixed, *gradients)]
    return [x.detach() for x in found], traffic.table()


def alone(tokens: int, key_heads: int, causal: bool) -> list[torch.Tensor]:
    """The same in one process, by torch's own attention."""
    *leaves, along = tensors(tokens, key_heads)
    leaves = [leaf.requires_grad_() for leaf in leaves]
    heads = (2 * x.transpose(1, 2) for x in leaves)
    mixed = F.scaled_dot_product_attention(*heads, is_causal=causal, enable_gqa=True).transpose(1, 2)
    return [mixed.detach(), *torch.autograd.grad((mixed * along).sum(), leaves)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("size", "tokens", "key_heads", "how"),
    [
        (2, 12, 4, "none"),
        (2, 7, 2, "selective"),
        (2, 7, 4, "full"),
        (4, 5, 1, "none"),  # some ranks have no token
        pytest.param(4, 15, 4, "selective", marks=pytest.mark.slow),
    ],
)
def test_a_ring_mixes_as_one_process_does(ranks, size, tokens, key_heads, causal, how):
    results = ranks(size).run(around, tokens, key_heads, causal, how)
    for number, expected in enumerate(alone(tokens, key_heads, causal)):
        for found, _ in results:
            torch.testing.assert_close(found[number], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("how", "causal"), [("none", True), ("selective", False), ("full", False)])
def test_a_ring_sends_keys_and_values_around_and_their_gradients_back(ranks, how, causal):
    """Recomputation sends nothing again that was kept."""
    size, tokens, key_heads = 2, 8, 2
    kv = 2 * BATCH * tokens // size * key_heads * CHANNELS * 8
    forward = (size - 1) * (2 if how == "full" else 1)
    for _, table in ranks(size).run(around, tokens, key_heads, causal, how):
        calls = forward + (size - 1) + size
        for kind in ("send", "recv"):
            count = table[RING][kind]
            assert (count.calls, count.bytes) == (calls, calls * kv)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["cpu", "formula"])
def test_kernels_mix_as_torch_does_and_parts_can_be_merged(monkeypatch, kind, causal):
    monkeypatch.setattr("sciml.nn.attention_kernel._kernel", lambda _: kind)
    query, key, value, grad = (x.transpose(1, 2) for x in tensors(6, HEADS))
    leaves = [x.detach().requires_grad_() for x in (query, key, value)]
    expected = F.scaled_dot_product_attention(*leaves, is_causal=causal)
    found = attend(query, key, value, causal=causal)
    torch.testing.assert_close(found.out, expected, rtol=1e-10, atol=1e-10)
    gradients = attend_backward(grad, query, key, value, Mixture(*found), causal=causal)
    for a, b in zip(gradients, torch.autograd.grad((expected * grad).sum(), leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    if not causal:
        parts = [attend(query, key[:, :, part], value[:, :, part], causal=False) for part in (slice(4), slice(4, 6))]
        for a, b in zip(parts[0].merged(parts[1]), found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
