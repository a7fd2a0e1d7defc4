"""Databases of ASE give labels wherever a row keeps them, in the units that the database names."""

from __future__ import annotations

import numpy as np
import pytest
from ase.db import connect
from ase.units import Bohr, Hartree, kcal, mol

from .alloy_files import alloy
from .test_readers import assert_same, read

FRAMES = [alloy(0), alloy(1)]


def packed(path, frames, metadata, energy=1.0, forces=1.0, length=1.0, **more):
    """A database as SchNetPack writes it: labels in the rows' data."""
    with connect(path) as database:
        if metadata:
            database.metadata = metadata
        for atoms in frames:
            bare = atoms.copy()
            bare.set_cell(bare.cell / length)
            bare.positions /= length
            labels = {"energy": np.array([atoms.get_potential_energy() / energy])}
            database.write(bare, data={**labels, "forces": atoms.get_forces() / forces, **more}, note="kept")
    return path


@pytest.mark.parametrize("name", ["a.db", "a.json"])
def test_labels_in_the_data_of_rows(tmp_path, name):
    found = read(packed(tmp_path / name, FRAMES, {}, stress=FRAMES[0].get_stress(), names={"a": 1}))
    for structure, atoms in zip(found, FRAMES, strict=True):
        assert structure.labels["energy"] == pytest.approx(atoms.get_potential_energy())
        np.testing.assert_allclose(structure.labels["forces"], atoms.get_forces())
    assert set(found[0].labels) == {"energy", "forces", "stress"}


def test_units_that_a_database_names(tmp_path):
    units = {"energy": "kcal/mol", "forces": "kcal/mol/Ang"}
    metadata = {"_property_unit_dict": units, "_distance_unit": "Ang"}
    found = read(packed(tmp_path / "a.db", FRAMES, metadata, kcal / mol, kcal / mol))
    assert found[1].labels["energy"] == pytest.approx(FRAMES[1].get_potential_energy())
    np.testing.assert_allclose(found[1].labels["forces"], FRAMES[1].get_forces())
    metadata = {"_property_unit_dict": {"energy": "Hartree", "forces": "Hartree/Bohr"}, "_distance_unit": "Bohr"}
    found = read(packed(tmp_path / "b.db", FRAMES, metadata, Hartree, Hartree / Bohr, Bohr))
    np.testing.assert_allclose(found[0].positions, FRAMES[0].positions, rtol=1e-8)
    np.testing.assert_allclose(found[0].cell, FRAMES[0].cell.array, rtol=1e-8)
    np.testing.assert_allclose(found[0].labels["forces"], FRAMES[0].get_forces(), rtol=1e-8)


def test_results_of_a_calculator_come_before_data(tmp_path):
    with connect(tmp_path / "a.db") as database:
        for atoms in FRAMES:
            database.write(atoms, data={"energy": 1.0})
    assert_same(read(tmp_path / "a.db"), FRAMES)
