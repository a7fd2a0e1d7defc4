"""Draws alloys: elements on the sites of a crystal, at random or in a wanted short-range order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from domains.materials.screening.compositions import Composition
from domains.materials.screening.screen_config import ScreenConfig
from domains.materials.screening.sites import Sites
from domains.materials.simulation.alloys import atom_counts
from domains.materials.simulation.short_range_order import arrange, draw_target
from sciml.core.seeding import seed_of

Array = np.ndarray


@dataclass(frozen=True)
class AlloySample:
    """Holds the structures of a composition.

    Attributes:
        composition: as on the grid.
        sites: its crystal.
        counts: atoms of each element.
        decorations: atomic numbers on the sites, of each structure.
        a: lattice constant by Vegard's rule, A.
        order_missed: largest difference of a Warren-Cowley parameter of unlike pairs from the wanted one; None where
            none is wanted.
    """

    composition: Composition
    sites: Sites
    counts: Mapping[str, int]
    decorations: Sequence[Int[Array, "atom"]]
    a: float
    order_missed: float | None

    @property
    def fractions(self) -> dict[str, float]:
        """Returns the fractions of the atoms."""
        return {symbol: count / len(self.sites) for symbol, count in self.counts.items()}


def draw(
    composition: Composition, sites: Sites, config: ScreenConfig, lattice_constants: Mapping[str, float]
) -> AlloySample:
    """Draws the structures of a composition: a function of it, its lattice and the seed.

    Args:
        config: how many there are, and in which order.
        lattice_constants: of the elements on this lattice, A.
    """
    from ase.data import atomic_numbers

    counts = atom_counts(composition.fractions, len(sites))
    numbers = np.repeat([atomic_numbers[symbol] for symbol in counts], list(counts.values()))
    generator = np.random.default_rng(seed_of(config.seed, sites.lattice, composition.name))
    decorations: Sequence[Array] = [generator.permutation(numbers) for _ in range(config.decorations)]
    missed = None
    if config.warren_cowley is not None and len(counts) > 1:
        arranged = [_ordered(one, sites, config, generator) for one in decorations]
        decorations, missed = [one for one, _ in arranged], max(by for _, by in arranged)
    constants = [lattice_constants[symbol] for symbol in counts]
    a = float(np.average(constants, weights=list(counts.values())))
    return AlloySample(composition, sites, counts, decorations, a, missed)


def _ordered(
    numbers: Int[Array, "atom"], sites: Sites, config: ScreenConfig, generator: np.random.Generator
) -> tuple[Int[Array, "atom"], float]:
    """Returns the same atoms in the wanted order, and by how much that is missed."""
    elements, counts = np.unique(numbers, return_counts=True)
    fractions, pairs = counts / len(numbers), config.pairs()
    if pairs is None:
        target = draw_target(fractions, float(config.warren_cowley), generator)  # type: ignore[arg-type]
    else:
        target = order_of_pairs(elements, fractions, pairs)
    arrangement = arrange(numbers, sites.nearest, target, generator)
    unlike = ~np.eye(len(elements), dtype=bool)
    return arrangement.atomic_numbers, float(np.abs(arrangement.order.alpha - target)[unlike].max())


def order_of_pairs(
    elements: Int[Array, "element"], fractions: Float[Array, "element"], pairs: Mapping[frozenset[str], float]
) -> Float[Array, "element element"]:
    """Returns Warren-Cowley parameters of which those of some unlike pairs are given and the others are zero.

    Those of like pairs follow, as in :func:`domains.materials.simulation.short_range_order.draw_target`.
    """
    from ase.data import chemical_symbols

    symbols = [chemical_symbols[z] for z in elements]
    alpha = np.array([[pairs.get(frozenset((a, b)), 0.0) if a != b else 0.0 for b in symbols] for a in symbols])
    np.fill_diagonal(alpha, -(alpha @ fractions) / fractions)
    return alpha
