"""Extends a flow beyond its edges: typed boundary conditions, and ghost cells that follow them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from sciml.core.errors import ConfigError, nearest


class Side(str, Enum):
    """Says what a flow meets at one side of the domain.

    Inflow and outflow are both ``OPEN``: what comes in looks like what is at the edge.
    """

    PERIODIC = "periodic"
    WALL = "wall"
    OPEN = "open"


NAMES = {side.value: side for side in Side} | {"inflow": Side.OPEN, "outflow": Side.OPEN}


@dataclass(frozen=True)
class Boundary:
    """Holds the sides of a domain.

    Attributes:
        x: left and right.
        z: bottom and top.
    """

    x: tuple[Side, Side]
    z: tuple[Side, Side]

    def __post_init__(self) -> None:
        for axis, sides in (("x", self.x), ("z", self.z)):
            if (sides[0] is Side.PERIODIC) != (sides[1] is Side.PERIODIC):
                raise ConfigError(
                    f"{sides[0].value} at one side and {sides[1].value} at the other cannot be",
                    key=f"boundary.{axis}",
                    hint="both sides are periodic or none is",
                )

    @classmethod
    def of(cls, x: str | Sequence[str], z: str | Sequence[str]) -> Boundary:
        """Makes a boundary from names: one for both sides of an axis, or one for each.

        Args:
            x: ``periodic``, ``wall``, ``open`` (or ``inflow``, ``outflow``); or two, left and right.
            z: the same of bottom and top.

        Raises:
            ConfigError: an unknown name, or one that is periodic at one side only.
        """
        return cls(_sides(x, "boundary.x"), _sides(z, "boundary.z"))

    @property
    def names(self) -> dict[str, tuple[str, str]]:
        """Returns the names that :meth:`of` takes, for files."""
        return {axis: (sides[0].value, sides[1].value) for axis, sides in (("x", self.x), ("z", self.z))}


def _sides(names: str | Sequence[str], key: str) -> tuple[Side, Side]:
    both = [names, names] if isinstance(names, str) else list(names)
    if len(both) != 2:
        raise ConfigError(f"{both} are not the two sides of an axis", key=key, hint="for example [wall, open]")
    for name in both:
        if name not in NAMES:
            raise ConfigError(f"unknown boundary {str(name)!r}", key=key, hint=nearest(str(name), NAMES))
    return NAMES[both[0]], NAMES[both[1]]


def pad(
    fields: Float[Tensor, "... channel z x"],
    boundary: Boundary,
    width: int | tuple[int, int, int, int],
    odd: tuple[Sequence[bool], Sequence[bool]],
) -> Float[Tensor, "... channel padded_z padded_x"]:
    """Adds ghost cells: what repeats is continued, a wall is a mirror, an open side repeats its edge.

    Args:
        width: cells at each side, or at left, right, bottom and top.
        odd: of each channel, whether it changes its sign in a wall that x, and one that z, is normal to; so does the
            wind across it.
    """
    left, right, bottom, top = (width,) * 4 if isinstance(width, int) else width
    fields = _pad_axis(fields, -1, boundary.x, left, right, tuple(odd[0]))
    return _pad_axis(fields, -2, boundary.z, bottom, top, tuple(odd[1]))


def _pad_axis(
    fields: Float[Tensor, "... channel z x"],
    dim: int,
    sides: tuple[Side, Side],
    before: int,
    after: int,
    odd: tuple[bool, ...],
) -> Float[Tensor, "... channel padded_z padded_x"]:
    if before == after == 0:
        return fields
    index, mirrored = _sources(fields.shape[dim], sides, before, after)
    padded = fields.index_select(dim, torch.tensor(index, device=fields.device))
    if not (any(odd) and any(mirrored)):
        return padded
    flips = torch.tensor(odd, device=fields.device)[:, None] & torch.tensor(mirrored, device=fields.device)
    return torch.where(flips.unsqueeze(-2 if dim == -1 else -1), -padded, padded)


@cache
def _sources(size: int, sides: tuple[Side, Side], before: int, after: int) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Returns for each cell of a padded axis the one it takes its value from, and whether it is a mirror image
    of it.
    """
    found = [_source(cell, size, sides) for cell in range(-before, size + after)]
    return tuple(cell for cell, _ in found), tuple(mirrored for _, mirrored in found)


def _source(cell: int, size: int, sides: tuple[Side, Side]) -> tuple[int, bool]:
    mirrored = False
    while not 0 <= cell < size:  # more than once where the padding is wider than the domain
        side = sides[0] if cell < 0 else sides[1]
        if side is Side.PERIODIC:
            cell %= size
        elif side is Side.OPEN:
            cell = 0 if cell < 0 else size - 1
        else:
            cell, mirrored = (-1 - cell if cell < 0 else 2 * size - 1 - cell), not mirrored
    return cell, mirrored
