"""Checks whether labels can be in their stated units; judged over whole data sets, never from one value."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from domains.materials.data.composition import BLOCK, element_counts, systems
from domains.materials.data.key_names import typed
from domains.materials.data.statistics import ranges
from domains.materials.data.store import Arrays
from sciml.core.errors import DataError

MAX_TYPICAL_FORCE = 100.0
"""eV/A; a set of which half the structures have larger forces is in other units (meV/A, say)."""
MAX_TYPICAL_STRESS = 2.0
"""eV/A^3, 320 GPa; likewise (GPa or kbar)."""
MAX_TYPICAL_SPREAD = 20.0
"""eV/atom, about the median of a chemical system; likewise (meV, or energies of atoms as those of structures)."""
FACTORS = {
    "eV and Ha": 27.211386,
    "eV and Ry": 13.605693,
    "eV and kJ/mol": 96.485332,
    "eV and kcal/mol": 23.060548,
    "eV and meV": 1000.0,
}
FACTOR_TOLERANCE = 0.1
MIN_SHARE, MIN_COUNT = 0.02, 3
"""How many structures must be off by the same factor before it is called a mixture."""


def check_plausible(
    arrays: Arrays, elements: tuple[int, ...], symbols: tuple[str, ...], *, energies: bool = True
) -> None:
    """Refuses labels that can hardly be in the suite's units, or are in several.

    Args:
        energies: whether they are looked at.

    Raises:
        DataError: names the label, a structure's file and what the units may be.
    """
    for problem in (*_magnitudes(arrays), *(_energies(arrays, elements, symbols) if energies else ())):
        raise DataError(problem)


def _magnitudes(arrays: Arrays) -> Iterator[str]:
    for name, limit, unit, guess in (
        ("forces", MAX_TYPICAL_FORCE, "eV/A", "meV/A"),
        ("stress", MAX_TYPICAL_STRESS, "eV/A^3", "GPa or kbar"),
    ):
        having, every = _largest(arrays, name)
        for branch in np.unique(arrays.branch[having]):
            mine = np.flatnonzero(arrays.branch[having] == branch)
            largest = every[mine]
            typical, odd = float(np.median(largest)), _odd_ones(largest, limit)
            worst = _name(arrays, int(having[mine[np.argmax(largest)]]))
            if typical > limit:
                yield (
                    f"{worst}: mixed units suspected, the largest component of {name} is {typical:.3g} {unit} in a "
                    f"typical structure; are they in {guess}? {_hint(name)}"
                )
            elif odd:
                yield (
                    f"{worst}: mixed units suspected, {odd} of {len(largest)} structures have {name} above {limit:g} "
                    f"{unit} and the others are typically {typical:.3g}; {_hint(name)}"
                )


def _odd_ones(largest: np.ndarray, limit: float) -> int:
    """Counts the values that lie beyond a limit and two orders of magnitude above the typical one."""
    odd = int(((largest > limit) & (largest > 100 * np.median(largest))).sum())
    return odd if odd >= max(MIN_COUNT, MIN_SHARE * len(largest)) else 0


def _largest(arrays: Arrays, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the structures that have a label, and its largest component in each."""
    if name not in arrays.labels:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    having, values = np.flatnonzero(arrays.masks[name]), arrays.labels[name]
    if name == "stress":
        return having, np.abs(values[having]).max((1, 2)) if len(having) else np.zeros(0)
    maxima = []
    for start in range(0, len(having), BLOCK):
        block = having[start : start + BLOCK]
        largest = np.abs(values[ranges(arrays.atom_offsets, block)]).max(1)
        sizes = arrays.num_atoms[block]
        maxima.append(np.maximum.reduceat(largest, np.cumsum(sizes) - sizes))
    return having, np.concatenate(maxima) if maxima else np.zeros(0)


def _energies(arrays: Arrays, elements: tuple[int, ...], symbols: tuple[str, ...]) -> Iterator[str]:
    if "energy" not in arrays.labels:
        return
    having = np.flatnonzero(arrays.masks["energy"])
    per_atom = arrays.labels["energy"][having] / arrays.num_atoms[having]
    counts = element_counts(arrays.atomic_numbers, arrays.atom_offsets, elements)[having]
    branch = arrays.branch[having]  # data sets need not share a zero
    names = np.array([f"{one} {system}" for one, system in zip(branch, systems(counts, symbols), strict=True)])
    ratios, deviations = np.ones(len(having)), np.zeros(len(having))
    for system in np.unique(names):
        mine = (names == system) & (counts.sum(1) > 1)  # a free atom is no member of its bulk
        if mine.any():
            center = float(np.median(per_atom[mine]))
            deviations[mine] = per_atom[mine] - center
            ratios[mine] = per_atom[mine] / center if center else 1.0
    for pair, factor in FACTORS.items():
        near = np.abs(np.log(np.maximum(ratios, 1e-12) / factor)) < FACTOR_TOLERANCE
        near |= np.abs(np.log(np.maximum(ratios, 1e-12) * factor)) < FACTOR_TOLERANCE
        if near.sum() >= max(MIN_COUNT, MIN_SHARE * len(ratios)):
            yield (
                f"{_name(arrays, int(having[np.argmax(near)]))}: mixed units suspected, the energies per atom of "
                f"{near.sum()} of {len(ratios)} structures differ from the others of their elements by the factor "
                f"between {pair}; {_hint('energy')}"
            )
    spread = float(np.median(np.abs(deviations))) if len(deviations) else 0.0
    if spread > MAX_TYPICAL_SPREAD:
        worst = _name(arrays, int(having[np.argmax(np.abs(deviations))]))
        yield (
            f"{worst}: mixed units suspected, energies of the same elements typically differ by {spread:.3g} eV/atom; "
            f"are they in meV, or of single atoms? {_hint('energy')}"
        )


def _hint(name: str) -> str:
    """Returns what a user can do about a label."""
    stated = f"{typed(f'labels.{name}')}={{key: KEY, unit: UNIT}}"
    return f"say the unit with {stated}, or {typed('check_units')}=false if it is right"


def _name(arrays: Arrays, index: int) -> str:
    start, stop = arrays.name_offsets[index : index + 2]
    return bytes(arrays.names[start:stop]).decode()
