"""A model of several data sets reads for each structure the head of one that knows its elements, and says which."""

from __future__ import annotations

import pickle
import warnings

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms

import sciml
from domains.materials.data.schema import MaterialsStatistics
from domains.materials.data.structure import Structure
from domains.materials.inference.calculator import OutsideTrainingSet, SciMLCalculator
from domains.materials.inference.lammps import FILE
from domains.materials.inference.predict import PredictConfig, predict
from domains.materials.inference.predictor import Predictor
from sciml.app.cli import main
from sciml.core.config import build
from sciml.run.loaded import load_model

from .alloy_files import alloy, extxyz, relabeled
from .test_lammps import GhostLoop

ZERO = -7.0
"""eV/atom, by which energies of the second data set lie below EMT's; those of the first are an EAM's."""


def gold(seed):
    """A copper-gold alloy of which the zero of energy is far from the other set's."""
    atoms = alloy(seed, ("Cu", "Au"))
    return relabeled(atoms, energy=atoms.get_potential_energy() + ZERO * len(atoms))


@pytest.fixture(scope="module")
def run(small_run, small_alloys, tmp_path_factory):
    """The folder of a model of two data sets: copper-nickel, and copper-gold."""
    mine = extxyz(tmp_path_factory.mktemp("mine") / "mine.extxyz", [gold(n) for n in range(12)])
    return small_run(f"data.path={{old: {small_alloys}, mine: {mine}}}")


@pytest.fixture(scope="module")
def alloys(small_alloys):
    """A structure of each data set."""
    nickel = next(atoms for atoms in ase.io.read(small_alloys, ":") if len(set(atoms.symbols)) == 2)
    return [nickel, gold(20)]


def test_each_structure_is_predicted_by_a_data_set_that_knows_its_elements(run, alloys, tmp_path):
    path, loaded = extxyz(tmp_path / "in.extxyz", alloys), load_model(run)
    made = predict(loaded, build(PredictConfig, {"structures": path, "out": str(tmp_path / "out.extxyz")}))
    written = ase.io.read(tmp_path / "out.extxyz", ":")
    assert [atoms.info["data_set"] for atoms in written] == ["old", "mine"]
    for found, true in zip(written, alloys, strict=True):
        assert found.get_potential_energy() / len(true) == pytest.approx(true.get_potential_energy() / len(true), abs=1)
    assert made.document["data_sets"] == {"old": 1, "mine": 1}
    assert "data sets  old 1, mine 1; their energies need not share a zero, branch=NAME takes one for all" in made.text
    for atoms in sciml.load(str(run.path)).predict(alloys, branch="mine"):
        assert atoms.info["data_set"] == "mine"


def test_a_structure_that_no_data_set_knows_lies_outside(run, alloys, tmp_path):
    mixed = alloys[1].copy()
    mixed.symbols[:4] = "Ni"
    path = extxyz(tmp_path / "in.extxyz", [mixed])
    predict(load_model(run), build(PredictConfig, {"structures": path, "out": str(tmp_path / "out.extxyz")}))
    written = ase.io.read(tmp_path / "out.extxyz")
    assert written.info["outside"]
    assert written.info["outside_why"].startswith("no Au in the data set 'old'")


def test_relaxing_moving_and_calculating_read_the_same_head(run, alloys):
    model = sciml.load(str(run.path))
    expected = [float(atoms.get_potential_energy()) for atoms in model.predict(alloys, dtype="float64")]
    start = [trajectory[0] for trajectory in model.dynamics(alloys, steps=1, temperature=1.0)]
    relaxed = model.relax(alloys, cell=False, max_steps=1)
    assert [atoms.info["data_set"] for atoms in (*start, *relaxed)] == ["old", "mine"] * 2
    np.testing.assert_allclose([atoms.get_potential_energy() for atoms in start], expected, rtol=1e-9)
    calculator = SciMLCalculator(run.path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert calculator.get_potential_energy(alloys[0]) == pytest.approx(expected[0])
    with pytest.warns(OutsideTrainingSet, match="as in the data set 'mine', the structure before it as in 'old'"):
        assert calculator.get_potential_energy(alloys[1]) == pytest.approx(expected[1])
    assert calculator.data_set == "mine"


def test_one_head_is_kept_for_a_whole_space_of_alloys(run):
    predictor = Predictor(load_model(run))
    assert predictor.schema.branches[predictor.keep_branch([29, 79])] == "mine"
    copper = next(predictor.predict([_copper()], gradients=False))["energy"]
    assert copper == pytest.approx(next(Predictor(load_model(run), branch="mine").predict([_copper()]))["energy"])
    assert "data set 'mine'" in predictor.told_data_set()[0]


def _copper():
    return Structure.from_atoms(Atoms("Cu2", positions=[[0, 0, 0], [2.5, 0, 0]]))


def test_runs_of_before_take_their_references_for_what_data_sets_have():
    one = torch.ones((), dtype=torch.float64)
    parts = {
        "references": torch.tensor([[-4.0, 0.0], [-3.0, -2.0]]).double(),
        "shortest": 2 * torch.ones(2, 2).double(),
    }
    parts |= {"element_counts": torch.tensor([5.0, 7.0]).double(), "energy_std": one, "avg_num_neighbors": one}
    found = MaterialsStatistics.from_tensors(parts)
    assert found.element_counts.tolist() == [[5.0, 0.0], [5.0, 7.0]]
    assert found.shortest.tolist() == [[[2.0, np.inf], [np.inf, np.inf]], [[2.0, 2.0], [2.0, 2.0]]]
    assert found.lacking((28, 29), [28, 29, 29], 0) == [29]


def test_lammps_gets_the_head_of_the_data_set_that_is_named(run, alloys, tmp_path):
    golden = alloys[1]
    golden.calc = SciMLCalculator(run.path, branch="mine")
    energies = {}
    for branch in ("old", "mine"):
        main("export", [f"run={run.path}", f"out={tmp_path / branch}", "to=lammps", f"branch={branch}"])
        model = pickle.loads((tmp_path / branch / FILE).read_bytes())
        structure = Structure.from_atoms(golden)
        data = GhostLoop(structure, list(model.predictor.schema.elements), 2 * model.rcutfac)
        model.compute_forces(data)
        energies[branch] = float(data.energy)
        text = (tmp_path / branch / "in.lammps").read_text()
        assert f"those of the data set {branch} " in text
        assert ("pair_coeff * * Cu Au" if branch == "mine" else "pair_coeff * * Ni Cu") in text
    assert energies["mine"] == pytest.approx(golden.get_potential_energy(), abs=1e-9)
    assert abs(energies["old"] - energies["mine"]) > 1  # eV: another zero
    for keys in (["to=lammps", "branch=hers"], ["branch=mine"]):
        with pytest.raises(SystemExit) as ended:
            main("export", [f"run={run.path}", f"out={tmp_path / 'c'}", *keys])
        assert ended.value.code == 2
        assert not (tmp_path / "c").exists()
