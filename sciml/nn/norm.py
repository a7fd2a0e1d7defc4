"""Normalization of tokens, and of queries and keys head by head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciml.nn.initialization import Constant, starts_as

QKNorm = Literal["none", "layer", "rms"]
rms_kernel: Callable[..., Tensor] = F.rms_norm
"""Computes a root mean square norm; plans put another in its place, since CPUs have no kernel of their own for it
that keeps as little as that of an accelerator."""
NormKind = Literal["layer", "rms"]


class LayerNorm(nn.LayerNorm):
    """Normalizes tokens in the precision that they have, with sums in float32.

    Autocast of an accelerator would widen tokens of half precision first and keep that copy for the backward pass.
    """

    def forward(self, input: Float[Tensor, "*batch embed"]) -> Float[Tensor, "*batch embed"]:
        with torch.autocast(input.device.type, enabled=False):
            weight, bias = _like(self.weight, input), _like(self.bias, input)
            return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


class RMSNorm(nn.RMSNorm):
    """Divides tokens by their root mean square, in the precision that they have.

    Source: Zhang and Sennrich (2019), https://doi.org/10.48550/arXiv.1910.07467.
    """

    def forward(self, x: Float[Tensor, "*batch embed"]) -> Float[Tensor, "*batch embed"]:
        with torch.autocast(x.device.type, enabled=False):
            return rms_kernel(x, self.normalized_shape, _like(self.weight, x), self.eps)


def token_norm(kind: str, embed_dim: int, *, has_gain: bool) -> nn.Module:
    """Makes the normalization of tokens that a configuration names.

    Args:
        has_gain: whether it has parameters; a modulated one does without.
    """
    norm = RMSNorm if kind == "rms" else LayerNorm
    return norm(embed_dim, elementwise_affine=has_gain)


def to_autocast(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Returns a tensor in the precision of autocast, where that is on; it leaves double precision alone.

    Several linears that read one tensor would each cast it, and keep as many copies for the backward pass.
    """
    device = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return x
    return x.to(torch.get_autocast_dtype(device))


def _like(parameter: Float[Tensor, "embed"] | None, x: Float[Tensor, "*batch embed"]) -> Float[Tensor, "embed"] | None:
    return None if parameter is None else parameter.to(x.dtype)


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
