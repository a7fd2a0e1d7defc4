"""Text records of LSMS, one structure a file, as HydraGNN reads them.

The first line holds numbers of the structure, the total energy (Ry) first. Each further line is an atom: atomic number,
anything, x, y, z (Bohr), number of electrons, magnetic moment (muB), anything. It has no cell; the user gives one.
Charges are atomic number minus electrons, in e: positive where electrons have left, as in ASE. HydraGNN's charge
transfer has the opposite sign.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from domains.materials.data.key_names import typed
from domains.materials.data.labels import Stated
from domains.materials.data.readers.files import open_text
from domains.materials.data.readers.frames import state_units
from sciml.core.config import one_of
from sciml.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ase import Atoms

NUMBER, POSITION, ELECTRONS, MOMENT = 0, slice(2, 5), 5, 6
MIN_COLUMNS = 7


def read_lsms(file: str, cell: Sequence[Any] | None, length_unit: str = "Bohr", start: int = 0) -> Iterator[Atoms]:
    """Yields the structure of a file.

    Args:
        cell: three lengths or three vectors, A; zeros make a structure that does not repeat.
        length_unit: of positions: ``Bohr`` or ``A``.

    Raises:
        ConfigError: no cell is given, and the file has none.
        DataError: a line that is not understood.
    """
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.units import Bohr

    if start:
        return
    one_of(length_unit, ("Bohr", "A"), typed("length_unit"))
    if cell is None:
        key = typed("cell")
        hint = f"e.g. {key}=[3.5,3.5,3.5] in A, or {key}=[0,0,0] for a cluster"
        raise ConfigError(f"{file} is LSMS's text, which has no cell", key=key, hint=hint)
    with open_text(file) as text:
        lines = [line.split() for line in text if line.strip()]
    try:
        head = [float(word) for word in lines[0]]
        rows = np.array([[float(word) for word in line[:MIN_COLUMNS]] for line in lines[1:]])
        if rows.ndim != 2 or rows.shape[1] < MIN_COLUMNS:
            raise ValueError(f"atoms need {MIN_COLUMNS} columns")
    except (IndexError, ValueError) as error:
        raise DataError(f"{file}@0: cannot be read as a record of LSMS ({error})") from None
    numbers = rows[:, NUMBER].astype(int)
    positions = rows[:, POSITION] * (Bohr if length_unit == "Bohr" else 1.0)
    atoms = Atoms(numbers=numbers, positions=positions, cell=cell, pbc=bool(np.any(cell)))
    atoms.info["header"] = np.array(head)
    results = {"energy": head[0], "magmoms": rows[:, MOMENT], "charges": numbers - rows[:, ELECTRONS]}
    atoms.calc = SinglePointCalculator(atoms, **results)
    state_units(atoms, {"energy": Stated("Ry")})
    yield atoms
