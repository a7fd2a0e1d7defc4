"""The axes of a mesh, each one way of sharing the work of a step among processes.

Nobody else names them: whoever needs "the ranks whose samples differ" or "the ranks whose gradients are summed" asks by
role, so that a second axis of a role needs no change there. Free of torch, because configuration is checked without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache


class Role(Enum):
    """Says what the ranks along an axis share."""

    STAGE = "stage"
    """Blocks, as stages of a pipeline."""
    DATA = "data"
    """Samples; each rank holds all weights."""
    SHARD = "shard"
    """Samples; weights, gradients and optimizer are sharded (ZeRO)."""
    TOKEN = "token"
    """Tokens of a sample; each rank holds all weights."""
    MATRIX = "matrix"
    """Matrices, by heads and channels, and the tokens between them."""


@dataclass(frozen=True)
class Axis:
    """Describes one axis of a mesh.

    Attributes:
        name: as in ``parallel.<name>`` and in names of communication.
        role: what its ranks share.
    """

    name: str
    role: Role

    @property
    def key(self) -> str:
        """Returns the configuration key of its degree."""
        return f"parallel.{self.name}"


RING, ULYSSES = "cp", "sp"
"""Names of the axes of tokens: attention passes keys and values around the first, and along the second exchanges tokens
for heads."""

AXES = (
    Axis("pp", Role.STAGE),
    Axis("dp", Role.DATA),
    Axis("shard", Role.SHARD),
    Axis(RING, Role.TOKEN),
    Axis(ULYSSES, Role.TOKEN),
    Axis("tp", Role.MATRIX),
)
"""From the slowest links to the fastest: neighbors in rank are neighbors along the last axis, inside a node."""

SAMPLES = (Role.DATA, Role.SHARD)
"""Roles along which ranks work on different samples of a batch."""

REPLICAS = (Role.DATA, Role.TOKEN)
"""Roles along which ranks hold the same weights, and each has a part of the gradient's sum."""

GRADIENTS = (*SAMPLES, Role.TOKEN)
"""Roles along which gradients are summed."""


@cache
def axes_of(*roles: Role) -> tuple[Axis, ...]:
    """Returns the axes of some roles, in the order of ``AXES``."""
    return tuple(axis for axis in AXES if axis.role in roles)


def key_of(role: Role) -> str:
    """Returns the configuration key that messages name for a role: that of its last axis, on the fastest links."""
    return axes_of(role)[-1].key


def num_ranks(degrees: Mapping[str, int], *roles: Role) -> int:
    """Returns the number of ranks along the axes of some roles together, given the degree of each axis by name."""
    return math.prod(degrees[axis.name] for axis in axes_of(*roles))


def label(degrees: Mapping[str, int], *roles: Role) -> str:
    """Returns the name of communication over some roles, such as ``dp_sp``: axes of more than one rank; ""
    where there is none.
    """
    return join(axis for axis in axes_of(*roles) if degrees[axis.name] > 1)


def join(axes: Iterable[Axis]) -> str:
    """Returns the name of communication along some axes."""
    return "_".join(axis.name for axis in axes)


@cache
def axes_in(label: str) -> tuple[Axis, ...]:
    """Returns the axes that make up the name of some communication; none for ``none``."""
    names = label.split("_")
    return tuple(axis for axis in AXES if axis.name in names)
