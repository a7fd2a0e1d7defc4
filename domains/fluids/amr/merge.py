"""Cells of all levels to one field: finer patches add what leaves the mean over their parent as it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from domains.fluids.amr.forest import Forest, PatchGeometry
from domains.fluids.amr.patch_edges import PatchEdgeFilter
from domains.fluids.amr.token_shard import TokenShard
from domains.fluids.data.boundary import Boundary
from sciml.nn.patch import patchify, unpatchify


class Merge(nn.Module):
    """Adds residuals of finer patches to coarse ones everywhere.

    From the residual of a patch's children its mean over that patch is taken out, cells outside the grid not counted.
    So the mean over each patch is what the levels down to its own say: restricting the merged field to patches of the
    coarsest level gives the coarse prediction exactly, and finer levels move mass, never make it.

    Args:
        edge_filter: what the whole field goes through in the end; linear.
    """

    def __init__(self, edge_filter: PatchEdgeFilter | None = None) -> None:
        super().__init__()
        self.edge_filter = edge_filter

    def forward(
        self,
        cells: Sequence[Float[Tensor, "batch _ channel _"]],
        forest: Forest,
        share: TokenShard,
        names: Sequence[str],
        boundaries: Sequence[Boundary],
    ) -> Float[Tensor, "batch channel z x"]:
        """Returns the merged field.

        Args:
            cells: of this rank's patches, level by level; those of other ranks count as zero, so that ranks' fields
                add up to the whole one.
            names: of the channels.
            boundaries: of the samples.
        """
        geometry = forest.geometry
        merged: Tensor | float = 0.0
        for index, (level, own, start) in enumerate(zip(forest.levels, cells, forest.offsets, strict=False)):
            span = share.within(start, start + level.num_tokens)
            own = F.pad(own, (0, 0, 0, 0, span.start, level.num_tokens - span.stop))
            if index:
                own = _without_mean(own, forest, index)
            merged = merged + _spread(own, level.nodes, geometry, index)
        assert isinstance(merged, Tensor)
        fields = merged[..., : geometry.cells[0], : geometry.cells[1]]
        return fields if self.edge_filter is None else self.edge_filter(fields, names, boundaries)


def _without_mean(
    cells: Float[Tensor, "batch token channel cell"], forest: Forest, index: int
) -> Float[Tensor, "batch token channel cell"]:
    """Returns the residuals of a level without their mean over each parent."""
    geometry, parents = forest.geometry, forest.levels[index - 1]
    cells = cells.unflatten(1, (parents.refined.shape[1], geometry.num_children(index - 1)))
    if parents.refines is not None:
        cells = cells * parents.refines[..., None, None, None]
    if parents.gates is not None:
        cells = cells * parents.gates[..., None, None, None].to(cells.dtype)
    if geometry.fits:
        return (cells - cells.mean(dim=(2, 4), keepdim=True)).flatten(1, 2)
    inside = _cells_inside(geometry, index, cells)[forest.levels[index].nodes]
    inside = inside.unflatten(1, cells.shape[1:3])[:, :, :, None]
    means = (cells * inside).sum(dim=(2, 4), keepdim=True) / inside.sum(dim=(2, 4), keepdim=True).clamp(min=1)
    return (cells - means).flatten(1, 2)


def _cells_inside(geometry: PatchGeometry, index: int, like: Shaped[Tensor, "..."]) -> Float[Tensor, "node cell"]:
    """Returns 1 for each cell of a complete level's patches that lies in the grid, else 0."""
    inside = like.new_zeros(1, 1, *geometry.padded)
    inside[..., : geometry.cells[0], : geometry.cells[1]] = 1
    return patchify(inside, geometry.patch_sizes[index])[0, :, 0]


def _spread(
    cells: Float[Tensor, "batch token channel cell"],
    nodes: Int[Tensor, "batch token"],
    geometry: PatchGeometry,
    index: int,
) -> Float[Tensor, "batch channel padded_z padded_x"]:
    """Puts some patches in their places, with zero elsewhere."""
    batch, count, channels, num_cells = cells.shape
    size, num_nodes = geometry.patch_sizes[index], geometry.num_nodes(index)
    if index:
        rows = (nodes + torch.arange(batch, device=nodes.device)[:, None] * num_nodes).flatten()
        complete = cells.new_zeros(batch * num_nodes, channels * num_cells)
        complete = complete.index_add(0, rows, cells.reshape(batch * count, channels * num_cells))
        cells = complete.view(batch, num_nodes, channels, num_cells)
    return unpatchify(cells, (geometry.padded[0], geometry.padded[1]), size)
