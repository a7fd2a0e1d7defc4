"""Finds frames that follow one another in a file and hardly differ, as the steps of one relaxation do."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from domains.materials.data.store import Arrays

Array = np.ndarray
CLOSE = 0.02
"""A; frames are near duplicates where no cell vector and no atom (by its mean square) moved more."""


def near_duplicates(arrays: Arrays) -> Int[Array, "structure"]:
    """Returns a number for each structure that is the same for frames of one run of near duplicates.

    Two neighbors in a file are near duplicates if they have the same atoms in the same order, and neither cell nor
    atoms moved by more than :data:`CLOSE`, apart from whole cell vectors.
    """
    far = [index > 0 and not _is_near(arrays, index) for index in range(len(arrays))]
    numbers: Array = np.cumsum(far)
    return numbers


def cut_runs(runs: Int[Array, "structure"], most: int) -> Int[Array, "structure"]:
    """Returns a number for each structure that is the same for those of one run, of which none has more than so many.

    Args:
        runs: a number for each structure that does not decrease, as :func:`near_duplicates` gives it.
    """
    place = np.arange(len(runs)) - np.searchsorted(runs, runs)
    starts = place % most == 0
    numbers: Array = np.cumsum(starts) - 1
    return numbers


def _is_near(arrays: Arrays, index: int) -> bool:
    """Compares a structure with the one before it."""
    if arrays.source[index] != arrays.source[index - 1] or arrays.num_atoms[index] != arrays.num_atoms[index - 1]:
        return False
    first, second, end = (int(arrays.atom_offsets[index + step]) for step in (-1, 0, 1))
    cell = arrays.cell[index]
    if np.abs(cell - arrays.cell[index - 1]).max() > CLOSE:
        return False
    if (arrays.atomic_numbers[first:second] != arrays.atomic_numbers[second:end]).any():
        return False
    moved = arrays.positions[second:end] - arrays.positions[first:second]
    if arrays.pbc[index].all() and np.abs(np.linalg.det(cell)) > 0:
        whole = np.round(np.linalg.solve(cell.T, moved.T).T)
        moved = moved - whole @ cell
    return bool(np.square(moved).sum(1).mean() < CLOSE**2)
