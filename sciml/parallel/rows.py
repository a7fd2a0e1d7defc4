"""Rows of a grid spread over ranks, for convolutions: each rank works on a band of rows, and its neighbors' edges.

A band meets at its edges the rows of the next ranks, which are sent before each convolution. The first and the last
band have the edges of the grid; what lies beyond those is the topology's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from sciml.distributed.collectives import (
    Group,
    all_gather,
    all_reduce,
    copy_to_region,
    exchange_rows,
    gather_replicated,
    share_gradient,
)
from sciml.nn.topology import Odd, Topology, WholeGrid, Widths

LEAST = 2
"""Rows of a band at least: that next to the edge of a grid, and one that it is mirrored at."""


def shared_rows(grid: Topology, count: int, group: Group) -> Topology:
    """Returns a topology by which the ranks of a group share a grid's rows, or all work on all where they are too few.

    Args:
        count: rows that are left whole.
    """
    if group is None:
        return grid
    return SharedRows(grid, group, count) if count >= LEAST * group.size() else SameRows(grid, group)


@dataclass(frozen=True)
class _RanksOfGrid:
    """Describes a grid that several ranks work on.

    Attributes:
        grid: what lies beyond its edges.
        group: the ranks.
    """

    grid: Topology
    group: dist.ProcessGroup

    def endless(self, fields: Float[Tensor, "*batch row column"]) -> Float[Tensor, "*batch _row _column"]:
        """Returns all rows, continued until they repeat."""
        return self.grid.endless(fields)

    def windows(
        self, shape: tuple[int, int], window: tuple[int, int], *, shifted: bool
    ) -> Int[np.ndarray, "sample row column"]:
        """Returns the windows of all rows."""
        return self.grid.windows(shape, window, shifted=shifted)


@dataclass(frozen=True)
class SameRows(_RanksOfGrid, WholeGrid):
    """Describes a grid of which all ranks work on all rows, and each takes an equal part of the gradient."""

    def pad(
        self, fields: Float[Tensor, "*batch row column"], width: Widths, odd: Odd | None = None
    ) -> Float[Tensor, "*batch padded_row padded_column"]:
        return self.grid.pad(fields, width, odd)

    def scattered(self, whole: Shaped[Tensor, "*batch row column"]) -> Shaped[Tensor, "*batch row column"]:
        return copy_to_region(whole, self.group)

    def complete(self, own: Shaped[Tensor, "*batch row column"]) -> Shaped[Tensor, "*batch row column"]:
        return share_gradient(own, self.group.size())


@dataclass(frozen=True)
class SharedRows(_RanksOfGrid):
    """Describes a grid of which each rank works on a band of rows; the first rank on the first ones.

    Attributes:
        count: rows that are left whole; others, of finer cells, lie within these. Bands are as equal as they can be.
    """

    count: int

    @property
    def _sizes(self) -> list[int]:
        """Returns the number of rows in each rank's band."""
        least, more = divmod(self.count, self.group.size())
        return [least + (rank < more) for rank in range(self.group.size())]

    def scattered(self, whole: Shaped[Tensor, "*batch row column"]) -> Shaped[Tensor, "*batch _row column"]:
        return self.own(copy_to_region(whole, self.group))

    def own(self, whole: Shaped[Tensor, "*batch row column"]) -> Shaped[Tensor, "*batch _row column"]:
        finer, rank = whole.shape[-2] // self.count, self.group.rank()
        starts = [0, *accumulate(self._sizes)]
        return whole[..., starts[rank] * finer : starts[rank + 1] * finer, :]

    def gathered(self, own: Shaped[Tensor, "*batch _row column"]) -> Shaped[Tensor, "*batch row column"]:
        return self._unfilled(all_gather(self._filled(own), -2, self.group))

    def complete(self, own: Shaped[Tensor, "*batch _row column"]) -> Shaped[Tensor, "*batch row column"]:
        return self._unfilled(gather_replicated(self._filled(own), -2, self.group))

    def total(self, own: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return copy_to_region(all_reduce(own, self.group), self.group)

    def pad(
        self, fields: Float[Tensor, "*batch row column"], width: Widths, odd: Odd | None = None
    ) -> Float[Tensor, "*batch padded_row padded_column"]:
        left, right, bottom, top = (width,) * 4 if isinstance(width, int) else width
        if bottom or top:
            below, above = self._neighbors(fields, max(bottom, top), odd)
            fields = torch.cat((below[..., below.shape[-2] - bottom :, :], fields, above[..., :top, :]), dim=-2)
        return self.grid.pad(fields, (left, right, 0, 0), odd)

    def _neighbors(
        self, fields: Float[Tensor, "*batch row column"], width: int, odd: Odd | None
    ) -> tuple[Float[Tensor, "*batch width column"], Float[Tensor, "*batch width column"]]:
        """Returns so many rows on each side of this rank's band."""
        reach = width + 1  # one more than is wanted, where a row lies on a pole
        first, last = fields[..., :reach, :], fields[..., fields.shape[-2] - reach :, :]
        below, above = self._exchanged(first, last)
        rank, size = self.group.rank(), self.group.size()
        if rank in (0, size - 1):  # the ends of the grid, put together, are continued as the grid is
            ends = torch.cat((first, below) if rank == 0 else (above, last), dim=-2)
            around = self.grid.pad(ends, (0, 0, width, width), odd)
            if rank == 0:
                below = around[..., :width, :]
            else:
                above = around[..., around.shape[-2] - width :, :]
        return below, above

    def _exchanged(
        self, first: Float[Tensor, "*batch reach column"], last: Float[Tensor, "*batch reach column"]
    ) -> tuple[Float[Tensor, "*batch reach column"], Float[Tensor, "*batch reach column"]]:
        """Returns the last rows of the rank before, and the first ones of the next, around all ranks."""
        rank, size, reach = self.group.rank(), self.group.size(), first.shape[-2]
        sent = sorted((((rank - 1) % size, 0, first), ((rank + 1) % size, 1, last)), key=lambda part: part[:2])
        counts = [reach * sum(other == target for target, _, _ in sent) for other in range(size)]
        rows = torch.cat([part for _, _, part in sent], dim=-2).movedim(-2, 0)
        found = exchange_rows(rows, counts, counts, self.group).movedim(0, -2)
        # From each rank its first rows come before its last ones: those are of the next, these of the one before.
        came = sorted((((rank + 1) % size, 0), ((rank - 1) % size, 1)))
        parts = dict(zip((kind for _, kind in came), found.split(reach, dim=-2), strict=True))
        return parts[1], parts[0]

    def _filled(self, own: Shaped[Tensor, "*batch _row column"]) -> Shaped[Tensor, "*batch _row column"]:
        """Returns a band with as many rows as the largest has."""
        finer = own.shape[-2] // self._sizes[self.group.rank()]
        return F.pad(own, (0, 0, 0, finer * max(self._sizes) - own.shape[-2]))

    def _unfilled(self, bands: Shaped[Tensor, "*batch _row column"]) -> Shaped[Tensor, "*batch row column"]:
        """Returns all rows of bands that were filled up."""
        sizes = self._sizes
        if len(set(sizes)) == 1:
            return bands
        finer = bands.shape[-2] // (len(sizes) * max(sizes))
        filled = bands.split(finer * max(sizes), dim=-2)
        return torch.cat([band[..., : size * finer, :] for band, size in zip(filled, sizes, strict=True)], dim=-2)
