"""Patches to tokens: gathered first, with ghost cells, and only those embedded that exist."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from domains.fluids.amr.forest import Forest, PatchGeometry
from domains.fluids.amr.indicator_inputs import IndicatorInputs
from domains.fluids.amr.token_shard import TokenShard
from sciml.nn.initialization import Normal, starts_as
from sciml.nn.variables import variable_index


def gather_patches(
    padded: Float[Tensor, "batch channel padded_z padded_x"],
    nodes: Int[Tensor, "batch token"],
    geometry: PatchGeometry,
    level: int,
    ghost_cells: int,
) -> Float[Tensor, "batch token channel cell"]:
    """Gathers the cells of some patches and around them.

    Args:
        padded: fields over all patches of the coarsest level, with ghost cells around.
    """
    batch, channels, *sizes = padded.shape
    side = torch.arange(geometry.patch_sizes[level] + 2 * ghost_cells, device=nodes.device)
    inside = (side[:, None] * sizes[1] + side).flatten()
    first = geometry.corners(nodes, level, sizes) + torch.arange(batch, device=nodes.device)[:, None] * math.prod(sizes)
    rows = padded.permute(0, 2, 3, 1).reshape(-1, channels)
    patches = rows.index_select(0, (first[..., None] + inside).flatten())
    return patches.view(*nodes.shape, len(inside), channels).transpose(2, 3)


class PatchEmbedding(nn.Module):
    """Embeds one level's patches: a linear of each variable's cells, summed over the variables there are.

    ``weight[v]`` has a row for each cell and a last one that is added whatever they are: the embedding of the variable
    and of the level.

    Source: McCabe et al. (2023), https://doi.org/10.48550/arXiv.2310.02994 (the sum over variables).

    Args:
        channels: names of all variables that may ever come.
        num_cells: of a patch, with its ghost cells.
        embed_dim: channels of a token.
    """

    def __init__(self, channels: Sequence[str], num_cells: int, embed_dim: int) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.weight = nn.Parameter(torch.empty(len(self.channels), num_cells + 1, embed_dim))
        starts_as(self, weight=Normal(1 / math.sqrt(len(self.channels) * num_cells)))

    def forward(
        self, patches: Float[Tensor, "batch token channel cell"], names: Sequence[str]
    ) -> Float[Tensor, "batch token embed"]:
        """Returns one token for each patch; ``names`` are the variables of ``patches``, in their order."""
        index = variable_index(self.channels, names)
        weight = self.weight if index is None else self.weight[torch.tensor(index, device=self.weight.device)]
        matrix, constant = weight[:, :-1].flatten(0, 1), weight[:, -1].sum(0)
        flat = patches.flatten(2)
        return torch.addmm(constant, flat.flatten(0, 1), matrix).unflatten(0, flat.shape[:2])


class Tokenizer(nn.ModuleList):
    """Makes the tokens of a forest, level by level.

    Args:
        channels: names of all variables that may ever come.
        patch_sizes: of the levels.
        ghost_cells: around each patch.
        embed_dim: channels of a token.
    """

    def __init__(self, channels: Sequence[str], patch_sizes: Sequence[int], ghost_cells: int, embed_dim: int) -> None:
        super().__init__(PatchEmbedding(channels, (size + 2 * ghost_cells) ** 2, embed_dim) for size in patch_sizes)
        self.ghost_cells = ghost_cells

    def forward(
        self, evidence: IndicatorInputs, forest: Forest, share: TokenShard
    ) -> Float[Tensor, "batch token embed"]:
        """Returns the tokens of this rank, coarsest level first."""
        geometry, ghosts = forest.geometry, self.ghost_cells
        behind = [full - count for full, count in zip(geometry.padded, geometry.cells, strict=True)]
        padded = evidence.padded((ghosts, ghosts + behind[1], ghosts, ghosts + behind[0]))
        tokens = []
        for index, (level, start) in enumerate(zip(forest.levels, forest.offsets, strict=False)):
            nodes = level.nodes[:, share.within(start, start + level.num_tokens)]
            patches = gather_patches(padded, nodes, geometry, index, ghosts)
            tokens.append(self[index](patches, evidence.channels))
        return share.filled(torch.cat(tokens, dim=1))
