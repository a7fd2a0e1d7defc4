"""Fields that a wind has carried for some seconds: semi-Lagrangian, and differentiable."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sciml.nn.topology import Plane, Side


def carried(
    fields: Float[Tensor, "m channel z x"],
    wind: Float[Tensor, "m 2 z x"],
    seconds: Float[Tensor, "m 1 1"],
    spacing: tuple[float, float],
    plane: Plane,
) -> Float[Tensor, "m channel z x"]:
    """Returns fields that a wind has carried for some seconds, linearly interpolated where they come from.

    Two steps backward along the wind, of which the second takes the wind half-way. What comes from beyond a side that
    does not repeat is what lies at it.

    Args:
        wind: along x and z, m/s.
        spacing: of cells along x and z, m.
    """
    rows, columns = fields.shape[-2:]
    z = torch.arange(rows, dtype=fields.dtype, device=fields.device)[:, None].expand(rows, columns)
    x = torch.arange(columns, dtype=fields.dtype, device=fields.device).expand(rows, columns)
    along_x, along_z = seconds / spacing[0], seconds / spacing[1]
    half_x, half_z = x - wind[:, 0] * along_x / 2, z - wind[:, 1] * along_z / 2
    middle = _at(wind, half_x, half_z, plane)
    return _at(fields, x - middle[:, 0] * along_x, z - middle[:, 1] * along_z, plane)


def _at(
    fields: Float[Tensor, "m channel z x"], x: Float[Tensor, "m z x"], z: Float[Tensor, "m z x"], plane: Plane
) -> Float[Tensor, "m channel z x"]:
    """Returns fields at positions in cells, linearly interpolated."""
    fields, x = _unrolled(fields, x, -1, plane.x)
    fields, z = _unrolled(fields, z, -2, plane.z)
    places = torch.stack((x, z), dim=-1)
    return F.grid_sample(fields, places, mode="bilinear", padding_mode="border", align_corners=False)


def _unrolled(
    fields: Float[Tensor, "m channel _z _x"], positions: Float[Tensor, "m z x"], dim: int, sides: tuple[Side, Side]
) -> tuple[Float[Tensor, "m channel _rows _columns"], Float[Tensor, "m z x"]]:
    """Returns fields with what lies around a periodic axis, and positions along it as shares from -1 to 1."""
    cells = fields.shape[dim]
    if sides[0] is not Side.PERIODIC:
        return fields, 2 * (positions + 0.5) / cells - 1
    around = torch.cat((fields.narrow(dim, cells - 1, 1), fields, fields.narrow(dim, 0, 1)), dim)
    return around, 2 * (positions.remainder(cells) + 1.5) / (cells + 2) - 1
