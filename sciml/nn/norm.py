"""Normalization of queries and keys, head by head."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciml.nn.initialization import Constant, starts_as

QKNorm = Literal["none", "layer", "rms"]


class HeadNorm(nn.Module):
    """Normalizes every head's queries (or keys) over their channels, so that attention logits stay bounded.

    The gain is one per head and channel: cut by heads, each rank of a tensor-parallel group owns its gains
    and no gradient has to cross ranks. There is no offset, as in ViT-22B.

    Source: Dehghani et al. (2023), https://doi.org/10.48550/arXiv.2302.05442.

    Args:
        num_heads: number of heads.
        head_dim: channels of a head.
        kind: ``layer`` (mean removed) or ``rms``.
    """

    def __init__(self, num_heads: int, head_dim: int, kind: str = "layer") -> None:
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.ones(num_heads, head_dim))
        starts_as(self, weight=Constant(1.0))

    def forward(self, x: Float[Tensor, "batch token head channel"]) -> Float[Tensor, "batch token head channel"]:
        normalize = F.rms_norm if self.kind == "rms" else F.layer_norm
        return normalize(x, x.shape[-1:]) * self.weight


def qk_norm(kind: str, num_heads: int, head_dim: int) -> nn.Module:
    """Makes the normalization of queries or keys that a configuration names."""
    return nn.Identity() if kind == "none" else HeadNorm(num_heads, head_dim, kind)
