"""Trees of patches over a grid: the coarsest cover it, and refined ones have children besides. Any number of axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sciml.core.errors import ConfigError


@dataclass(frozen=True)
class PatchGeometry:
    """Says where the patches of each level would be, were it complete.

    Attributes:
        cells: of the grid along each axis; patches of the coarsest level may stick out at the ends.
        patch_sizes: cells along a side of each level's patches, each a multiple of the next.
    """

    cells: tuple[int, ...]
    patch_sizes: tuple[int, ...]

    @property
    def num_levels(self) -> int:
        return len(self.patch_sizes)

    @cached_property
    def padded(self) -> tuple[int, ...]:
        """Counts the cells along each axis that the coarsest patches cover."""
        root = self.patch_sizes[0]
        return tuple(-(-count // root) * root for count in self.cells)

    @property
    def fits(self) -> bool:
        """Says whether no patch sticks out of the grid."""
        return self.padded == self.cells

    def shape(self, level: int) -> tuple[int, ...]:
        """Counts the patches of a level along each axis; a patch's number counts through them, the last axis
        fastest.
        """
        return tuple(count // self.patch_sizes[level] for count in self.padded)

    def num_nodes(self, level: int) -> int:
        return math.prod(self.shape(level))

    def num_children(self, level: int) -> int:
        """Counts the children of a refined patch of a level."""
        return (self.patch_sizes[level] // self.patch_sizes[level + 1]) ** len(self.cells)

    def coordinates(self, nodes: Int[Tensor, "*batch token"], level: int) -> list[Int[Tensor, "*batch token"]]:
        """Returns each patch's position along each axis."""
        positions = []
        for size in reversed(self.shape(level)):
            positions.append(nodes % size)
            nodes = nodes // size
        return positions[::-1]

    def children(self, nodes: Int[Tensor, "batch token"], level: int) -> Int[Tensor, "batch child"]:
        """Returns the children of some patches, one patch's after the other's."""
        ratio = self.patch_sizes[level] // self.patch_sizes[level + 1]
        offsets = torch.tensor(list(itertools.product(range(ratio), repeat=len(self.cells))), device=nodes.device)
        numbers = torch.zeros((), dtype=nodes.dtype, device=nodes.device)
        for axis, (coordinate, size) in enumerate(
            zip(self.coordinates(nodes, level), self.shape(level + 1), strict=True)
        ):
            numbers = numbers * size + coordinate[..., None] * ratio + offsets[:, axis]
        return numbers.flatten(1)

    def corners(
        self, nodes: Int[Tensor, "batch token"], level: int, sizes: Sequence[int]
    ) -> Int[Tensor, "batch token"]:
        """Returns the number of each patch's first cell in an array of the given sizes."""
        cell = torch.zeros((), dtype=nodes.dtype, device=nodes.device)
        for coordinate, size in zip(self.coordinates(nodes, level), sizes, strict=True):
            cell = cell * size + coordinate * self.patch_sizes[level]
        return cell


@dataclass(frozen=True)
class Level:
    """Holds patches of one size.

    Attributes:
        nodes: their numbers, see :meth:`PatchGeometry.shape`.
        present: which of them there are; the others only fill up the batch. None: all are.
        refined: places in ``nodes`` of the patches whose children make up the next level, in this order.
        refines: which of those there are.
        gates: by what children's contributions are multiplied, so that a learned choice can be learned.
    """

    nodes: Int[Tensor, "batch token"]
    present: Bool[Tensor, "batch token"] | None
    refined: Int[Tensor, "batch slot"]
    refines: Bool[Tensor, "batch slot"] | None = None
    gates: Float[Tensor, "batch slot"] | None = None

    @property
    def num_tokens(self) -> int:
        return self.nodes.shape[1]


@dataclass(frozen=True)
class Forest:
    """Holds the patches of a batch of states.

    Attributes:
        levels: coarsest first; the last has no refined patches.
    """

    geometry: PatchGeometry
    levels: tuple[Level, ...]

    @property
    def num_tokens(self) -> int:
        """Counts the tokens of a sample, with those that only fill up."""
        return sum(level.num_tokens for level in self.levels)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Returns where each level begins among a sample's tokens, and their number."""
        return tuple(itertools.accumulate((level.num_tokens for level in self.levels), initial=0))

    @property
    def mask(self) -> Bool[Tensor, "batch token"] | None:
        """Says which tokens exist; None where all do."""
        if all(level.present is None for level in self.levels):
            return None
        parts = [
            torch.ones_like(level.nodes, dtype=torch.bool) if level.present is None else level.present
            for level in self.levels
        ]
        return torch.cat(parts, dim=1)

    def is_refined(self, index: int) -> Bool[Tensor, "batch node"]:
        """Says of every patch that a complete level would have whether it is refined."""
        level = self.levels[index]
        flags = torch.ones_like(level.refined, dtype=torch.bool) if level.refines is None else level.refines
        refined = flags.new_zeros(len(level.nodes), self.geometry.num_nodes(index))
        return refined.scatter(1, level.nodes.gather(1, level.refined), flags)


def slots(budget: float, num_nodes: int) -> int:
    """Returns how many patches a share of them is, to the nearest whole number.

    Raises:
        ConfigError: where there are not so many.
    """
    count = int(budget * num_nodes + 0.5)
    if not 0 <= count <= num_nodes:
        raise ConfigError(
            f"{count} patches cannot be refined of {num_nodes}", key="model.budgets", hint="write shares from 0 to 1"
        )
    return count


def roots(geometry: PatchGeometry, batch: int, device: torch.device) -> Int[Tensor, "batch token"]:
    """Returns the coarsest patches of every sample."""
    return torch.arange(geometry.num_nodes(0), device=device).expand(batch, -1)
