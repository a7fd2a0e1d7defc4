"""Tokens of all levels to cells of every variable; starts at exactly zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from domains.fluids.amr.forest import Forest
from domains.fluids.amr.token_shard import TokenShard
from domains.fluids.amr.tokens import channel_index
from sciml.models.vit import ViTConfig
from sciml.nn.initialization import zeros


class Projection(nn.Linear):
    """Tokens of one level to cells of the chosen variables, starting at zero.

    Args:
        channels: names of all variables that may ever be asked for.
        num_cells: of a patch.
        embed_dim: channels of a token.
    """

    def __init__(self, channels: Sequence[str], num_cells: int, embed_dim: int) -> None:
        super().__init__(embed_dim, len(channels) * num_cells)
        self.channels, self.num_cells = tuple(channels), num_cells
        zeros(self)

    def forward(  # type: ignore[override]
        self, tokens: Float[Tensor, "batch token embed"], names: Sequence[str]
    ) -> Float[Tensor, "batch token channel cell"]:
        index = channel_index(self.channels, names)
        weight, bias = self.weight, self.bias
        if index is not None:  # rows of the chosen variables only
            weight = weight.unflatten(0, (-1, self.num_cells))[index].flatten(0, 1)
            bias = bias.unflatten(0, (-1, self.num_cells))[index].flatten()
        return F.linear(tokens, weight, bias).unflatten(-1, (-1, self.num_cells))


class Head(nn.Module):
    """Hidden layers that all levels share, and a projection for each.

    Under autocast the hidden layers run in the trunk's precision and the projections in float32.

    Args:
        channels: names of all variables that may ever be asked for.
        config: ``embed_dim`` and ``head_depth`` are read.
        patch_sizes: of the levels.
    """

    def __init__(self, channels: Sequence[str], config: ViTConfig, patch_sizes: Sequence[int]) -> None:
        super().__init__()
        dim = config.embed_dim
        self.hidden = nn.ModuleList(nn.Linear(dim, dim) for _ in range(config.head_depth))
        projections = [Projection(channels, size**2, dim) for size in patch_sizes]
        self.project: Sequence[Projection] = nn.ModuleList(projections)  # type: ignore[assignment]

    def forward(
        self, tokens: Float[Tensor, "batch token embed"], forest: Forest, share: TokenShard, names: Sequence[str]
    ) -> list[Float[Tensor, "batch token channel cell"]]:
        """Cells of the named variables in this rank's patches, level by level."""
        for linear in self.hidden:
            tokens = F.gelu(linear(tokens))
        found = []
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.to(self.project[0].weight.dtype)
            for level, start, project in zip(forest.levels, forest.offsets, self.project, strict=False):
                own = share.within(start, start + level.num_tokens)
                first = start - share.first + own.start
                found.append(project(tokens[:, first : first + own.stop - own.start], names))
        return found
