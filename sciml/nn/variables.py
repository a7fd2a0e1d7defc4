"""Layers whose weights have a block of rows for each named variable, so that a model serves any subset of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.errors import ConfigError, nearest
from sciml.nn.initialization import zeros


def variable_index(known: Sequence[str], names: Sequence[str] | None) -> list[int] | None:
    """Returns the positions of the named variables among the known ones; None where they are all of them, in order.

    Raises:
        ConfigError: where a name is not known.
    """
    if names is None or tuple(names) == tuple(known):
        return None
    position = {name: i for i, name in enumerate(known)}
    for name in names:
        if name not in position:
            raise ConfigError(f"the model has no variable {name!r}", key="data.variables", hint=nearest(name, known))
    return [position[name] for name in names]


class VariableProjection(nn.Linear):
    """Projects tokens to the pixels of the variables that are asked for; starts at exactly zero.

    Args:
        variables: names of all variables that may ever be asked for.
        num_pixels: pixels of a patch.
        embed_dim: channels of a token.
    """

    def __init__(self, variables: Sequence[str], num_pixels: int, embed_dim: int) -> None:
        super().__init__(embed_dim, len(variables) * num_pixels)
        self.variables, self.num_pixels = tuple(variables), num_pixels
        zeros(self)

    def forward(
        self, tokens: Float[Tensor, "batch token embed"], names: Sequence[str] | None = None
    ) -> Float[Tensor, "batch token variable pixel"]:
        """Returns the pixels of the named variables, or of all."""
        index = variable_index(self.variables, names)
        weight, bias = self.weight, self.bias
        if index is not None:  # only the rows of the chosen variables
            weight = weight.unflatten(0, (-1, self.num_pixels))[index].flatten(0, 1)
            bias = bias.unflatten(0, (-1, self.num_pixels))[index].flatten()
        return F.linear(tokens, weight, bias).unflatten(-1, (-1, self.num_pixels))
