"""Outputs of CASTEP as ASE reads them, with a mark on steps whose electrons have not converged."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from domains.materials.data.readers.files import open_text
from domains.materials.data.readers.frames import UNCONVERGED

if TYPE_CHECKING:
    from ase import Atoms

NEXT_STEP = ("BFGS: starting iteration", "BFGS: improving iteration", "Starting MD iteration")
"""Lines at which ASE begins another structure."""
WARNING = "SCF cycles performed but system has not reached the groundstate"


def read_castep(file: str) -> Iterator[Atoms]:
    """Yields the steps of a ``.castep``: those of the last run, where several are in it."""
    from ase.io import iread

    marked = _unconverged(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # ASE repeats all that CASTEP warns of, for each file
        steps = list(iread(file, index=":", format="castep-castep"))
    for number, atoms in enumerate(steps):
        if number in marked:
            atoms.info[UNCONVERGED] = "max_scf_cycles steps"
        yield atoms


def _unconverged(file: str) -> set[int]:
    """Returns the numbers of the steps that CASTEP warns of."""
    marked: set[int] = set()
    step = 0
    with open_text(file) as opened:
        for line in opened:
            if "Welcome" in line and "CASTEP" in line:
                marked, step = set(), 0
            elif any(mark in line for mark in NEXT_STEP):
                step += 1
            elif WARNING in line:
                marked.add(step)
    return marked
