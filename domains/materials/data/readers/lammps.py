"""LAMMPS's dumps and data files: atoms of numbered types, whose elements the file may name, and no energy.

ASE reads them, takes types for atomic numbers and gives each frame of a dump with forces the energy zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from domains.materials.data.key_names import typed
from domains.materials.data.readers.files import open_text
from sciml.core.errors import ConfigError

if TYPE_CHECKING:
    from ase import Atoms

DUMPS, DATA = ("lammps-dump-text", "lammps-dump-binary"), "lammps-data"
NAMING_COLUMNS = frozenset({"element", "mass"})
NAMING_SECTIONS = ("Masses", "Atom Type Labels")


def read_lammps(file: str, kind: str, species: Sequence[str] | None, start: int = 0) -> Iterator[Atoms]:
    """Yields the structures of a file, from number ``start`` on.

    Args:
        kind: ASE's name of the format, one of :data:`DUMPS` or :data:`DATA`.
        species: elements of types 1, 2, ... where no element or mass is in the file.

    Raises:
        ConfigError: elements are nowhere named, or not for each type.
    """
    from ase.io import iread

    named = _names_elements(file, kind)
    if not named and not species:
        raise ConfigError(
            f"{file} numbers its elements from 1 and does not name them",
            key=typed("species"),
            hint=f"e.g. {typed('species')}=[Cu,Ni]",
        )
    for number, atoms in enumerate(itertools.islice(iread(file, index=":", format=kind), start, None), start):
        if not named and species:
            types = atoms.arrays.pop("type", atoms.numbers)
            if types.min() < 1 or types.max() > len(species):
                raise ConfigError(
                    f"{file}@{number} has the types {types.min()} to {types.max()}",
                    key=typed("species"),
                    hint="name an element for each type",
                )
            atoms.symbols = [species[kind - 1] for kind in types]
        if atoms.calc is not None:
            atoms.calc.results.pop("energy", None)  # a dump has none
        yield atoms


def _names_elements(file: str, kind: str) -> bool:
    """Says whether a file names the elements of its types, or their masses, by which ASE finds them."""
    if kind not in (DATA, DUMPS[0]):
        return False
    with open_text(file) as text:
        for line in text:
            if line.startswith("ITEM: ATOMS"):
                return not NAMING_COLUMNS.isdisjoint(line.split())
            if kind == DATA and line.startswith(NAMING_SECTIONS):
                return True
    return False
