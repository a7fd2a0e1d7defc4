"""Scalars such as a lead time, made to steer every block of a trunk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.devices import widest_float
from sciml.nn.initialization import addition, zeros

Conditioning = Literal["none", "adaln_zero"]


class ScalarEncoding(Protocol):
    """Turns a scalar of each sample into ``num_features`` numbers between -1 and 1, float32."""

    @property
    def num_features(self) -> int: ...

    def __call__(self, values: Float[Tensor, "batch"]) -> Float[Tensor, "batch feature"]: ...


@dataclass(frozen=True)
class WaveEncoding:
    """Encodes a scalar by sine and cosine at wavelengths spread evenly on a logarithmic scale.

    Attributes:
        longest, shortest: first and last wavelength, in the scalar's unit.
        num_features: even number of features.
    """

    longest: float
    shortest: float
    num_features: int

    def __call__(self, values: Float[Tensor, "batch"]) -> Float[Tensor, "batch feature"]:
        values = values.to(widest_float(values.device))
        steps = torch.linspace(0, 1, self.num_features // 2, dtype=values.dtype, device=values.device)
        angle = values[:, None] * (2 * math.pi / self.longest) * (self.longest / self.shortest) ** steps
        return torch.cat([angle.sin(), angle.cos()], dim=-1).float()


@dataclass(frozen=True)
class CycleEncoding:
    """Encodes a scalar by sine and cosine of the first harmonics of a cycle.

    Attributes:
        period: length of the cycle, in the scalar's unit.
        num_harmonics: how many harmonics; each gives two features.
    """

    period: float
    num_harmonics: int

    @property
    def num_features(self) -> int:
        return 2 * self.num_harmonics

    def __call__(self, values: Float[Tensor, "batch"]) -> Float[Tensor, "batch feature"]:
        harmonics = torch.arange(1, self.num_harmonics + 1, device=values.device)
        angle = values.to(widest_float(values.device))[:, None] * (2 * math.pi / self.period) * harmonics
        return torch.cat([angle.sin(), angle.cos()], dim=-1).float()


class ConditionEmbedding(nn.Module):
    """Maps scalar features, and noise where a model is random, to the vector that modulates all blocks.

    Noise enters beside the features, with weights that do not start at zero in a new model: from there they grow too
    slowly for the members of an ensemble to differ as much as they should. A random model that starts from the weights
    of a deterministic one begins as that, and without noise any is deterministic.

    Source: Alet et al. (2025), https://doi.org/10.48550/arXiv.2506.10772, for a short vector of noise in the norms.

    Args:
        num_features: length of the features.
        condition_dim: length of the vector.
        noise_dim: length of the noise; 0 takes none.
    """

    def __init__(self, num_features: int, condition_dim: int, noise_dim: int = 0) -> None:
        super().__init__()
        self.first = nn.Linear(num_features, condition_dim)
        self.noise = addition(nn.Linear(noise_dim, condition_dim, bias=False)) if noise_dim else None
        self.second = nn.Linear(condition_dim, condition_dim)

    def forward(
        self, features: Float[Tensor, "batch feature"], noise: Float[Tensor, "batch noise"] | None = None
    ) -> Float[Tensor, "batch condition"]:
        """Returns the vector; without noise that of the deterministic model."""
        hidden = self.first(features)
        if noise is not None and self.noise is not None:
            hidden = hidden + self.noise(noise.to(self.noise.weight.dtype))
        return F.silu(self.second(F.silu(hidden)))


class Modulation(nn.Module):
    """Maps the condition linearly to shifts, scales and gates of a block (adaLN-Zero), zero at the start.

    The condition is a short vector, because it carries a handful of scalars: with the width D of the trunk in
    its place, as in DiT, every block would grow by half (6 D^2 on 12 D^2). A block's own linear from 64 numbers
    costs about 1% and, unlike one linear shared by all blocks, leaves the blocks free to stand on different
    pipeline stages.

    Source: Peebles and Xie (2023), https://doi.org/10.48550/arXiv.2212.09748.

    Args:
        condition_dim: length of the condition.
        embed_dim: channels of a token.
        num_parts: how many vectors of ``embed_dim`` are wanted.
    """

    def __init__(self, condition_dim: int, embed_dim: int, num_parts: int) -> None:
        super().__init__()
        self.num_parts = num_parts
        self.linear = zeros(nn.Linear(condition_dim, num_parts * embed_dim))

    def forward(self, condition: Float[Tensor, "batch condition"]) -> tuple[Float[Tensor, "batch 1 embed"], ...]:
        return self.linear(condition)[:, None].chunk(self.num_parts, dim=-1)


def modulate(
    x: Float[Tensor, "batch token embed"], shift: Float[Tensor, "batch 1 embed"], scale: Float[Tensor, "batch 1 embed"]
) -> Float[Tensor, "batch token embed"]:
    """Scales and shifts normalized tokens."""
    return torch.addcmul(shift, x, 1 + scale)
