"""Says what lies beyond the edges of a grid: the one owner of the neighbors of its cells.

Convolutions and patches that look over an edge ask a topology for the cells there, and windows which cells are
together. On a sphere the way over a pole leads to the opposite meridian; in a plane each side has a condition of its
own. Where ranks share the rows of a grid, what a rank's own rows meet at their edges is asked in the same way
(:mod:`sciml.parallel.rows`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

Widths = int | tuple[int, int, int, int]
"""Cells at each side, or at left, right, bottom (first row) and top (last row)."""
Odd = tuple[Sequence[bool], Sequence[bool]]
"""Says of each channel whether it changes its sign in a mirror that x, and in one that z or latitude, is normal to."""


class Topology(Hashable, Protocol):
    """Describes the neighbors of a grid's cells."""

    def pad(
        self, fields: Float[Tensor, "*batch row column"], width: Widths, odd: Odd | None = None
    ) -> Float[Tensor, "*batch padded_row padded_column"]:
        """Returns fields with the cells around them; ``odd`` tells which channels are parts of vectors."""
        ...

    def endless(self, fields: Float[Tensor, "*batch row column"]) -> Float[Tensor, "*batch _row _column"]:
        """Returns fields continued at the last row and column until they repeat, so that they have no ends."""
        ...

    def windows(
        self, shape: tuple[int, int], window: tuple[int, int], *, shifted: bool
    ) -> Int[np.ndarray, "sample row column"]:
        """Returns the number of the window that each cell belongs to, for all samples of a batch or for each.

        Windows are as equal as possible. Shifted ones reach from the middle of a window to that of the next.

        Args:
            shape: rows and columns of the grid.
            window: the most rows and columns of a window.
        """
        ...

    def scattered(self, whole: Shaped[Tensor, "*batch row column"]) -> Shaped[Tensor, "*batch _row column"]:
        """Returns the rows that this rank works on, of all, before which all compute the same."""
        ...

    def own(self, whole: Shaped[Tensor, "*batch row column"]) -> Shaped[Tensor, "*batch _row column"]:
        """Returns the rows that this rank works on, of all, before which each has computed what is its own."""
        ...

    def gathered(self, own: Shaped[Tensor, "*batch _row column"]) -> Shaped[Tensor, "*batch row column"]:
        """Returns all ranks' rows, with which each goes on to compute what is its own."""
        ...

    def complete(self, own: Shaped[Tensor, "*batch _row column"]) -> Shaped[Tensor, "*batch row column"]:
        """Returns all ranks' rows, with which all go on to compute the same."""
        ...

    def total(self, own: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Returns the sum of what ranks have found on their rows, with which each goes on to compute what is its
        own.
        """
        ...


class WholeGrid:
    """Says of a grid that one rank works on all of its rows."""

    def scattered(self, whole: Shaped[Tensor, "*batch row column"]) -> Shaped[Tensor, "*batch row column"]:
        return whole

    def own(self, whole: Shaped[Tensor, "*batch row column"]) -> Shaped[Tensor, "*batch row column"]:
        return whole

    def gathered(self, own: Shaped[Tensor, "*batch row column"]) -> Shaped[Tensor, "*batch row column"]:
        return own

    def complete(self, own: Shaped[Tensor, "*batch row column"]) -> Shaped[Tensor, "*batch row column"]:
        return own

    def total(self, own: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return own


@dataclass(frozen=True)
class Sphere(WholeGrid):
    """Describes a grid of latitudes and longitudes whose rows go from pole to pole and whose columns go all around.

    Beyond a pole the rows come back half a turn further east. There both parts of a horizontal vector have changed
    their signs: what was northward is southward, and what was eastward is westward.

    Attributes:
        on_poles: whether the first and the last row lie on a pole; the row beyond is then the one before it.
    """

    on_poles: tuple[bool, bool] = (False, False)

    def pad(
        self, fields: Float[Tensor, "*batch row column"], width: Widths, odd: Odd | None = None
    ) -> Float[Tensor, "*batch padded_row padded_column"]:
        left, right, bottom, top = (width,) * 4 if isinstance(width, int) else width
        half_turn = fields.shape[-1] // 2
        first, last = map(int, self.on_poles)
        end = fields.shape[-2] - last
        below, above = fields[..., first : first + bottom, :], fields[..., end - top : end, :]
        beyond = [rows.flip(-2).roll(half_turn, -1) for rows in (below, above)]
        if odd is not None and any(odd[1]):
            signs = torch.tensor([-1.0 if is_odd else 1.0 for is_odd in odd[1]], device=fields.device)
            beyond = [rows * signs.to(rows.dtype)[:, None, None] for rows in beyond]
        tall = torch.cat([beyond[0], fields, beyond[1]], -2) if bottom or top else fields
        if not (left or right):
            return tall
        return torch.cat([tall[..., tall.shape[-1] - left :], tall, tall[..., :right]], -1)

    def endless(self, fields: Float[Tensor, "*batch row column"]) -> Float[Tensor, "*batch _row column"]:
        return self.pad(fields, (0, 0, 0, fields.shape[-2] - sum(self.on_poles)))  # over one pole, back over the other

    def windows(
        self, shape: tuple[int, int], window: tuple[int, int], *, shifted: bool
    ) -> Int[np.ndarray, "sample row column"]:
        return _around_the_axis(shape, window, shifted, (True, True))


class Side(StrEnum):
    """Says what is met at one side of a plane.

    Inflow and outflow are both ``OPEN``: what comes in looks like what is at the edge.
    """

    PERIODIC = "periodic"
    WALL = "wall"
    OPEN = "open"


@dataclass(frozen=True)
class Plane(WholeGrid):
    """Describes a grid in a plane: what repeats is continued, a wall is a mirror, an open side repeats its edge.

    Attributes:
        x: sides at left and right.
        z: sides at the bottom (first row) and at the top.
    """

    x: tuple[Side, Side]
    z: tuple[Side, Side]

    def pad(
        self, fields: Float[Tensor, "*batch row column"], width: Widths, odd: Odd | None = None
    ) -> Float[Tensor, "*batch padded_row padded_column"]:
        left, right, bottom, top = (width,) * 4 if isinstance(width, int) else width
        odd_x, odd_z = ((), ()) if odd is None else odd
        fields = _pad_axis(fields, -1, self.x, left, right, tuple(odd_x))
        return _pad_axis(fields, -2, self.z, bottom, top, tuple(odd_z))

    def endless(self, fields: Float[Tensor, "*batch row column"]) -> Float[Tensor, "*batch _row _column"]:
        return Planes((self,)).endless(fields)

    def windows(
        self, shape: tuple[int, int], window: tuple[int, int], *, shifted: bool
    ) -> Int[np.ndarray, "sample row column"]:
        z, x = (sides[0] is Side.PERIODIC for sides in (self.z, self.x))
        rows = _along_axis(shape[0], window[0], shifted, periodic=z)
        columns = _along_axis(shape[1], window[1], shifted, periodic=x)
        return (rows[:, None] * (columns.max() + 1) + columns)[None]


@dataclass(frozen=True)
class Cap(WholeGrid):
    """Describes a grid of latitudes and longitudes whose columns go all around and whose rows go from one pole to an
    open side: beyond the pole as on a :class:`Sphere`, beyond the other end as in a :class:`Plane`.

    Attributes:
        pole_is_first: whether the pole is at the first row, else at the last.
        on_pole: whether that row lies on it.
    """

    pole_is_first: bool = True
    on_pole: bool = False

    def pad(
        self, fields: Float[Tensor, "*batch row column"], width: Widths, odd: Odd | None = None
    ) -> Float[Tensor, "*batch padded_row padded_column"]:
        left, right, bottom, top = (width,) * 4 if isinstance(width, int) else width
        pole, side = (bottom, top) if self.pole_is_first else (top, bottom)
        beyond = max(side, pole + self.on_pole - fields.shape[-2])  # the way over the pole may lead out again
        extended = _band().pad(fields, (0, 0, 0, beyond) if self.pole_is_first else (0, 0, beyond, 0))
        ends = (self.on_pole and self.pole_is_first, self.on_pole and not self.pole_is_first)
        rows = (pole, 0) if self.pole_is_first else (0, pole)
        whole = Sphere(ends).pad(extended, (left, right, *rows), odd)
        spare = beyond - side
        return whole[..., : whole.shape[-2] - spare, :] if self.pole_is_first else whole[..., spare:, :]

    def endless(self, fields: Float[Tensor, "*batch row column"]) -> Float[Tensor, "*batch _row _column"]:
        return _band().endless(fields)

    def windows(
        self, shape: tuple[int, int], window: tuple[int, int], *, shifted: bool
    ) -> Int[np.ndarray, "sample row column"]:
        return _around_the_axis(shape, window, shifted, (self.pole_is_first, not self.pole_is_first))


def _band() -> Plane:
    """Returns a plane that goes around and has open ends."""
    return Plane((Side.PERIODIC, Side.PERIODIC), (Side.OPEN, Side.OPEN))


@dataclass(frozen=True)
class Planes(WholeGrid):
    """Describes a batch whose samples lie in planes of their own.

    Attributes:
        samples: the plane of each.
    """

    samples: tuple[Plane, ...]

    def pad(
        self, fields: Float[Tensor, "*batch row column"], width: Widths, odd: Odd | None = None
    ) -> Float[Tensor, "*batch padded_row padded_column"]:
        kinds = set(self.samples)
        if len(kinds) == 1:
            return self.samples[0].pad(fields, width, odd)
        by_kind = {kind: kind.pad(fields, width, odd) for kind in kinds}
        return torch.stack([by_kind[kind][sample] for sample, kind in enumerate(self.samples)])

    def endless(self, fields: Float[Tensor, "*batch row column"]) -> Float[Tensor, "*batch _row _column"]:
        rows, columns = fields.shape[-2:]
        open_x, open_z = (any(sides[0] is not Side.PERIODIC for sides in both) for both in self._sides())
        mirrored = [Plane(*(_mirrors(sides) for sides in (plane.x, plane.z))) for plane in self.samples]
        return Planes(tuple(mirrored)).pad(fields, (0, columns * open_x, 0, rows * open_z))

    def windows(
        self, shape: tuple[int, int], window: tuple[int, int], *, shifted: bool
    ) -> Int[np.ndarray, "sample row column"]:
        alike = self.samples if len(set(self.samples)) > 1 else self.samples[:1]
        return np.concatenate([plane.windows(shape, window, shifted=shifted) for plane in alike])

    def _sides(self) -> tuple[list[tuple[Side, Side]], list[tuple[Side, Side]]]:
        return [plane.x for plane in self.samples], [plane.z for plane in self.samples]


def _mirrors(sides: tuple[Side, Side]) -> tuple[Side, Side]:
    """Returns sides beyond which a field can be continued without end: a mirror, where it does not repeat."""
    return sides if sides[0] is Side.PERIODIC else (Side.WALL, Side.WALL)


def _pad_axis(
    fields: Float[Tensor, "*batch row column"],
    dim: int,
    sides: tuple[Side, Side],
    before: int,
    after: int,
    odd: tuple[bool, ...],
) -> Float[Tensor, "*batch padded_row padded_column"]:
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


def _number(size: int, window: int) -> int:
    """Returns the least number of windows of at most so many cells that cover an axis."""
    return -(-size // window)


def _around_the_axis(
    shape: tuple[int, int], window: tuple[int, int], shifted: bool, poles: tuple[bool, bool]
) -> Int[np.ndarray, "1 row column"]:
    """Returns windows that go around in longitude and over the poles that are at the first and the last row."""
    rows = _along_axis(shape[0], window[0], shifted, periodic=False)
    columns = np.tile(_along_axis(shape[1], window[1], shifted, periodic=True), (shape[0], 1))
    count = int(columns.max()) + 1
    if rows.max() >= _number(shape[0], window[0]) and shape[1] % 2 == count % 2 == 0:
        # Half a window at a pole meets the one on the other side: half a turn leads from windows to windows.
        polar = ((rows == 0) & poles[0]) | ((rows == rows.max()) & poles[1])
        columns[polar] %= count // 2
    return (rows[:, None] * count + columns)[None]


def _along_axis(size: int, window: int, shifted: bool, *, periodic: bool) -> Int[np.ndarray, "cell"]:
    """Returns for each cell of an axis the number of its window along it; one window alone is not shifted."""
    number = _number(size, window)
    starts = np.arange(number + 1) * size // number
    if not shifted or number == 1:
        return np.searchsorted(starts, np.arange(size), side="right") - 1
    middles = (starts[1:] + starts[:-1]) // 2
    after = np.searchsorted(middles, np.arange(size), side="right")
    return after % number if periodic else after
