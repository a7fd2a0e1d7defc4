"""Names what a flow meets at the sides of its domain; what lies beyond them is :mod:`sciml.nn.topology`'s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sciml.core.errors import ConfigError, nearest
from sciml.nn.topology import Plane, Side

OBSTACLE = "obstacle"
"""Name of the field that is 1 where there is no fluid inside of a domain."""
NAMES = {side.value: side for side in Side} | {"inflow": Side.OPEN, "outflow": Side.OPEN}


@dataclass(frozen=True)
class Boundary(Plane):
    """Holds the sides of a domain: ``x`` left and right, ``z`` bottom and top."""

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
