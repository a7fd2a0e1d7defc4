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
    """Returns fields on other cells: means where these are larger in both directions, else linear in between.

    Beyond an edge the interpolation takes the cell that the topology has there, so that what repeats has no seam.

    Args:
        cells: rows and columns.
    """
    rows, columns = fields.shape[2:]
    if (rows, columns) == cells:
        return fields
    if rows % cells[0] == columns % cells[1] == 0:  # the same means, and faster
        return F.avg_pool2d(fields, (rows // cells[0], columns // cells[1]))
    if cells[0] <= rows and cells[1] <= columns:
        return F.interpolate(fields, cells, mode="area")
    around = topology.pad(fields, 1)
    return _between(_between(around, 2, rows, cells[0]), 3, columns, cells[1])


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
