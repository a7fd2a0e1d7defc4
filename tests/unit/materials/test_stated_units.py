"""A unit that is stated is that of the numbers in the file, whatever is usual in its format."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase.units import GPa, Hartree, Ry, kcal, mol

from domains.materials.data.findings import Findings
from domains.materials.data.readers.source import ReadOptions, read_structures

from .alloy_files import alloy
from .test_dialects import chgnet, fitsnap, full, matpes, snap
from .test_readers import assert_same, read

FRAMES = [alloy(0), alloy(1)]
KBAR = 0.1 * GPa


def written(tmp_path, document):
    (tmp_path / "a.json").write_text(json.dumps(document))
    return tmp_path / "a.json"


def test_stress_of_records_in_gigapascals_with_the_sign_of_ase(tmp_path):
    document = chgnet(FRAMES)
    document["stresses"] = [(full(a.calc.results["stress"]) / GPa).tolist() for a in FRAMES]
    path = written(tmp_path, document)
    assert_same(read(path, labels={"stress": {"key": "stresses", "unit": "GPa"}}), FRAMES)
    findings = Findings()
    list(read_structures(str(path), ReadOptions(), findings=findings))
    said = "stress from 'stresses' in kbar (assumed), the opposite of ASE's sign, kept as eV/A^3 with ASE's sign"
    assert findings.sources("stress") == said


@pytest.mark.parametrize(("dialect", "key"), [(matpes, "stress"), (snap, "virial_stress"), (chgnet, "stresses")])
def test_kilobars_that_are_stated_are_what_is_assumed(tmp_path, dialect, key):
    path = written(tmp_path, dialect(FRAMES))
    for stated in ("kbar", None):
        options = {"key": key} | ({"unit": stated} if stated else {})
        assert_same(read(path, labels={"stress": options}), FRAMES)


def test_units_that_fitsnap_names_and_others_that_are_stated(tmp_path):
    document = fitsnap(FRAMES)
    for one in document["Dataset"]["Data"]:
        one["Energy"] /= Hartree
    path = written(tmp_path, {**document, "Dataset": {**document["Dataset"], "EnergyStyle": "hartree"}})
    (first, _) = read(path, labels={"forces": {"key": "Forces", "unit": "eV/A"}})
    assert first.labels["energy"] == pytest.approx(FRAMES[0].get_potential_energy())
    np.testing.assert_allclose(first.labels["forces"], FRAMES[0].get_forces())
    (first, _) = read(path, labels={"stress": {"key": "Stress", "unit": "GPa", "convention": "vasp"}})
    expected = np.array(document["Dataset"]["Data"][0]["Stress"]) * -GPa  # bars, said to be gigapascals
    np.testing.assert_allclose(first.labels["stress"], expected)


def molecule(**labels):
    return {"R": np.eye(3)[None] * [2.0, 0, 0] + np.arange(6.0).reshape(2, 3, 1), "z": np.array([28, 13, 1]), **labels}


@pytest.mark.parametrize(
    ("labels", "energy", "force"),
    [
        ({}, kcal / mol, kcal / mol),
        ({"energy": {"key": "E", "unit": "kcal/mol"}}, kcal / mol, kcal / mol),
        ({"energy": {"key": "E", "unit": "Ry"}, "forces": {"key": "F", "unit": "eV/A"}}, Ry, 1.0),
    ],
)
def test_units_that_npz_names_and_others_that_are_stated(tmp_path, labels, energy, force):
    forces = np.arange(18.0).reshape(2, 3, 3) / 10
    arrays = molecule(E=np.array([[-100.0], [-99.0]]), F=forces, e_unit="kcal/mol", r_unit="Ang")
    np.savez(tmp_path / "a.npz", **arrays)
    found = read(tmp_path / "a.npz", labels=labels)
    assert [one.labels["energy"] for one in found] == pytest.approx([-100 * energy, -99 * energy])
    np.testing.assert_allclose(found[1].labels["forces"], forces[1] * force)


@pytest.mark.parametrize("size", [3, 4, 6, 7])
@pytest.mark.parametrize("shape", [(6,), (3, 3)])
def test_stress_of_structures_that_are_filled_up_is_left_whole(tmp_path, size, shape):
    generator = np.random.default_rng(0)
    numbers = np.full((2, size), 28)
    numbers[1, 2:] = 0
    stress = np.array([0.01, 0.02, 0.03, 0.0, 0.004, 0.005])
    arrays = {
        "positions": generator.random((2, size, 3)) * 8, "atomic_numbers": numbers, "energy": np.array([-20.0, -10.0]),
        "forces": generator.random((2, size, 3)), "cell": np.tile(np.eye(3) * 9, (2, 1, 1)),
        "stress": np.tile(stress if shape == (6,) else full(stress), (2, *[1] * len(shape))),
        "site": np.where(numbers, np.arange(size), -1), "dipole": np.tile([0.1, 0.2, 0.3], (2, 1)),
    }  # fmt: skip
    np.savez(tmp_path / "a.npz", **arrays)
    second = read(tmp_path / "a.npz", labels={"site": "site", "dipole": "dipole"})[1]
    assert second.formula == "Ni2"
    np.testing.assert_allclose(second.labels["stress"], full(stress))
    np.testing.assert_allclose(second.labels["forces"], arrays["forces"][1, :2])
    np.testing.assert_allclose(second.labels["site"], [0, 1])
    if size != 4:
        np.testing.assert_allclose(second.labels["dipole"], [0.1, 0.2, 0.3])
