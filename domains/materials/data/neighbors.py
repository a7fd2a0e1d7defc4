"""Finds the atoms that see each other, across as many periodic images as the cutoff reaches."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from domains.materials.data.batch import GraphSample
from domains.materials.data.structure import Structure
from sciml.core.errors import DataError

MIN_DISTANCE = 0.4
"""A; atoms closer than this are a mistake in the data: half the bond length of the hydrogen molecule."""
FAR = 1e3
"""A; empty space is shortened where a structure is longer in a direction that does not repeat."""
LONGEST = 1e5
"""A; a longer cell that repeats is a mistake in the data, and would be cut into more bins than can be counted."""


@dataclass(frozen=True)
class NeighborList:
    """Holds every pair of atoms within a cutoff, in both directions, sorted by receiver.

    The vector of an edge is ``positions[senders] + shifts @ cell - positions[receivers]``. An atom may see its own
    images, and another atom several times.

    Attributes:
        senders, receivers: (E,) int64.
        shifts: (E, 3) int32, whole numbers of cell vectors; zero along directions that do not repeat.
        distances: (E,) float64, A.
    """

    senders: np.ndarray
    receivers: np.ndarray
    shifts: np.ndarray
    distances: np.ndarray

    def __len__(self) -> int:
        return len(self.senders)


def neighbor_list(structure: Structure, cutoff: float, *, min_distance: float = MIN_DISTANCE) -> NeighborList:
    """Finds all pairs of a structure closer than the cutoff, by vesin; none is left out, however far others are.

    Args:
        cutoff: A.
        min_distance: pairs closer than this are refused; 0 refuses none.

    Raises:
        DataError: two atoms are closer than ``min_distance``, or the cell is longer than :data:`LONGEST`.
    """
    positions, cell = _searched(structure, cutoff)
    search = _search(cutoff, threading.get_ident())
    first, second, shifts, distances = search.compute(positions, cell, structure.pbc, "ijSd")
    neighbors = NeighborList(
        senders=second.view(np.int64), receivers=first.view(np.int64), shifts=shifts, distances=distances
    )
    if len(neighbors) and neighbors.distances.min() < min_distance:
        _refuse_closest(structure, neighbors, min_distance)
    return neighbors


def graph_sample(structure: Structure, cutoff: float) -> GraphSample:
    """Returns a structure with its neighbors and labels, ready to be collated.

    Args:
        cutoff: A.

    Raises:
        DataError: two atoms are closer than :data:`MIN_DISTANCE`.
    """
    neighbors = neighbor_list(structure, cutoff)
    return GraphSample(
        structure.atomic_numbers,
        structure.positions,
        structure.cell,
        structure.pbc,
        neighbors.senders,
        neighbors.receivers,
        neighbors.shifts,
        structure.branch,
        structure.labels,
    )


def _searched(structure: Structure, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions and the cell of three vectors in which a structure's neighbors are searched.

    vesin cuts space into bins, empty space too: atoms far apart in one direction would need more of them than it can
    count. So gaps wider than the cutoff are shortened there, which brings no two atoms into each other's reach.
    """
    from ase.geometry import complete_cell

    lengths = np.linalg.norm(structure.cell, axis=1)[structure.pbc]
    if len(lengths) and lengths.max() > LONGEST:
        raise DataError(
            f"{structure.name or structure.formula}: its cell repeats after {lengths.max():.3g} A, more than "
            f"{LONGEST:g} A; check its unit, which must be A, or let nothing repeat there (pbc)"
        )
    along = structure.cell[structure.pbc]
    # perpendicular to all that repeats: images do not move along these
    across = np.linalg.svd(along)[2][len(along) :] if len(along) else np.eye(3)
    places = structure.positions @ across.T
    if not places.size or np.ptp(places, axis=0).max(initial=0.0) < FAR:
        # a slab may have no third vector; vesin wants one, and shifts stay 0 along it
        return structure.positions, structure.cell if structure.cell.any(1).all() else complete_cell(structure.cell)
    nearer = np.stack([_without_gaps(column, 2 * cutoff) for column in places.T], axis=1)
    cell = structure.cell.copy()
    cell[~structure.pbc] = across * (np.ptp(nearer, axis=0)[:, None] + cutoff)
    return structure.positions + (nearer - places) @ across, cell


def _without_gaps(places: np.ndarray, widest: float) -> np.ndarray:
    """Returns places along a line with gaps between neighbors that are no wider than some length."""
    order = np.argsort(places)
    gaps = np.diff(places[order], prepend=places[order[0]])
    nearer = np.empty_like(places)
    nearer[order] = np.cumsum(np.minimum(gaps, widest))
    return nearer


@lru_cache(maxsize=16)
def _search(cutoff: float, thread: int) -> Any:
    """Returns vesin's search, which keeps its memory from call to call; one a thread, since it is not safe to share."""
    from vesin import NeighborList as Vesin

    # one thread within: structures are small, and workers already use the cores
    return Vesin(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)


def _refuse_closest(structure: Structure, found: NeighborList, min_distance: float) -> None:
    closest = int(found.distances.argmin())
    first, second = sorted((int(found.senders[closest]), int(found.receivers[closest])))
    pair = f"atom {first} and its own image" if first == second else f"atoms {first} and {second}"
    raise DataError(
        f"{structure.name or structure.formula}: {pair} are {found.distances[closest]:.2f} A apart, closer than "
        f"{min_distance:g} A; check the units of positions and cell, which must be A"
    )
