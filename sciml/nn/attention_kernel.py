"""Attention kernels that also tell the logarithm of each query's sum of weights, by which parts can be merged.

Keys may come part by part: each part's mixture has weights of its own sum, and the parts' sums say how much of each
mixture the whole has.

Source: Milakov and Gimelshein (2018), https://doi.org/10.48550/arXiv.1805.02867; Dao et al. (2022),
https://doi.org/10.48550/arXiv.2205.14135, for the backward pass from the sums alone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Heads = Float[Tensor, "batch head token channel"]
_aten = torch.ops.aten
_ALIGNED = 32
"""Queries to a multiple of which the kernel for float32 fills up the logarithms."""
_FLASH_CHANNELS, _FLASH_MULTIPLE = 256, 8
"""The most channels of a head that the kernel for half precision takes, and what must divide them."""


class Mixture(NamedTuple):
    """Holds what queries mix of some keys' values.

    Attributes:
        out: the mixture.
        lse: logarithm of the sum of exponentiated scores, float32 or more precise.
    """

    out: Float[Tensor, "batch head query channel"]
    lse: Float[Tensor, "batch head query"]

    def at(self, queries: slice) -> Mixture:
        """Returns the mixtures of some queries."""
        return Mixture(self.out[:, :, queries], self.lse[:, :, queries].contiguous())

    def merged(self, other: Mixture) -> Mixture:
        """Returns the mixture over the keys of both."""
        lse = torch.logaddexp(self.lse, other.lse)
        own, others = ((part.lse - lse).exp()[..., None] for part in (self, other))
        return Mixture(self.out * own + other.out * others, lse)


def attend(
    query: Float[Tensor, "batch head query channel"],
    key: Float[Tensor, "batch head key channel"],
    value: Float[Tensor, "batch head key channel"],
    *,
    causal: bool,
) -> Mixture:
    """Mixes values; with ``causal``, where there are as many keys as queries, of those up to each query's own."""
    kind = _kernel(query)
    if kind == "cpu":
        return Mixture(*_aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal))
    if kind == "flash":
        out, lse, *_ = _aten._scaled_dot_product_flash_attention(query, key, value, 0.0, causal)
        return Mixture(out, lse)
    if kind == "efficient":
        out, lse, *_ = _aten._scaled_dot_product_efficient_attention(query, key, value, None, True, 0.0, causal)
        return Mixture(out, lse[..., : query.shape[2]])
    scores = _scores(query, key, causal=causal)
    return Mixture(scores.softmax(-1) @ value, scores.logsumexp(-1))


def attend_backward(
    grad: Heads, query: Heads, key: Heads, value: Heads, mixture: Mixture, *, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of queries, keys and values, of which the keys may be a part.

    Args:
        grad: of the mixture over all keys.
        mixture: over all keys.
    """
    kind, (out, lse) = _kernel(query), mixture
    gradients: tuple[Tensor, Tensor, Tensor]
    if kind == "cpu":
        backward = _aten._scaled_dot_product_flash_attention_for_cpu_backward
        gradients = backward(grad, query, key, value, out, lse, 0.0, causal)
        return gradients
    if kind == "flash":
        seed = torch.zeros(2, dtype=torch.uint64, device=query.device)  # of dropout, which there is none of
        sizes: tuple[Any, ...] = (None, None, query.shape[2], key.shape[2])
        rest = (*sizes, 0.0, causal, seed, seed.new_zeros(()))
        gradients = _aten._scaled_dot_product_flash_attention_backward(grad, query, key, value, out, lse, *rest)
        return gradients
    if kind == "efficient":
        lse = F.pad(lse, (0, -lse.shape[-1] % _ALIGNED)).contiguous()
        seed = torch.zeros((), dtype=torch.int64, device=query.device)
        rest = (None, out, lse, seed, seed, 0.0, [True, True, True, False], causal)
        first, second, third, _ = _aten._scaled_dot_product_efficient_attention_backward(grad, query, key, value, *rest)
        return first, second, third
    weights = (_scores(query, key, causal=causal) - lse[..., None]).exp()
    scores = weights * (grad @ value.mT - (grad * out).sum(-1, keepdim=True)) / math.sqrt(query.shape[-1])
    return scores @ key, scores.mT @ query, weights.mT @ grad


def _kernel(query: Heads) -> str:
    """Returns the kernel for a tensor's device and precision; the plain formula where there is none."""
    channels = query.shape[-1]
    if query.device.type == "cpu":
        return "cpu"
    if query.device.type == "cuda":
        if query.dtype in (torch.float16, torch.bfloat16):
            fits = channels <= _FLASH_CHANNELS and channels % _FLASH_MULTIPLE == 0
            return "flash" if fits else "formula"
        return "efficient" if query.dtype == torch.float32 and channels % 4 == 0 else "formula"
    return "formula"


def _scores(query: Heads, key: Heads, *, causal: bool) -> Float[Tensor, "batch head query key"]:
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if not causal:
        return scores
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(later, -torch.inf)
