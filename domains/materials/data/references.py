"""Reference energies of free atoms: given, of isolated atoms among the structures, or fitted where neither is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from domains.materials.data.store import Arrays
from sciml.core.config import one_of

Array = np.ndarray


class References(NamedTuple):
    """Holds energies of atoms by data set and element, eV.

    Attributes:
        free: of an atom alone; exact where it is known, fitted elsewhere.
        bonding: what an atom of a known free energy gains in matter, on average; zero where the free one is fitted,
            since the fit holds both.
    """

    free: Float[Array, "branch element"]
    bonding: Float[Array, "branch element"]


def isolated_atoms(arrays: Arrays) -> Bool[Array, "structure"]:
    """Says which structures are one atom without neighbors, of known energy."""
    if "energy" not in arrays.labels:
        return np.zeros(len(arrays), dtype=bool)
    alone: Array = (arrays.num_atoms == 1) & (arrays.num_edges == 0) & arrays.masks["energy"]
    return alone


def known_references(
    arrays: Arrays, elements: tuple[int, ...], num_branches: int, given: Mapping[str, float]
) -> Float[Array, "branch element"]:
    """Returns the energies of free atoms that are known, eV; not a number elsewhere.

    Args:
        given: by symbol; they come before those of isolated atoms, of which the lowest is taken (magnetic states).

    Raises:
        ConfigError: an unknown symbol.
    """
    from ase.data import atomic_numbers

    known = np.full((num_branches, len(elements)), np.nan)
    for index in np.flatnonzero(isolated_atoms(arrays)):
        place = arrays.branch[index], elements.index(int(arrays.atomic_numbers[arrays.atom_offsets[index]]))
        known[place] = np.fmin(known[place], arrays.labels["energy"][index])
    for symbol, energy in given.items():
        number = atomic_numbers[one_of(symbol, atomic_numbers, "references")]
        if number in elements:
            known[:, elements.index(number)] = energy
    return known


def fit_references(
    counts: Int[Array, "structure element"],
    energies: Float[Array, "structure"],
    branch: Int[Array, "structure"],
    known: Float[Array, "branch element"],
) -> References:
    """Fits what is not known by least squares on energies per atom.

    Of all solutions the shortest is taken, where compositions do not tell the elements apart. Elements that a data set
    lacks get exactly zero.

    Args:
        counts: atoms of each element.
        energies: of structures, eV.
    """
    references = References(np.nan_to_num(known), np.zeros_like(known))
    for number in range(len(known)):
        mine = branch == number
        if not mine.any():
            continue
        there = counts[mine].any(0)
        rest = energies[mine] - counts[mine] @ references.free[number]
        atoms = counts[mine].sum(1, keepdims=True)
        shares = counts[mine][:, there] / atoms
        fitted = np.zeros(len(there))
        fitted[there] = np.linalg.lstsq(shares, rest / atoms[:, 0], rcond=None)[0]
        exact = ~np.isnan(known[number])
        references.bonding[number, exact] = fitted[exact]
        references.free[number, ~exact] = fitted[~exact]
    return references
