"""Linears over the channels of atoms, written so that ranks can share the channels."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class Channels(nn.Identity):
    """Marks where all channels of a state come together, should ranks hold some each."""


class Gates(nn.ModuleList):
    """Computes the gates of one input by linears, each with a matrix of its own, so that a cut of its rows is a cut by
    channel.

    Args:
        num_gates: how many.
        num_channels: of the input and of each output.
        bias: whether they add an offset; vectors must not have one.
    """

    def __init__(self, num_gates: int, num_channels: int, bias: bool = True) -> None:
        super().__init__(nn.Linear(num_channels, num_channels, bias=bias) for _ in range(num_gates))

    def forward(self, x: Float[Tensor, "*atom channel"]) -> list[Float[Tensor, "*atom out"]]:
        return [linear(x) for linear in self]
