"""Prepares the inputs that decide a refinement: states with what lies around them in space and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from domains.fluids.amr.forest import PatchGeometry
from domains.fluids.data.boundary import Boundary
from sciml.nn.topology import Odd, Planes, Side

WINDS = {"x": "uwnd", "z": "wwnd"}
"""The channel of the wind along each axis."""
CHANGE = "change_of_"
"""Begins the names of channels with what a solver has changed of a variable."""


@dataclass(frozen=True)
class IndicatorInputs:
    """Holds a batch of states, as indicators and tokenizer read it.

    Attributes:
        fields: normalized.
        channels: their names.
        boundaries: of each sample.
        previous: the states one frame before, where they are known.
        truth: the states one step later, for the oracle.
        residual: by how much a solver on a coarser grid steps otherwise, where there is a solver.
    """

    fields: Float[Tensor, "batch channel z x"]
    channels: tuple[str, ...]
    boundaries: tuple[Boundary, ...]
    previous: Float[Tensor, "batch channel z x"] | None = None
    truth: Float[Tensor, "batch channel z x"] | None = None
    residual: Float[Tensor, "batch variable z x"] | None = None

    def padded(self, widths: tuple[int, int, int, int]) -> Float[Tensor, "batch channel padded_z padded_x"]:
        """Returns the states with ghost cells at left, right, bottom and top, by each sample's boundary.

        Winds change their sign in a wall; exact where normalization leaves their zero in place.
        """
        return Planes(self.boundaries).pad(self.fields, widths, odd_winds(self.channels))

    @property
    def periodic(self) -> Bool[Tensor, "batch axis"]:
        """Says of each sample whether z and x are periodic."""
        flags = [[sides[0] is Side.PERIODIC for sides in (b.z, b.x)] for b in self.boundaries]
        return torch.tensor(flags, device=self.fields.device)

    def gradients(
        self, channels: Sequence[int]
    ) -> tuple[Float[Tensor, "batch channel z x"], Float[Tensor, "batch channel z x"]]:
        """Returns central differences of some channels along z and x, per cell."""
        around = self.padded((1, 1, 1, 1))[:, list(channels)]
        along_z = (around[..., 2:, 1:-1] - around[..., :-2, 1:-1]) / 2
        return along_z, (around[..., 1:-1, 2:] - around[..., 1:-1, :-2]) / 2


def odd_winds(names: Sequence[str]) -> Odd:
    """Says of each variable whether a wall normal to x, and one normal to z, turns it around."""
    variables = [name.removeprefix(CHANGE) for name in names]
    return [name == WINDS["x"] for name in variables], [name == WINDS["z"] for name in variables]


def patch_means(
    cells: Float[Tensor, "batch *channel z x"], geometry: PatchGeometry, level: int
) -> tuple[Float[Tensor, "batch *channel node"], Bool[Tensor, "node"]]:
    """Returns means over the cells of every patch of a level that lie in the grid, and which patches have any."""
    size = geometry.patch_sizes[level]
    behind = [full - count for full, count in zip(geometry.padded, geometry.cells, strict=True)]

    def sums(x: Float[Tensor, "*channel z x"]) -> Float[Tensor, "*channel node"]:
        x = F.pad(x, (0, behind[1], 0, behind[0]))
        return x.unflatten(-1, (-1, size)).sum(-1).unflatten(-2, (-1, size)).sum(-2).flatten(-2)

    counts = sums(cells.new_ones(geometry.cells))
    return sums(cells) / counts.clamp(min=1), counts > 0
