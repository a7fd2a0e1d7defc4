"""A learned filter over the edges of patches, which each patch decodes without knowing of its neighbors."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from domains.fluids.amr.indicator_inputs import IndicatorInputs
from domains.fluids.data.boundary import Boundary
from sciml.nn.initialization import zeros
from sciml.nn.variables import variable_index


class PatchEdgeFilter(nn.Conv2d):
    """Adds to each variable a convolution with a kernel of its own, whose weights add up to zero; starts at zero.

    A constant passes as it is, and on a periodic axis the mean does. What a wall or an open side continues is filtered
    as the boundary condition says.

    Args:
        channels: names of all variables that may ever come.
        width: of the kernel in cells, odd.
    """

    def __init__(self, channels: Sequence[str], width: int) -> None:
        super().__init__(len(channels), len(channels), width, groups=len(channels), bias=False)
        self.channels, self.width = tuple(channels), width
        zeros(self)

    def forward(  # type: ignore[override]
        self, fields: Float[Tensor, "batch channel z x"], names: Sequence[str], boundaries: Sequence[Boundary]
    ) -> Float[Tensor, "batch channel z x"]:
        """Returns filtered fields of the named variables."""
        index = variable_index(self.channels, names)
        weight = self.weight if index is None else self.weight[index]
        weight = weight - weight.mean((-2, -1), keepdim=True)
        padded = IndicatorInputs(fields, tuple(names), tuple(boundaries)).padded((self.width // 2,) * 4)
        return fields + F.conv2d(padded.to(weight.dtype), weight, groups=len(weight))
