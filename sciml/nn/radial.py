"""Functions of the distance between two atoms, which end smoothly at a cutoff."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

RadialKind = Literal["bessel", "gaussian"]


def envelope(
    lengths: Float[Tensor, "*edge"], cutoff: float | Float[Tensor, "*edge"], exponent: int = 5
) -> Float[Tensor, "*edge"]:
    """Returns a polynomial that falls from 1 at distance 0 to 0 at the cutoff, with two derivatives that vanish there.

    Source: Gasteiger et al. (2020), https://doi.org/10.48550/arXiv.2003.03123, equation 8.

    Args:
        lengths: distances, A.
        cutoff: where it ends, A, for all or for each; beyond, it is zero.
        exponent: its lowest power; the higher, the later it falls.
    """
    x, p = lengths / cutoff, exponent
    first, second, third = (p + 1) * (p + 2) / 2, p * (p + 2), p * (p + 1) / 2
    inner = 1 - x**p * (first - x * (second - third * x))
    return torch.where(x < 1, inner, torch.zeros_like(inner))


class RadialBasis(nn.Module):
    """Expands distances in a few smooth functions, none of them trained.

    ``bessel`` functions are the waves that fit into a sphere; ``gaussian`` ones are bells at equal distances, a
    spacing wide. Neither ends at the cutoff by itself: what is made of them is to be multiplied by the envelope.

    Source: Gasteiger et al. (2020), https://doi.org/10.48550/arXiv.2003.03123 (bessel); Schuett et al. (2017),
    https://doi.org/10.48550/arXiv.1706.08566 (gaussian).

    Args:
        kind: ``bessel`` or ``gaussian``.
        num_radial: how many functions; at least 2.
        cutoff: A.
    """

    def __init__(self, kind: str, num_radial: int, cutoff: float) -> None:
        super().__init__()
        self.kind, self.num_radial, self.cutoff = kind, num_radial, cutoff

    def forward(self, lengths: Float[Tensor, "edge"]) -> Float[Tensor, "edge radial"]:
        """Returns values at some distances (A), which are not zero."""
        # Made on the way, since a constant kept as a buffer would have to be rebuilt behind the meta device.
        steps = torch.arange(self.num_radial, dtype=lengths.dtype, device=lengths.device)
        r = lengths[:, None]
        if self.kind == "bessel":
            return math.sqrt(2 / self.cutoff) * torch.sin((math.pi / self.cutoff) * (steps + 1) * r) / r
        spacing = self.cutoff / (self.num_radial - 1)
        return torch.exp(-0.5 * (r / spacing - steps).square())
