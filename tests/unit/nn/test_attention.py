"""Attention against its formula, written out in float64."""

from __future__ import annotations

import math

import pytest
import torch

from sciml.nn.attention import SelfAttention
from sciml.nn.norm import HeadNorm
from sciml.nn.position import Rotary


def by_hand(
    attention: SelfAttention, x: torch.Tensor, heads: int, angle: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """Head by head and pair by pair, complex numbers for the rotation."""
    dim = attention.head_dim
    q, k, v = (
        (x @ w.weight.T + w.bias).view(*x.shape[:2], heads, dim) for w in (attention.wq, attention.wk, attention.wv)
    )
    mixed = []
    for h in range(heads):
        pair = []
        for part, norm in ((q, attention.query_norm), (k, attention.key_norm)):
            y = part[:, :, h]
            if isinstance(norm, HeadNorm):
                centered = y - y.mean(-1, keepdim=True) if norm.kind == "layer" else y
                y = centered / (centered.square().mean(-1, keepdim=True) + eps).sqrt() * norm.weight[h]
            if angle is not None:
                turned = torch.complex(y[..., : dim // 2], y[..., dim // 2 :]) * torch.exp(1j * angle)
                y = torch.cat([turned.real, turned.imag], -1)
            pair.append(y)
        weights = (pair[0] @ pair[1].transpose(1, 2) / math.sqrt(dim)).softmax(-1)
        mixed.append(weights @ v[:, :, h])
    return torch.cat(mixed, -1) @ attention.wo.weight.T + attention.wo.bias


@pytest.mark.parametrize(("kind", "eps"), [("layer", 1e-5), ("rms", torch.finfo(torch.float64).eps), ("none", 0.0)])
@pytest.mark.parametrize("turned", [False, True])
def test_equals_its_formula(kind, eps, turned):
    torch.manual_seed(0)
    attention = SelfAttention(12, 3, kind).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    angle = torch.randn(5, 2, dtype=torch.float64) if turned else None
    rotary = Rotary(angle.cos()[:, None], angle.sin()[:, None]) if turned else None
    torch.testing.assert_close(attention(x, rotary), by_hand(attention, x, 3, angle, eps), rtol=1e-10, atol=1e-10)


def test_dropout_only_in_training():
    torch.manual_seed(0)
    attention = SelfAttention(8, 2, dropout=0.5)
    x = torch.randn(2, 6, 8)
    assert not torch.allclose(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


def test_causal_attention_is_attention_to_what_came_before():
    torch.manual_seed(0)
    attention = SelfAttention(12, 3, "none", causal=True).double()
    whole = SelfAttention(12, 3, "none").double()
    whole.load_state_dict(attention.state_dict())
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    found = attention(x)
    for last in range(5):
        torch.testing.assert_close(found[:, last], whole(x[:, : last + 1])[:, last])
