"""Fields of a flow between grids whose cells are halves of one another: means down, conserving interpolation up."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sciml.nn.topology import Plane, Side

PLANE = Plane((Side.PERIODIC, Side.PERIODIC), (Side.WALL, Side.WALL))
"""The solver's."""
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
