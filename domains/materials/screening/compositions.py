"""Compositions on a grid: every way to share equal steps among some of the elements, counted before any is made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from sciml.core.errors import ConfigError

STEP_ERROR = 1e-5
"""Thirds and sevenths may be written with six digits."""


@dataclass(frozen=True)
class Composition:
    """Says how many steps of the grid each element has.

    Attributes:
        elements: symbols, in the order of the space.
        steps: of each element, at least one; they add up to the grid's.
    """

    elements: tuple[str, ...]
    steps: tuple[int, ...]

    @property
    def fractions(self) -> dict[str, float]:
        """Returns the fraction of each element."""
        total = sum(self.steps)
        return {symbol: count / total for symbol, count in zip(self.elements, self.steps, strict=True)}

    @property
    def name(self) -> str:
        """Returns the percentages, e.g. ``Co20Cu30Ni50``; an element alone has none."""
        if len(self.elements) == 1:
            return self.elements[0]
        return "".join(f"{symbol}{100 * share:.4g}" for symbol, share in self.fractions.items())


@dataclass(frozen=True)
class CompositionGrid:
    """Spans a space of compositions.

    Attributes:
        elements: symbols.
        orders: numbers of elements that a composition may have.
        steps: into which one is divided; a fraction is a whole number of them.
        least, most: steps that an element of a composition may have.
    """

    elements: tuple[str, ...]
    orders: tuple[int, ...]
    steps: int
    least: int = 1
    most: int | None = None

    @property
    def count(self) -> int:
        """Counts the compositions."""
        return sum(math.comb(len(self.elements), order) * self._ways(order) for order in self.orders)

    def compositions(self) -> Iterator[Composition]:
        """Yields all compositions: by order, by elements, then by steps."""
        for order in self.orders:
            for elements in combinations(self.elements, order):
                for steps in shares(self.steps, order, self.least, self._most):
                    yield Composition(elements, steps)

    @property
    def _most(self) -> int:
        return self.steps if self.most is None else min(self.most, self.steps)

    def _ways(self, order: int) -> int:
        """Counts compositions of given elements, by inclusion and exclusion of those that have too many steps."""
        spare, room = self.steps - order * self.least, self._most - self.least
        if spare < 0 or room < 0:
            return 0
        return sum(
            (-1) ** too_many
            * math.comb(order, too_many)
            * math.comb(spare - too_many * (room + 1) + order - 1, order - 1)
            for too_many in range(order + 1)
            if spare >= too_many * (room + 1)
        )


def shares(total: int, parts: int, least: int, most: int) -> Iterator[tuple[int, ...]]:
    """Yields every tuple of whole numbers between ``least`` and ``most`` that add up to ``total``."""
    if parts == 1:
        if least <= total <= most:
            yield (total,)
        return
    rest = parts - 1
    for first in range(max(least, total - rest * most), min(most, total - rest * least) + 1):
        for others in shares(total - first, rest, least, most):
            yield (first, *others)


def read_grid(
    elements: Sequence[str], orders: Sequence[int], step: float, smallest: float, largest: float
) -> CompositionGrid:
    """Makes the grid of a step and limits in fractions.

    Args:
        step: a fraction that divides one.
        smallest, largest: fractions that an element of a composition may have; the step bounds them from below.

    Raises:
        ConfigError: the step does not divide one, or no composition lies within the limits.
    """
    if not 0 < step <= 1:
        raise ConfigError(f"{step:g} is no step between fractions", key="step", hint="for example step=0.1")
    steps = round(1 / step)
    if abs(steps * step - 1) > STEP_ERROR:
        raise ConfigError(f"{step:g} does not divide 1", key="step", hint=f"for example step={1 / steps:.6g}")
    near = 1e-9 * steps  # 0.3 / 0.1 is a little less than 3
    least, most = max(1, math.ceil(smallest * steps - near)), math.floor(largest * steps + near)
    grid = CompositionGrid(tuple(elements), tuple(orders), steps, least, most)
    if not grid.count:
        raise ConfigError(
            f"no {min(orders)} elements have fractions between {max(smallest, step):g} and {largest:g} in steps of "
            f"{step:g}",
            key="min_fraction",
            hint="for example min_fraction=0 max_fraction=1",
        )
    return grid


def refuse_too_many(grid: CompositionGrid, each: int, most: int) -> None:
    """Refuses a grid before any of it is made.

    Args:
        each: structures that a composition takes.
        most: structures that are allowed.

    Raises:
        ConfigError: with the finest step that fits.
    """
    if grid.count * each <= most:
        return
    hint = "choose fewer elements"
    low, high = grid.least / grid.steps, grid._most / grid.steps
    for steps in range(grid.steps - 1, min(grid.orders) - 1, -1):
        coarser = CompositionGrid(
            grid.elements, grid.orders, steps, max(1, math.ceil(low * steps - 1e-9)), math.floor(high * steps + 1e-9)
        )
        if 0 < coarser.count * each <= most:
            hint = f"step={1 / steps:.6g} gives {coarser.count * each:,}"
            break
    raise ConfigError(
        f"{grid.count:,} compositions of {each:,} structures each are more than {most:,} structures",
        key="step",
        hint=hint,
    )
