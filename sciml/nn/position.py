"""Encodes the position of a token: Fourier features of its coordinates, and rotations of queries and keys.

Both are functions of coordinates and not tables of tokens, so weights trained on one grid work on any other.
Longitude enters through integer harmonics only and is therefore exactly periodic. Of a sequence, the coordinate is
the number of tokens before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sciml.core.devices import widest_float

ROTARY_BASE = 10000.0
"""Tokens per radian of the slowest rotation of a sequence, about."""


class Rotary(NamedTuple):
    """Holds cosine and sine of each token's angles, one per pair of head channels."""

    cos: Float[Tensor, "*batch token 1 pair"]
    sin: Float[Tensor, "*batch token 1 pair"]


def patch_centers(
    latitude: Float[Tensor, "latitude"], longitude: Float[Tensor, "longitude"], patch_size: int
) -> dict[str, Float[Tensor, "token"]]:
    """Returns the coordinates of the patches' centers in radians, row by row, in float64.

    Args:
        latitude: degrees north of the grid's rows; beyond the last one the patches stand where it does.
        longitude: degrees east of the grid's columns; a patch may lie across the meridian where they jump.
        patch_size: rows and columns of a patch.
    """
    whole = [torch.cat([axis, axis[-1:].expand(-len(axis) % patch_size)]) for axis in (latitude, longitude)]
    rows, angle = (torch.deg2rad(axis.double()).unflatten(0, (-1, patch_size)) for axis in whole)
    rows = rows.mean(-1)
    columns = torch.atan2(angle.sin().mean(-1), angle.cos().mean(-1))
    lat, lon = torch.meshgrid(rows, columns, indexing="ij")
    return {"latitude": lat.flatten(), "longitude": lon.flatten()}


def fourier_features(
    coordinates: Mapping[str, Float[Tensor, "*batch token"]], axes: Sequence[str], num_harmonics: int
) -> Float[Tensor, "*batch token feature"]:
    """Returns sine and cosine of the first harmonics of the chosen coordinates: 2 x axes x harmonics features,
    float32.
    """
    harmonics = torch.arange(1, num_harmonics + 1, device=coordinates[axes[0]].device)
    angles = [coordinates[axis][..., None] * harmonics for axis in axes]
    return torch.cat([f for a in angles for f in (a.sin(), a.cos())], dim=-1).float()


def rotary_harmonics(num_pairs: int, max_harmonic: int) -> list[int]:
    """Returns integers from 1 to ``max_harmonic``, evenly spread on a logarithmic scale; small ones may repeat."""
    return [round(max_harmonic ** (i / max(num_pairs - 1, 1))) for i in range(num_pairs)]


def coordinate_rotary(
    coordinates: Mapping[str, Float[Tensor, "*batch token"]], axes: Sequence[str], head_dim: int, max_harmonic: int
) -> Rotary:
    """Returns rotation angles for each token: harmonics of its coordinates, the pairs of a head shared among the axes.

    The product of a rotated query and a rotated key depends on their positions through coordinate differences
    only; with integer harmonics of longitude it is periodic on the sphere.

    Source: Su et al. (2021), https://doi.org/10.48550/arXiv.2104.09864, on integer frequencies.
    """
    pairs = head_dim // 2
    shares = [pairs // len(axes) + (i < pairs % len(axes)) for i in range(len(axes))]
    angles = [
        harmonic * coordinates[axis]
        for axis, share in zip(axes, shares, strict=True)
        for harmonic in rotary_harmonics(share, max_harmonic)
    ]
    angle = torch.stack(angles, dim=-1)[..., None, :]
    return Rotary(angle.cos().float(), angle.sin().float())


def sequence_rotary(num_tokens: int, head_dim: int, device: torch.device | str = "cpu") -> Rotary:
    """Returns rotation angles of a sequence's tokens: pair i of p turns by ``ROTARY_BASE ** (-i / p)`` radians a token.

    Source: Su et al. (2021), https://doi.org/10.48550/arXiv.2104.09864.
    """
    pairs = head_dim // 2
    speed = ROTARY_BASE ** -(torch.arange(pairs, dtype=widest_float(device), device=device) / pairs)
    angle = (torch.arange(num_tokens, device=device)[:, None] * speed)[:, None]
    return Rotary(angle.cos().float(), angle.sin().float())


def rotate(x: Float[Tensor, "batch token head channel"], rotary: Rotary) -> Float[Tensor, "batch token head channel"]:
    """Turns the pairs (i, i + channel / 2) of every head by their token's angles."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = rotary.cos.to(x.dtype), rotary.sin.to(x.dtype)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
