"""Compositions of many structures at once: counts of elements, chemical systems and their order."""

from __future__ import annotations

import numpy as np

BLOCK = 4096
"""Structures gone through together."""


def element_table(atomic_numbers: np.ndarray, block: int = 2**22) -> tuple[int, ...]:
    """Returns the atomic numbers of all elements, increasing."""
    elements: set[int] = set()
    for start in range(0, len(atomic_numbers), block):
        elements.update(int(z) for z in np.unique(atomic_numbers[start : start + block]))
    return tuple(sorted(elements))


def element_counts(atomic_numbers: np.ndarray, atom_offsets: np.ndarray, elements: tuple[int, ...]) -> np.ndarray:
    """Returns the number of atoms of each element in each structure, (structure, element) int64."""
    column = np.full(256, -1)
    column[list(elements)] = np.arange(len(elements))
    num_structures, num_elements = len(atom_offsets) - 1, len(elements)
    counts = np.zeros((num_structures, num_elements), dtype=np.int64)
    for start in range(0, num_structures, BLOCK):
        stop = min(start + BLOCK, num_structures)
        atoms = atomic_numbers[atom_offsets[start] : atom_offsets[stop]]
        structure = np.repeat(np.arange(stop - start), np.diff(atom_offsets[start : stop + 1]))
        flat = np.bincount(structure * num_elements + column[atoms], minlength=(stop - start) * num_elements)
        counts[start:stop] = flat.reshape(-1, num_elements)
    return counts


def by_data_set(counts: np.ndarray, branch: np.ndarray) -> np.ndarray:
    """Returns counts or shares of elements, (structure, element), with columns of its own for each data set,
    (structure, branch element): energies of different data sets need not share a zero.

    Args:
        branch: number of the data set of each structure.
    """
    own = branch[:, None] == np.unique(branch)
    return (own[:, :, None] * counts[:, None]).reshape(len(counts), -1)


def systems(counts: np.ndarray, symbols: tuple[str, ...]) -> list[str]:
    """Names the chemical system of each structure, e.g. ``Mo-Nb``: its elements in alphabetical order."""
    names: dict[bytes, str] = {}
    there = counts > 0
    found = []
    for row in there:
        key = row.tobytes()
        if key not in names:
            names[key] = system_name([symbols[i] for i in np.flatnonzero(row)])
        found.append(names[key])
    return found


def system_name(symbols: list[str]) -> str:
    """Names a chemical system such as ``Mo-Nb`` by its elements in any order."""
    return "-".join(sorted(symbols))
