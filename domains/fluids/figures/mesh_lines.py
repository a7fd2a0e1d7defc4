"""The patches of a model's mesh as lines to draw."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class MeshLines:
    """Holds patches over a grid, and which of them a model refined on its way.

    Attributes:
        cells: along z and x.
        patch_sizes: cells along a side of each level's patches, coarsest first.
        refined: of each level but the last, whether its patches were refined before each step.

    Raises:
        ValueError: flags of other patches.
    """

    cells: tuple[int, int]
    patch_sizes: tuple[int, ...]
    refined: tuple[Bool[np.ndarray, "step _patch_z _patch_x"], ...] = ()

    def __post_init__(self) -> None:
        root = self.patch_sizes[0]
        for size, flags in zip(self.patch_sizes, self.refined, strict=False):
            shape = tuple(-(-count // root) * root // size for count in self.cells)
            if flags.shape[1:] != shape:
                raise ValueError(f"patches of {size} cells are {shape}, not {flags.shape[1:]}")

    @classmethod
    def of(cls, model: Mapping[str, Any], values: Mapping[str, np.ndarray], cells: tuple[int, int]) -> MeshLines | None:
        """Returns the mesh of a model's configuration and the arrays ``refined_0``, ...; None without patches that
        may be refined.
        """
        if "ratios" not in model:
            return None
        ratios = model["ratios"] or ()
        sizes = tuple(model["patch_size"] // math.prod(ratios[:level]) for level in range(len(ratios) + 1))
        names = [f"refined_{level}" for level in range(len(ratios))]
        return cls(cells, sizes, tuple(np.asarray(values[name], bool) for name in names if name in values))

    def levels(self, frame: int) -> list[Float[np.ndarray, "line end 2"]]:
        """Returns for each level the lines that its patches add, as ends (x, z) in cells; what sticks out is cut off.

        Args:
            frame: 0 is the initial state, ``i`` the forecast of step ``i``. The last forecast was refined no more: it
                has the mesh of the state before.
        """
        grid_as_one_patch = np.ones((1, 1), bool)
        lines = [self._inner(grid_as_one_patch, max(self.cells), self.patch_sizes[0])]
        for level, flags in enumerate(self.refined):
            lines.append(self._inner(flags[min(frame, len(flags) - 1)], *self.patch_sizes[level : level + 2]))
        return lines

    def _inner(
        self, refined: Bool[np.ndarray, "patch_z patch_x"], size: int, child: int
    ) -> Float[np.ndarray, "line end 2"]:
        """Returns lines between the children of some patches."""
        rows, columns = self.cells
        low_z, low_x = (size * index[:, None] for index in np.nonzero(refined))
        high_z, high_x = np.minimum(low_z + size, rows), np.minimum(low_x + size, columns)
        inner = np.arange(child, size, child)[None]
        across, along = low_x + inner, low_z + inner
        upright = _lines(across, low_z, across, high_z)[across.ravel() < columns]
        level = _lines(low_x, along, high_x, along)[along.ravel() < rows]
        return np.concatenate([upright, level]).astype(float)


def _lines(*ends: np.ndarray) -> np.ndarray:
    return np.stack(np.broadcast_arrays(*ends), axis=-1).reshape(-1, 2, 2)
