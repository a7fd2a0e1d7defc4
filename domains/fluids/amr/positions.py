"""Encodes a patch's position as angles: functions of its place in the domain, so that weights serve any resolution."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from domains.fluids.amr.forest import Forest

AXES = ("z", "x")


def patch_angles(forest: Forest, periodic: Bool[Tensor, "batch axis"]) -> dict[str, Float[Tensor, "batch token"]]:
    """Returns the angles of the patches' centers, in float64, coarsest level first.

    From end to end of the domain an angle grows by 2 pi where it is periodic, so that its harmonics are exactly
    periodic too, and by pi where it is not: its sine is then a distance to the nearest end, its cosine tells both
    ends apart.
    """
    geometry = forest.geometry
    angles = {}
    for axis, name in enumerate(AXES):
        turns = math.pi * (1 + periodic[:, axis, None].double()) / geometry.cells[axis]
        centers = [
            (geometry.coordinates(level.nodes, index)[axis].double() + 0.5) * geometry.patch_sizes[index]
            for index, level in enumerate(forest.levels)
        ]
        angles[name] = torch.cat(centers, dim=1) * turns
    return angles
