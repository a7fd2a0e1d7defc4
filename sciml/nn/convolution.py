"""Convolutions on a grid whose edges follow a topology, and the residual blocks that are made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciml.nn.conditioning import Modulation
from sciml.nn.initialization import Constant, Normal, starts_as, zeros
from sciml.nn.spectral import SpectralConv
from sciml.nn.staged import Place
from sciml.nn.topology import Odd, Topology, WholeGrid
from sciml.nn.variables import variable_index

GROUPS = 8
"""Groups of channels that are normalized together."""


class GridConv(nn.Conv2d):
    """Applies a convolution that sees beyond the edges of its grid what the topology has there.

    Args:
        width: cells along a side of the kernel, odd.
    """

    is_inner: ClassVar[bool] = True  # maps features to features, see sciml.parallel.placement.Placement

    def __init__(self, num_inputs: int, num_outputs: int, width: int = 3, groups: int = 1) -> None:
        super().__init__(num_inputs, num_outputs, width, groups=groups)

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "batch channel row column"], topology: Topology
    ) -> Float[Tensor, "batch out row column"]:
        return super().forward(topology.pad(x, self.kernel_size[0] // 2))


class ChannelNorm(nn.GroupNorm):
    """Normalizes groups of channels over the grid; a rank that has some of the channels has whole groups of them."""

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "batch channel row column"], topology: Topology
    ) -> Float[Tensor, "batch channel row column"]:
        groups = self.num_groups * x.shape[1] // self.num_channels
        if isinstance(topology, WholeGrid):
            return F.group_norm(x, groups, self.weight, self.bias, self.eps)
        wide = x.unflatten(1, (groups, -1)).to(self.weight.dtype)
        mean = self._mean(wide, topology)
        away = wide - mean
        normal = away * (self._mean(away.square(), topology) + self.eps).rsqrt()
        return torch.addcmul(self.bias[:, None, None], normal.flatten(1, 2), self.weight[:, None, None])

    def _mean(
        self, x: Float[Tensor, "batch group channel row column"], topology: Topology
    ) -> Float[Tensor, "batch group 1 1 1"]:
        """Returns means over the rows of all ranks."""
        count = x.new_tensor(math.prod(x.shape[2:])).expand(len(x), x.shape[1], 1, 1, 1)
        total, number = topology.total(torch.stack((x.sum((2, 3, 4), keepdim=True), count)))
        return total / number


def norm_of(num_channels: int) -> ChannelNorm:
    """Returns a normalization of groups of channels, as many as the number of channels allows."""
    return ChannelNorm(math.gcd(GROUPS, num_channels), num_channels)


class ResidualConv(nn.Module):
    """Adds two convolutions to its input; the condition scales and shifts what is between them. Starts as the identity.

    Args:
        num_channels: of input and output.
        condition_dim: length of the condition; 0 has none.
        modes: the longest waves along rows and columns that are weighed beside the first convolution, so that the block
            sees the whole grid; None has none.
    """

    def __init__(self, num_channels: int, condition_dim: int, modes: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.norm = norm_of(num_channels)
        self.first = GridConv(num_channels, num_channels)
        self.spectral = SpectralConv(num_channels, modes) if modes else None
        self.middle_norm = norm_of(num_channels)
        self.modulation = Modulation(condition_dim, num_channels, 2) if condition_dim else None
        self.own = Place()  # of channels between the two convolutions, which ranks may share
        self.second = zeros(GridConv(num_channels, num_channels))

    def forward(
        self,
        x: Float[Tensor, "batch channel row column"],
        condition: Float[Tensor, "batch condition"] | None,
        topology: Topology,
    ) -> Float[Tensor, "batch channel row column"]:
        bent = F.gelu(self.norm(x, topology))
        h = self.first(bent, topology)
        h = self.middle_norm(h if self.spectral is None else h + self.own(self.spectral(bent, topology)), topology)
        if self.modulation is not None:
            shift, scale = (self.own(part.movedim(1, 2).unsqueeze(-1)) for part in self.modulation(condition))
            h = torch.addcmul(shift, h, 1 + scale)
        return x + self.second(F.gelu(h), topology)


class Coarsen(nn.Linear):
    """Turns each square of cells into one cell with other channels."""

    is_inner: ClassVar[bool] = True

    def __init__(self, num_inputs: int, num_outputs: int, factor: int = 2) -> None:
        super().__init__(num_inputs * factor**2, num_outputs)
        self.factor = factor

    def forward(self, x: Float[Tensor, "batch channel row column"]) -> Float[Tensor, "batch out _row _column"]:
        return super().forward(F.pixel_unshuffle(x, self.factor).movedim(1, -1)).movedim(-1, 1)


class Refine(nn.Linear):
    """Turns each cell into a square of cells with other channels."""

    is_inner: ClassVar[bool] = True

    def __init__(self, num_inputs: int, num_outputs: int, factor: int = 2) -> None:
        super().__init__(num_inputs, num_outputs * factor**2)
        self.factor = factor

    def forward(self, x: Float[Tensor, "batch channel row column"]) -> Float[Tensor, "batch out _row _column"]:
        return F.pixel_shuffle(super().forward(x.movedim(1, -1)).movedim(-1, 1), self.factor)


class VariableStem(nn.Module):
    """Turns the fields of any subset of the known variables into features of small squares of cells.

    A 3x3 convolution over squares of ``factor`` cells. ``weight[v]`` belongs to variable v: (cell of a square, feature,
    3, 3).

    Args:
        variables: names of all variables that may ever come.
        factor: cells along a side of a square.
        num_features: features of a square.
    """

    def __init__(self, variables: Sequence[str], factor: int, num_features: int) -> None:
        super().__init__()
        self.variables, self.factor = tuple(variables), factor
        shape = len(self.variables), factor**2, num_features, 3, 3
        self.weight, self.bias = nn.Parameter(torch.empty(shape)), nn.Parameter(torch.empty(num_features))
        starts_as(self, weight=Normal((len(self.variables) * factor**2 * 9) ** -0.5), bias=Constant(0.0))

    def forward(
        self,
        fields: Float[Tensor, "batch variable row column"],
        names: Sequence[str] | None,
        topology: Topology,
        odd: Odd | None = None,
    ) -> Float[Tensor, "batch feature _row _column"]:
        """Returns the features of the squares.

        Args:
            fields: of the named variables, on a grid that ``factor`` divides.
            names: the variables of ``fields``; None for all.
            odd: which of them turn around beyond an edge, see :class:`Topology`.
        """
        index = variable_index(self.variables, names)
        weight = self.weight if index is None else self.weight[torch.tensor(index, device=self.weight.device)]
        squares = F.pixel_unshuffle(topology.pad(fields, self.factor, odd), self.factor)
        return F.conv2d(squares, weight.flatten(0, 1).transpose(0, 1), self.bias)


class VariableHead(nn.Module):
    """Turns features of small squares of cells into fields of the variables that are asked for; starts at exactly zero.

    The sum is made in the weights' precision, whatever the trunk's.

    Args:
        variables: names of all variables that may ever be asked for.
        factor: cells along a side of a square.
        num_features: features of a square.
    """

    def __init__(self, variables: Sequence[str], factor: int, num_features: int) -> None:
        super().__init__()
        self.variables, self.factor = tuple(variables), factor
        self.weight = nn.Parameter(torch.empty(len(self.variables), factor**2, num_features, 3, 3))
        self.bias = nn.Parameter(torch.empty(len(self.variables), factor**2))
        zeros(self)

    def forward(
        self, features: Float[Tensor, "batch feature _row _column"], names: Sequence[str] | None, topology: Topology
    ) -> Float[Tensor, "batch variable row column"]:
        """Returns the fields of the named variables, or of all."""
        index = variable_index(self.variables, names)
        weight, bias = (p if index is None else p[index] for p in (self.weight, self.bias))
        with torch.autocast(features.device.type, enabled=False):
            around = topology.pad(features.to(weight.dtype), 1)
            return F.pixel_shuffle(F.conv2d(around, weight.flatten(0, 1), bias.flatten()), self.factor)
