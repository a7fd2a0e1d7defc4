"""Undisturbed crystals as graphs, at any lattice constant: neighbors are searched once for all that fills the sites."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from itertools import product

import numpy as np
from jaxtyping import Int

from domains.materials.data.batch import GraphSample
from domains.materials.data.neighbors import neighbor_list
from domains.materials.simulation.alloys import ATOMS_PER_CELL, FIRST_SHELL, crystal
from domains.materials.simulation.labeling import IDEAL_C_OVER_A
from domains.materials.simulation.short_range_order import neighbor_counts

Array = np.ndarray
MOST_MORE = 1.5
"""A cell may have this many times as many sites as were asked for, if it is more compact so."""


class Sites:
    """Holds the sites of a crystal; HCP has the ideal ratio of its lattice constants.

    All lengths grow together, so which pairs are near is a matter of how many lattice constants the cutoff reaches.

    Args:
        lattice: fcc, bcc or hcp.
        repeats: numbers of conventional cells along the axes.
        cutoff: of the neighbors, A.
    """

    def __init__(self, lattice: str, repeats: tuple[int, int, int], cutoff: float) -> None:
        self.lattice, self.cutoff = lattice, cutoff
        self.unit = crystal(lattice, 1.0, IDEAL_C_OVER_A, repeats)
        self.volume = self.unit.volume / len(self.unit)
        self._reach = 0.0
        self._edges: dict[int, tuple[Array, Array, Array]] = {}

    def __len__(self) -> int:
        return len(self.unit)

    def lattice_constant(self, volume: float) -> float:
        """Returns the lattice constant (A) at a volume an atom (A^3)."""
        return float((volume / self.volume) ** (1 / 3))

    def sample(self, atomic_numbers: Int[Array, "atom"], a: float, branch: int = 0) -> GraphSample:
        """Returns the graph of elements on the sites, with all neighbors.

        Args:
            a: lattice constant, A.
        """
        edges = self._within(self.cutoff / a)
        unit = self.unit
        return GraphSample(atomic_numbers, a * unit.positions, a * unit.cell, unit.pbc, *edges, branch=branch)

    @cached_property
    def nearest(self) -> Array:
        """Counts how often each site has each other one as a nearest neighbor, (site, site)."""
        # the search wants lengths of atoms' size
        scaled = replace(self.unit, positions=3 * self.unit.positions, cell=3 * self.unit.cell)
        return neighbor_counts(scaled, 3 * FIRST_SHELL[self.lattice])

    def _within(self, reach: float) -> tuple[Array, Array, Array]:
        """Returns senders, receivers and shifts of all pairs closer than some lattice constants."""
        if reach > self._reach:
            self._reach = 1.1 * reach
            self._found = neighbor_list(self.unit, self._reach, min_distance=0)
            self._edges = {}
        near = self._found.distances < reach
        count = int(near.sum())
        if count not in self._edges:
            found = self._found
            self._edges[count] = (found.senders[near], found.receivers[near], found.shifts[near])
        return self._edges[count]


def compact_repeats(lattice: str, atoms: int, steps: int = 1) -> tuple[int, int, int]:
    """Returns the numbers of conventional cells whose block has at least so many sites and is compact.

    First comes how long its shortest edge is, then that no other is shorter than two cells, then that every step of a
    grid is a whole number of sites, then how few sites there are.
    """
    cell = np.diag(crystal(lattice, 1.0, IDEAL_C_OVER_A).cell)
    per_cell = ATOMS_PER_CELL[lattice]
    least = -(-atoms // per_cell)
    most = max(least, math.floor(MOST_MORE * atoms / per_cell))
    counts = range(1, min(most, 3 * math.ceil(most ** (1 / 3))) + 1)

    def merit(repeats: tuple[int, int, int]) -> tuple[float, float, bool, int, tuple[int, int, int]]:
        edges, sites = sorted(np.round(repeats * cell, 6)), per_cell * math.prod(repeats)
        return edges[0], min(edges[1], 2.0), sites % steps == 0, -sites, repeats

    return max(
        ((i, j, k) for i, j, k in product(counts, counts, counts) if least <= i * j * k <= most),
        key=merit,
    )
