"""Energies and stresses of atoms add up to those of the structure, and are local."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from domains.materials.data.structure import Structure
from domains.materials.inference.calculator import SciMLCalculator
from domains.materials.inference.predict import PredictConfig, predict
from domains.materials.inference.predictor import Predictor
from sciml.core.errors import ConfigError
from sciml.distributed.mesh import Mesh
from sciml.run.loaded import load_model

from .alloy_files import alloy, extxyz

pytestmark = pytest.mark.filterwarnings("ignore::domains.materials.inference.calculator.OutsideTrainingSet")


@pytest.fixture(scope="module", params=["one", "ensemble"])
def folder(request, small_run):
    return small_run() if request.param == "one" else small_run("task.members=2")


def test_the_calculator_has_energies_and_stresses_of_atoms(folder):
    atoms = alloy(3)
    atoms.calc = SciMLCalculator(folder.path)
    energies, stresses = atoms.get_potential_energies(), atoms.get_stresses()
    assert energies.shape == (8,)
    assert stresses.shape == (8, 6)
    assert energies.sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(stresses.sum(0), atoms.get_stress(), atol=1e-12)
    assert np.ptp(energies) > 1e-3


def test_an_atom_far_from_a_change_keeps_its_energy(folder):
    atoms = Atoms("Cu4", positions=[[0, 0, 0], [2.5, 0, 0], [30, 0, 0], [32.5, 0, 0]])
    calculator = SciMLCalculator(folder.path)
    atoms.calc = calculator
    before = atoms.get_potential_energies()
    atoms.positions[3, 0] = 32.2
    after = atoms.get_potential_energies()
    np.testing.assert_allclose(after[:2], before[:2], atol=1e-10)
    assert abs(after[2] - before[2]) > 1e-6
    with pytest.raises(PropertyNotImplementedError, match="stress needs a cell"):
        atoms.get_stresses()


def test_files_have_them_where_they_are_asked_for(folder, tmp_path):
    loaded = load_model(folder, mesh=Mesh.alone(torch.device("cpu")))
    path, out = extxyz(tmp_path / "a.extxyz", [alloy(0), alloy(1)]), tmp_path / "predicted.extxyz"
    names = ["energy", "stress", "energies", "stresses"]
    predict(loaded, PredictConfig(structures=path, out=str(out), properties=names, dtype="float64"))
    for atoms in ase.io.read(out, ":"):
        energies, stresses = (atoms.calc.results.get(name, atoms.arrays.get(name)) for name in ("energies", "stresses"))
        assert energies.sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
        np.testing.assert_allclose(stresses.sum(0), atoms.get_stress(), atol=1e-6)
    with pytest.raises(ConfigError, match=r"the model has no head for 'dipole'; .*energies, stresses"):
        predict(loaded, PredictConfig(structures=path, out=str(tmp_path / "b.extxyz"), properties=["dipole"]))


def test_nothing_of_atoms_is_computed_where_nobody_asks(folder):
    loaded = load_model(folder, mesh=Mesh.alone(torch.device("cpu")))
    (values,) = Predictor(loaded).predict([Structure.from_atoms(alloy(0))])
    assert not {"energies", "stresses"} & set(values)
