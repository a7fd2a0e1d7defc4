"""Signs and orders that are mixed up are told; sets that are right are not suspected."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write

from domains.materials.data.prepare import PrepareConfig, prepare
from domains.materials.data.readers.extxyz import read_extxyz
from domains.materials.data.store import MaterialsStore

from .alloy_files import relabeled

SHARED = Path("../shared/data/nbmotaw/nbmotaw_dev.extxyz.xz")
VASP = [0, 1, 2, 5, 3, 4]
"""Where VASP's xx, yy, zz, xy, yz, zx stand among ASE's."""


def warnings_of(frames, folder):
    write(folder / "set.extxyz", frames)
    store = MaterialsStore.open(prepare(PrepareConfig(path=str(folder / "set.extxyz"), out=str(folder / "store"))))
    return store.header["warnings"]


def mixed_up(atoms, kind):
    """The same atoms with a label that is told otherwise."""
    energy, forces, stress = (atoms.calc.results[name] for name in ("energy", "forces", "stress"))
    return {
        "right": atoms,
        "vasp order": relabeled(atoms, stress=stress[VASP]),
        "swapped": relabeled(atoms, stress=stress[[0, 1, 2, 4, 3, 5]]),
        "stress sign": relabeled(atoms, stress=-stress),
        "both": relabeled(atoms, stress=-stress[VASP]),
        "forces sign": relabeled(atoms, forces=-forces),
        "per atom": relabeled(atoms, energy=energy / len(atoms)),
    }[kind]


EXPECTED = {
    "right": [],
    "vasp order": ["fit as xy, yz, xz"],
    "swapped": ["fit as xz, yz, xy"],
    "stress sign": ["stress seems to have the opposite sign"],
    "both": ["stress seems to have the opposite sign", "fit as xy, yz, xz"],
    "forces sign": ["forces seem to have the opposite sign"],
    "per atom": ["energies seem to be of one atom"],
}


@pytest.mark.parametrize(
    ("source", "kind"),
    [*(("eam", kind) for kind in EXPECTED), *(pytest.param("dft", k, marks=pytest.mark.slow) for k in EXPECTED)],
)
def test_what_is_mixed_up_is_told(source, kind, small_alloys, tmp_path):
    if source == "dft" and not SHARED.exists():
        pytest.skip("the shared set is not beside the project")
    every = read_extxyz(str(small_alloys if source == "eam" else SHARED))
    frames = list(every if source == "eam" else islice(every, 0, None, 25))
    warnings = warnings_of([mixed_up(atoms, kind) for atoms in frames], tmp_path)
    assert len(warnings) == len(EXPECTED[kind])
    for warning, expected in zip(warnings, EXPECTED[kind], strict=True):
        assert expected in warning


def test_energies_of_atoms_are_told_where_all_structures_are_of_one_size(small_alloys, tmp_path):
    frames = [atoms for atoms in read(small_alloys, ":") if len(atoms) == 8]
    assert len(frames) > 20
    assert warnings_of(frames, tmp_path) == []
    (tmp_path / "wrong").mkdir()
    (warning,) = warnings_of([mixed_up(atoms, "per atom") for atoms in frames], tmp_path / "wrong")
    assert "unit: eV/atom" in warning


def test_perfect_crystals_and_few_structures_are_not_suspected(tmp_path, small_alloys):
    still = [relabeled(a, forces=np.zeros((len(a), 3))) for a in read(small_alloys, ":20")]
    assert warnings_of(still, tmp_path) == []
    (tmp_path / "few").mkdir()
    write(tmp_path / "few" / "a.extxyz", read(small_alloys, ":4"))
    splits = {"train": 0.5, "valid": 0.25, "test": 0.25}
    path = prepare(PrepareConfig(path=str(tmp_path / "few" / "a.extxyz"), out=str(tmp_path / "s"), splits=splits))
    assert MaterialsStore.open(path).header["warnings"] == []
