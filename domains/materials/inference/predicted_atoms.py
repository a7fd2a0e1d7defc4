"""Structures as they were given with what a model says of them: what prediction writes, and returns in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from domains.materials.data.labels import LEVELS
from domains.materials.data.readers.frames import UNCONVERGED, stated_units
from domains.materials.data.structure import ASE_RESULTS, Structure, stresses_voigt
from domains.materials.inference.out_of_domain import Reason, in_words
from domains.materials.inference.predictor import DATA_SET, Labels
from domains.materials.training.ensemble import STD

if TYPE_CHECKING:
    from ase import Atoms

OUTSIDE, WHY = "outside", "outside_why"
"""Entries of each structure: whether it lies outside the training set, and why."""
VELOCITIES = "momenta"


def predicted_atoms(
    atoms: Atoms,
    structure: Structure,
    values: Labels,
    data_set: Mapping[str, str],
    reasons: Sequence[Reason] | None = None,
) -> Atoms:
    """Returns a copy of ASE's atoms with what is predicted for them.

    Their own entries, constraints and further arrays are kept, labels that they came with are not: a value beside a
    prediction is one of the model. Momenta are kept where atoms have not moved.

    Args:
        atoms: as they were given.
        structure: where they are now.
        values: predicted, by name; stress is left out where there is no volume.
        data_set: the entry that says whose head was read; may be empty.
        reasons: why it lies outside the training set; None where nobody looked.
    """
    known = {name: value for name, value in values.items() if not name.startswith("stress") or structure.volume}
    known |= {name: stresses_voigt(value) for name, value in known.items() if name.startswith("stresses")}
    # three atoms do not make a matrix one of atoms
    matrix = {name: known.pop(name) for name in (f"stress{STD}",) if name in known}
    labeled = replace(structure, labels=known, group="", branch=0).to_atoms()
    labeled.set_constraint([one.copy() for one in atoms.constraints])
    reserved = {*labeled.info, *labeled.arrays, *LEVELS, *ASE_RESULTS.values(), *matrix, OUTSIDE, WHY, DATA_SET}
    reserved.add(UNCONVERGED)
    reserved |= {f"{name}{STD}" for name in reserved} | set(stated_units(atoms))
    said = {} if reasons is None else {OUTSIDE: bool(reasons), **({WHY: in_words(reasons)} if reasons else {})}
    labeled.info = {
        **{key: value for key, value in atoms.info.items() if key not in reserved - {"name"}},
        **{key: value for key, value in labeled.info.items() if key != "name" or key not in atoms.info},
        **matrix,
        **data_set,
        **said,
    }
    if not np.array_equal(atoms.positions, structure.positions):
        reserved.add(VELOCITIES)
    labeled.arrays |= {key: value.copy() for key, value in atoms.arrays.items() if key not in reserved}
    if labeled.calc is not None:  # ASE gives results away only for the very atoms, initial moments and charges included
        labeled.calc.atoms = labeled.copy()
    return labeled
