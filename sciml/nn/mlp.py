"""The feed-forward half of a transformer block."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

MLPKind = Literal["gelu", "swiglu"]
GATED_MULTIPLE = 32


class MLP(nn.Module):
    """Applies two linears with a GELU between them.

    Args:
        embed_dim: channels of a token.
        hidden_dim: channels between the linears.
    """

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.up = nn.Linear(embed_dim, hidden_dim)
        self.down = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Float[Tensor, "*batch embed"]) -> Float[Tensor, "*own embed"]:
        return self.down(F.gelu(self.up(x)))


class GatedMLP(nn.Module):
    """Applies SwiGLU: channels times their gates, projected by two linears so that one sharding style fits both.

    Source: Shazeer (2020), https://doi.org/10.48550/arXiv.2002.05202.

    Args:
        embed_dim: channels of a token.
        hidden_dim: channels between the linears.
    """

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.up = nn.Linear(embed_dim, hidden_dim)
        self.gate = nn.Linear(embed_dim, hidden_dim)
        self.down = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Float[Tensor, "*batch embed"]) -> Float[Tensor, "*own embed"]:
        return self.down(self.up(x) * F.silu(self.gate(x)))


def make_mlp(kind: str, embed_dim: int, ratio: float) -> nn.Module:
    """Makes the feed-forward part that a configuration names.

    A gated one has three matrices: its width is 2/3 of the plain one's, rounded up to a multiple of 32, so
    that both have about the same number of parameters at the same ratio.
    """
    if kind == "gelu":
        return MLP(embed_dim, round(embed_dim * ratio))
    return GatedMLP(embed_dim, -(-round(embed_dim * ratio * 2 / 3) // GATED_MULTIPLE) * GATED_MULTIPLE)
