"""Configurations of MLIP (moment tensor potentials), ``.cfg``.

Blocks from BEGIN_CFG to END_CFG with Size, Supercell (A), AtomData (type, cartes_x/y/z or direct_x/y/z, fx/fy/fz),
Energy (eV), PlusStress (eV: the virial, minus ASE's stress times the volume) and Features. Types are numbers from 0;
the user says which elements they are. Source of the format: Novikov et al. (2021),
https://doi.org/10.1088/2632-2153/abc9fe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from domains.materials.data.key_names import typed
from domains.materials.data.labels import VIRIAL, Stated
from domains.materials.data.readers.files import open_text
from domains.materials.data.readers.frames import state_units
from domains.materials.data.structure import stress_matrix
from sciml.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ase import Atoms

ASE_ORDER = ("xx", "yy", "zz", "yz", "xz", "xy")


def read_mtp(file: str, species: Sequence[str] | None, start: int = 0) -> Iterator[Atoms]:
    """Yields the structures of a file, from number ``start`` on.

    Args:
        species: elements of types 0, 1, ...

    Raises:
        ConfigError: no species are given.
        DataError: a block that is cut off or not understood.
    """
    if not species:
        raise ConfigError(
            f"{file} numbers its elements from 0 and does not name them",
            key=typed("species"),
            hint=f"e.g. {typed('species')}=[Nb,Mo,Ta,W]",
        )
    for number, block in enumerate(_blocks(file)):
        if number >= start:
            yield _atoms(block, species, f"{file}@{number}")


def _blocks(file: str) -> Iterator[list[list[str]]]:
    """Yields the lines of each block, as words."""
    block: list[list[str]] | None = None
    number = 0
    with open_text(file) as text:
        for line in text:
            words = line.split()
            if words[:1] == ["BEGIN_CFG"]:
                block = []
            elif words[:1] == ["END_CFG"] and block is not None:
                yield block
                block, number = None, number + 1
            elif block is not None and words:
                block.append(words)
    if block is not None:
        raise DataError(f"{file}@{number}: the file ends in the middle of this structure")


def _atoms(block: list[list[str]], species: Sequence[str], where: str) -> Atoms:
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator

    try:
        fields = _fields(block)
        columns = fields["columns"]
        types = np.array(columns["type"], dtype=int)
        if types.max() >= len(species):
            raise ConfigError(
                f"{where} has the type {types.max()}", key=typed("species"), hint="name an element for each type"
            )
        periodic = "cell" in fields
        coordinates = "cartes" if "cartes_x" in columns else "direct"
        positions = np.array([columns[f"{coordinates}_{axis}"] for axis in "xyz"], dtype=float).T
        atoms = Atoms([species[t] for t in types], cell=fields.get("cell"), pbc=periodic)
        atoms.positions = positions if coordinates == "cartes" else positions @ atoms.cell.array
        results: dict[str, Any] = {name: fields[name] for name in ("energy",) if name in fields}
        if "fx" in columns:
            results["forces"] = np.array([columns[f"f{axis}"] for axis in "xyz"], dtype=float).T
        if "virial" in fields and periodic:
            atoms.info["virial"] = stress_matrix(fields["virial"])
            state_units(atoms, {"virial": Stated(VIRIAL)})
    except (KeyError, IndexError, ValueError) as error:
        raise DataError(f"{where}: cannot be read as a configuration of MLIP ({error})") from None
    atoms.info.update(fields["features"])
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def _fields(block: list[list[str]]) -> dict[str, Any]:
    fields: dict[str, Any] = {"features": {}}
    lines = iter(enumerate(block))
    size = 0
    for at, words in lines:
        head = words[0].rstrip(":").lower()
        if head == "size":
            size = int(block[at + 1][0])
        elif head == "supercell":
            cell = np.array(block[at + 1 : at + 4], dtype=float)
            fields["cell"] = cell
        elif head == "atomdata":
            rows = block[at + 1 : at + 1 + size]
            if len(rows) < size:
                raise ValueError(f"{len(rows)} of {size} atoms are there")
            names = words[1:]
            fields["columns"] = dict(zip(names, zip(*rows, strict=True), strict=True))
        elif head == "energy":
            fields["energy"] = float(block[at + 1][0])
        elif head == "plusstress":
            virial = dict(zip(words[1:], map(float, block[at + 1]), strict=True))
            fields["virial"] = np.array([virial[name] for name in ASE_ORDER])
        elif head == "feature":
            fields["features"][words[1]] = " ".join(words[2:])
    return fields
