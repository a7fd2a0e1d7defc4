"""Makes ASE's atoms of what other layouts hold: numbers or symbols, positions, a cell, labels and their units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from domains.materials.data.labels import Stated
from sciml.core.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms

Array = np.ndarray
STATED = "stated_units"
UNCONVERGED = "unconverged_after"
"""Entry of a structure: after how many steps its electrons were left as they were, in words."""
WHOLE = 1e-2
"""By how much a share of one may be rounded."""


def make_atoms(
    species: Any,
    positions: Any,
    cell: Any = None,
    *,
    pbc: Any = None,
    fractional: bool = False,
    results: Mapping[str, Any] | None = None,
    entries: Mapping[str, Any] | None = None,
) -> Atoms:
    """Returns ASE's atoms.

    Args:
        species: atomic numbers or symbols, one an atom.
        positions: (N, 3), A, or in units of the cell's vectors if ``fractional``.
        cell: nine numbers, a vector a row, or three lengths, A; None or zeros: there is none.
        pbc: by default, whether there is a cell.
        results: labels under the names of ASE's calculators, in its units.
        entries: anything else, under the names that the file has.

    Raises:
        DataError: numbers of atoms that differ.
    """
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator

    places = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
    kinds = [text(one) if isinstance(one, str | bytes | np.str_ | np.bytes_) else int(one) for one in species]
    if len(kinds) != len(places):
        raise DataError(f"{len(kinds)} elements for {len(places)} atoms")
    box = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=np.float64)
    box = np.diag(box.ravel()) if box.size == 3 else box.reshape(3, 3)
    repeats = bool(box.any()) if pbc is None else np.broadcast_to(np.asarray(pbc, dtype=bool).ravel(), 3)
    atoms = Atoms(kinds, positions=places @ box if fractional else places, cell=box, pbc=repeats)
    known = {name: value for name, value in (results or {}).items() if value is not None}
    if known:
        atoms.calc = SinglePointCalculator(atoms, **known)
    for name, value in (entries or {}).items():
        add_entry(atoms, name, value)
    return atoms


def add_entry(atoms: Atoms, name: str, value: Any) -> None:
    """Keeps anything else that a file says of a structure: numbers of atoms in ``arrays``, the rest in ``info``."""
    if isinstance(value, list | tuple | np.ndarray):
        try:
            array = np.asarray(value)
        except ValueError:  # of different lengths
            return
        if array.dtype.kind in "fiu" and array.ndim and len(array) == len(atoms):
            if name not in atoms.arrays:
                atoms.arrays[name] = array
            return
        if array.dtype.kind in "fiub":
            atoms.info[name] = array if array.size != 1 else array.ravel()[0].item()
    elif isinstance(value, bool | int | float | str | np.number | np.bool_):
        atoms.info[name] = value.item() if isinstance(value, np.generic) else value


def check_sites(sites: Mapping[Any, Mapping[str, float]], where: str) -> None:
    """Refuses sites that are shared by several elements, or empty in part.

    Args:
        sites: the share of each element, by number of the site.
        where: the file and number that are named.

    Raises:
        DataError: names the first such site and what is on it.
    """
    for site, shares in sites.items():
        if len(shares) != 1 or abs(sum(shares.values()) - 1) > WHOLE:
            there = ", ".join(f"{symbol} {share:g}" for symbol, share in shares.items())
            raise DataError(
                f"{where}: site {site} is shared by several elements or empty in part ({there}); "
                "a structure needs one element on each site"
            )


def state_units(atoms: Atoms, stated: Mapping[str, Stated]) -> None:
    """Notes what a file says of the units of its entries, which stand in ``info`` and ``arrays`` as the file has them.

    Nothing is converted by a reader, so that what a user says of an entry is said of what is in the file.
    """
    atoms.__dict__[STATED] = {**stated_units(atoms), **stated}


def stated_units(atoms: Atoms) -> Mapping[str, Stated]:
    """Returns what a file says of its entries, by name."""
    stated: Mapping[str, Stated] = atoms.__dict__.get(STATED, {})
    return stated


def symmetric(values: Any) -> Any:
    """Returns nine numbers as a matrix (3, 3) without its antisymmetric part, which rounding leaves; others as they
    are.
    """
    array = np.asarray(values, dtype=np.float64)
    return 0.5 * (array.reshape(3, 3) + array.reshape(3, 3).T) if array.size == 9 else array


def text(value: Any) -> str:
    """Returns a string that may be bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
