"""Brings fields to another grid of the same domain, over its edges as its topology has them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sciml.nn.topology import Topology


def regrid(
    fields: Float[Tensor, "batch channel row column"], cells: tuple[int, int], topology: Topology
) -> Float[Tensor, "batch channel _row _column"]:
    """Returns fields on other cells: means along an axis where these are larger, else linear in between.

    Means weigh each cell by its share that lies within, so that the mean over the domain stays and nothing is moved.
    Beyond an edge the interpolation takes the cell that the topology has there, so that what repeats has no seam.

    Args:
        cells: rows and columns.
    """
    rows, columns = fields.shape[2:]
    if (rows, columns) == cells:
        return fields
    if rows % cells[0] == columns % cells[1] == 0:  # the same means, and faster
        return F.avg_pool2d(fields, (rows // cells[0], columns // cells[1]))
    for dim, count in zip((2, 3), cells, strict=True):
        if count < fields.shape[dim]:
            fields = _means(fields, dim, count)
    rows, columns = fields.shape[2:]
    if (rows, columns) == cells:
        return fields
    around = topology.pad(fields, 1)
    return _between(_between(around, 2, rows, cells[0]), 3, columns, cells[1])


def _means(
    fields: Float[Tensor, "batch channel row column"], dim: int, cells: int
) -> Float[Tensor, "batch channel _row _column"]:
    """Returns means along an axis over fewer cells, each of the given ones as far as it lies within."""
    size = fields.shape[dim]
    # in units in which a given cell is as long as there are new cells, and a new one as there are given ones
    new = torch.arange(cells, device=fields.device)[:, None] * size
    given = new // cells + torch.arange((size - 1) // cells + 2, device=fields.device)
    within = torch.minimum(new + size, (given + 1) * cells) - torch.maximum(new, given * cells)
    shape = [1] * (fields.ndim + 1)
    shape[dim : dim + 2] = given.shape
    share = (within.clamp(min=0).double() / size).to(fields.dtype).view(shape)
    chosen = fields.index_select(dim, given.clamp(max=size - 1).flatten()).unflatten(dim, given.shape)
    return (chosen * share).sum(dim + 1)


def _between(
    around: Float[Tensor, "batch channel row column"], dim: int, size: int, cells: int
) -> Float[Tensor, "batch channel _row _column"]:
    """Interpolates along an axis of some cells with one more at either end."""
    place = (torch.arange(cells, dtype=torch.float64, device=around.device) + 0.5) * (size / cells) + 0.5
    below = place.floor().long().clamp(max=size)
    share = (place - below).to(around.dtype)
    shape = [1] * around.ndim
    shape[dim] = cells
    return torch.lerp(around.index_select(dim, below), around.index_select(dim, below + 1), share.view(shape))
