"""Maps tokens of all levels to cells of every variable; starts at exactly zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from domains.fluids.amr.forest import Forest
from domains.fluids.amr.token_shard import TokenShard
from sciml.models.grid_vit import HiddenLayers
from sciml.models.vit import ViTConfig
from sciml.nn.variables import VariableProjection


class CellHead(nn.Module):
    """Applies hidden layers that all levels share, and a projection for each level.

    Under autocast the hidden layers run in the trunk's precision and the projections in float32.

    Args:
        channels: names of all variables that may ever be asked for.
        config: ``embed_dim`` and ``head_depth`` are read.
        patch_sizes: of the levels.
    """

    def __init__(self, channels: Sequence[str], config: ViTConfig, patch_sizes: Sequence[int]) -> None:
        super().__init__()
        self.hidden = HiddenLayers(config.embed_dim, config.head_depth)
        projections = [VariableProjection(channels, size**2, config.embed_dim) for size in patch_sizes]
        self.project: Sequence[VariableProjection] = nn.ModuleList(projections)  # type: ignore[assignment]

    def forward(
        self, tokens: Float[Tensor, "batch token embed"], forest: Forest, share: TokenShard, names: Sequence[str]
    ) -> list[Float[Tensor, "batch _ channel _"]]:
        """Returns cells of the named variables in this rank's patches by level: (batch, token, channel, cell)."""
        tokens = self.hidden(tokens)
        cells = []
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.to(self.project[0].weight.dtype)
            for level, start, project in zip(forest.levels, forest.offsets, self.project, strict=False):
                own = share.within(start, start + level.num_tokens)
                first = start - share.first + own.start
                cells.append(project(tokens[:, first : first + own.stop - own.start], names))
        return cells
