"""Rows of ASE's databases, with the labels that stand beside their structures.

Labels may be results of a calculator, key-value pairs, or entries of a row's data, where SchNetPack writes them; it
names their units in the database's metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from domains.materials.data.aliases import meaning
from domains.materials.data.labels import ANGSTROMS, Stated, factors
from domains.materials.data.readers.frames import add_entry, state_units

if TYPE_CHECKING:
    from ase import Atoms

LENGTHS = {"Ang": "A", "Angstrom": "A", "ang": "A", "angstrom": "A", "Bohr": "Bohr", "bohr": "Bohr"}
UNITS = {"Hartree": "Ha", **LENGTHS}


def read_database(file: str, kind: str | None = None) -> Iterator[Atoms]:
    """Yields the structures of a database.

    Args:
        kind: ASE's name of its type; None tells by the file's name.
    """
    from ase.db import connect

    database = connect(file) if kind is None else connect(file, type=kind)
    metadata: Mapping[str, Any] = database.metadata
    stated = _stated(metadata.get("_property_unit_dict"))
    unit = ANGSTROMS.get(LENGTHS.get(str(metadata.get("_distance_unit")), "A"), 1.0)
    for row in database.select():
        atoms = atoms_of(row)
        if unit != 1:
            atoms.set_cell(atoms.cell * unit)
            atoms.positions *= unit
        state_units(atoms, stated)
        yield atoms


def atoms_of(row: Any) -> Atoms:
    """Returns the structure of a row, with everything else that the row says of it."""
    atoms: Atoms = row.toatoms()
    atoms.info.update(row.key_value_pairs)
    for name, value in dict(row.data or {}).items():
        if name not in atoms.info:
            add_entry(atoms, str(name), value)
    return atoms


def _stated(units: Any) -> dict[str, Stated]:
    """Returns what SchNetPack says of units; those that the suite does not know are left to the user."""
    stated = {}
    for name, said in units.items() if isinstance(units, Mapping) else ():
        unit = "/".join(UNITS.get(word, word) for word in str(said).split("/"))
        means = meaning(str(name))
        if means is not None and unit in factors(means.label):
            stated[str(name)] = Stated(unit)
    return stated
