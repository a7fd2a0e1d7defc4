"""A grid cut into tiles that a model sees one by one, each with a halo of the cells around it.

Tokens attend within their tile and its halo alone, so that attention costs in proportion to the number of tiles. What
lies beyond the halo is out of sight; also of normalizations, whose means are those of a tile.

Source: Wang et al. (2025), https://doi.org/10.48550/arXiv.2505.04802, who call them TILES.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from sciml.core.errors import ConfigError
from sciml.models.field_model import FieldInputs
from sciml.nn.patch import cropped
from sciml.nn.topology import Plane, Side, Topology

ALONE = Plane((Side.OPEN, Side.OPEN), (Side.OPEN, Side.OPEN))
"""The surroundings of a tile and its halo, of which it knows nothing."""


@dataclass(frozen=True)
class Tiles:
    """Cuts a grid into tiles of one size, and puts them together again.

    Attributes:
        grid: rows and columns of the grid.
        number: of tiles along rows and along columns.
        halo: cells around a tile.
        multiple: cells that a tile's sides must be a multiple of; the grid is continued beyond its end for it.
    """

    grid: tuple[int, int]
    number: tuple[int, int]
    halo: int
    multiple: int

    def __post_init__(self) -> None:
        for cells, tiles, (size, extra) in zip(self.grid, self.number, self._sides, strict=True):
            if size * (tiles - 1) >= cells or self.halo + extra > cells:
                rows, columns = self.grid
                raise ConfigError(
                    f"{rows} rows and {columns} columns cannot be cut into {list(self.number)} tiles with halos of "
                    f"{self.halo} cells",
                    key="model.tiles",
                    hint="use fewer tiles, or a smaller model.halo",
                )

    @property
    def _sides(self) -> list[tuple[int, int]]:
        """Returns for rows and columns the cells of a tile, and how far the last one reaches beyond the grid."""
        sides = []
        for cells, tiles in zip(self.grid, self.number, strict=True):
            size = -(-cells // (tiles * self.multiple)) * self.multiple
            sides.append((size, size * tiles - cells))
        return sides

    def cut(self, inputs: FieldInputs) -> FieldInputs:
        """Returns the inputs of all tiles as samples: those of a sample behind one another, row by row."""
        count, tiles = len(inputs.fields), self.number[0] * self.number[1]
        padded = inputs.topology.pad(inputs.fields, self._widths, inputs.odd)
        return replace(
            inputs,
            fields=self._windows(padded).movedim((-4, -3), (1, 2)).flatten(0, 2),
            scalars={name: values.repeat_interleave(tiles, 0) for name, values in inputs.scalars.items()},
            angles={name: self._of_angles(angle, inputs.topology, count) for name, angle in inputs.angles.items()},
            topology=ALONE,
            noise=None if inputs.noise is None else inputs.noise.repeat_interleave(tiles, 0),
        )

    def join(self, fields: Float[Tensor, "tile variable _row _column"]) -> Float[Tensor, "batch variable row column"]:
        """Returns the whole grid of fields on all tiles, without their halos."""
        (rows, _), (columns, _) = self._sides
        inner = fields[..., self.halo : self.halo + rows, self.halo : self.halo + columns]
        whole = inner.unflatten(0, (-1, *self.number)).movedim((1, 2), (2, 4))
        return cropped(whole.flatten(4, 5).flatten(2, 3), *self.grid)

    @property
    def _widths(self) -> tuple[int, int, int, int]:
        (_, below), (_, right) = self._sides
        return self.halo, self.halo + right, self.halo, self.halo + below

    def _windows(self, padded: Float[Tensor, "*batch row column"]) -> Float[Tensor, "*batch down across _row _column"]:
        (rows, _), (columns, _) = self._sides
        halos = 2 * self.halo
        return padded.unfold(-2, rows + halos, rows).unfold(-2, columns + halos, columns)

    def _of_angles(
        self, angle: Float[Tensor, "*batch row column"], topology: Topology, count: int
    ) -> Float[Tensor, "tile _row _column"]:
        whole = angle.expand(count, *angle.shape[-2:])
        return self._windows(topology.pad(whole[:, None], self._widths)[:, 0]).flatten(0, 2)
