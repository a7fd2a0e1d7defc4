"""Fields of a flow between grids whose cells are halves of one another: means down, conserving interpolation up."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

STENCIL = 2
"""Neighbors at each side of which the two halves of a cell are interpolated."""
FIRST, SECOND = 22 / 128, 3 / 128
"""Weights of the differences over two and over four cells: the fourth-order polynomial of five averages."""
ODD = (False, False, True, False)
"""Says of density, momenta along x and z, and heat what a wall normal to z turns around."""


def restrict(fields: Float[Tensor, "m 4 z x"], factor: int) -> Float[Tensor, "m 4 _z _x"]:
    """Returns averages over squares of so many cells."""
    return fields if factor == 1 else F.avg_pool2d(fields, factor)


def prolong(fields: Float[Tensor, "m 4 z x"], factor: int) -> Float[Tensor, "m 4 _z _x"]:
    """Returns averages over cells that are so many times smaller, a power of two; their means are the fields again.

    The plane is periodic along x and has walls at bottom and top.
    """
    while factor > 1:
        fields = _halved(_halved(padded(fields, STENCIL), -1), -2)
        factor //= 2
    return fields


def padded(fields: Float[Tensor, "m 4 z x"], width: int) -> Float[Tensor, "m 4 padded_z padded_x"]:
    """Adds cells around a plane that is periodic along x and has walls at bottom and top."""
    signs = torch.tensor([-1.0 if odd else 1.0 for odd in ODD], dtype=fields.dtype, device=fields.device)
    below, above = fields[..., :width, :].flip(-2), fields[..., -width:, :].flip(-2)
    tall = torch.cat((below * signs[:, None, None], fields, above * signs[:, None, None]), -2)
    return torch.cat((tall[..., -width:], tall, tall[..., :width]), -1)


def _halved(fields: Float[Tensor, "m 4 z x"], dim: int) -> Float[Tensor, "m 4 _z _x"]:
    """Returns the halves of all cells but two at each end of an axis."""
    count = fields.shape[dim] - 2 * STENCIL
    far_left, left, middle, right, far_right = (fields.narrow(dim, at, count) for at in range(2 * STENCIL + 1))
    slope = FIRST * (right - left) - SECOND * (far_right - far_left)
    return torch.stack((middle - slope, middle + slope), dim=dim).flatten(dim - 1, dim)


def carried(
    detail: Float[Tensor, "m 4 z x"],
    wind: Float[Tensor, "m 2 z x"],
    seconds: Float[Tensor, "m 1 1"],
    spacing: tuple[float, float],
) -> Float[Tensor, "m 4 z x"]:
    """Returns fields that a wind has carried for some seconds, linearly interpolated where they come from.

    Two steps backward along the wind, of which the second takes the wind half-way; semi-Lagrangian.

    Args:
        wind: along x and z, m/s.
        spacing: of cells along x and z, m.
    """
    rows, columns = detail.shape[-2:]
    z = torch.arange(rows, dtype=detail.dtype, device=detail.device)[:, None].expand(rows, columns)
    x = torch.arange(columns, dtype=detail.dtype, device=detail.device).expand(rows, columns)
    along_x, along_z = seconds / spacing[0], seconds / spacing[1]
    half_x, half_z = x - wind[:, 0] * along_x / 2, z - wind[:, 1] * along_z / 2
    middle = _at(wind, half_x, half_z)
    return _at(detail, x - middle[:, 0] * along_x, z - middle[:, 1] * along_z)


def _at(
    fields: Float[Tensor, "m channel z x"], x: Float[Tensor, "m z x"], z: Float[Tensor, "m z x"]
) -> Float[Tensor, "m channel z x"]:
    """Returns fields at positions in cells, linearly interpolated; periodic along x, and the edge's beyond z."""
    rows, columns = fields.shape[-2:]
    around = torch.cat((fields[..., -1:], fields, fields[..., :1]), -1)
    x = 2 * (x.remainder(columns) + 1.5) / (columns + 2) - 1
    z = 2 * (z + 0.5) / rows - 1
    return F.grid_sample(
        around, torch.stack((x, z), dim=-1), mode="bilinear", padding_mode="border", align_corners=False
    )
