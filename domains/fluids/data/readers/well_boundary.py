"""The typed boundaries of The Well: what is at each end of each axis, and where obstacles are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from domains.fluids.data.boundary import NAMES, Boundary
from domains.fluids.data.readers.hdf5 import attribute, text
from sciml.core.errors import DataError, nearest
from sciml.nn.topology import Side

HINT = "give one, e.g. data.boundary={x: periodic, z: wall}"


@dataclass(frozen=True)
class Sides:
    """Holds what a file says of its boundaries.

    Attributes:
        sides: of each axis, at its first and last end; None where the file does not tell.
        obstacles: where there is no fluid, of all trajectories or of each: (1 or member, z, x).
    """

    name: str
    sides: Mapping[str, list[Side | None]]
    obstacles: Bool[np.ndarray, "_ z x"]

    def boundary(self, descends: tuple[bool, bool] = (False, False)) -> Boundary:
        """Returns the conditions of both axes.

        Args:
            descends: which axes files have from the highest on.

        Raises:
            DataError: an end has none.
        """
        if not any(side for ends in self.sides.values() for side in ends):
            raise DataError(f"{self.name}: tells no boundary_conditions; {HINT}")
        for axis, ends in self.sides.items():
            if None in ends:
                raise DataError(f"{self.name}: no boundary condition at an end of {axis}; {HINT}")
        found = [[side.value for side in ends if side] for ends in self.sides.values()]
        return Boundary.of(*(ends[::-1] if turned else ends for ends, turned in zip(found, descends, strict=True)))

    def obstacle(self, member: int) -> Bool[np.ndarray, "z x"] | None:
        """Returns where a trajectory has no fluid; None where it has it everywhere."""
        mask: np.ndarray = self.obstacles[member if len(self.obstacles) > 1 else 0]
        return mask if mask.any() else None


def read_sides(file: Any, name: str, axes: Mapping[str, int], members: int) -> Sides:
    """Reads the conditions; a wall inside is an obstacle, and a mask of the plane that covers an edge is that side.

    Args:
        axes: of space, with their numbers of points; the first is x.
        members: trajectories.

    Raises:
        DataError: an unknown condition, or a mask that does not fit the grid.
    """
    sides: dict[str, list[Side | None]] = {axis: [None, None] for axis in axes}
    obstacles = np.zeros((1, *list(axes.values())[::-1]), dtype=bool)
    for key, condition in file.get("boundary_conditions", {}).items():
        kind = text(attribute(condition, "bc_type", name)).lower()
        if kind not in NAMES:
            raise DataError(f"{name}: unknown boundary {kind!r} of {key}; {nearest(kind, NAMES)}")
        along = [text(axis) for axis in attribute(condition, "associated_dims", name)]
        masks = _masks(condition, f"{name}: boundary_conditions/{key}", along, axes, members)
        if len(along) == 1:
            for end, index in enumerate((0, -1)):
                if masks[:, index].all():
                    sides[along[0]][end] = NAMES[kind]
            continue
        planes = masks if along == list(axes) else masks.swapaxes(1, 2)  # (member, x, y)
        inside = _without_edges(planes, sides, NAMES[kind])
        if NAMES[kind] is Side.WALL:
            obstacles = obstacles | inside.swapaxes(1, 2)
    return Sides(name, sides, obstacles)


def _without_edges(
    planes: Bool[np.ndarray, "member x y"], sides: Mapping[str, list[Side | None]], kind: Side
) -> Bool[np.ndarray, "member x y"]:
    """Takes the edges that a condition covers out of its mask, and notes them as sides."""
    inside = planes.copy()
    for axis, ends in enumerate(sides.values()):
        covered, left = np.moveaxis(planes, axis + 1, 1), np.moveaxis(inside, axis + 1, 1)
        for end, (edge, next_to_it) in enumerate(((0, 1), (-1, -2))):
            if covered[:, edge, 1:-1].all():  # corners belong to either edge
                ends[end] = kind
                if not covered[:, next_to_it, 1:-1].all():
                    left[:, edge] = False  # these are the cells at a wall, which flow; nothing behind them is solid
    return inside


def _masks(
    condition: Any, where: str, along: list[str], axes: Mapping[str, int], members: int
) -> Bool[np.ndarray, "..."]:
    """Returns the mask of all trajectories, or of each, as (1 or member, ...)."""
    if "mask" not in condition:
        raise DataError(f"{where} has no mask")
    unknown = [axis for axis in along if axis not in axes]
    if unknown or len(along) not in (1, 2):
        raise DataError(f"{where} is of {', '.join(along) or 'no axis'}; some of {', '.join(axes)} are needed")
    if condition.attrs.get("time_varying", False):
        raise DataError(f"{where} changes in time; boundaries that stay are needed")
    mask = np.asarray(condition["mask"]).astype(bool)
    expected = tuple(axes[axis] for axis in along)
    if mask.shape == expected:
        return mask[None]
    if mask.shape != (members, *expected):
        raise DataError(f"{where}/mask has the shape {mask.shape}, {expected} is needed")
    return mask
