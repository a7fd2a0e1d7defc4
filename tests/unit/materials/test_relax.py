"""Many structures relax together as each would alone, by ASE."""

import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.optimize import FIRE

import sciml
from domains.materials.data.structure import Structure
from domains.materials.dynamics.moving import MovingBatch
from domains.materials.dynamics.relax import RelaxConfig, relax
from domains.materials.inference.calculator import SciMLCalculator
from domains.materials.inference.predict import PredictConfig, predict
from domains.materials.inference.predictor import Predictor
from sciml.app.cli import main
from sciml.core.errors import ConfigError, DataError
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_model


@pytest.fixture(scope="module")
def run(small_run):
    return small_run().path


def cells(count=4):
    """Small rattled cells of copper and nickel, some of them sheared."""
    generator = np.random.default_rng(0)
    found = []
    for number in range(count):
        atoms = bulk("Cu", "fcc", 3.6, cubic=True).repeat((1 + number % 2, 1, 1))
        atoms.numbers = generator.choice([28, 29], len(atoms))
        atoms.rattle(0.08, seed=number)
        atoms.set_cell(atoms.cell @ (np.eye(3) + 0.03 * generator.normal(size=(3, 3))), scale_atoms=True)
        found.append(atoms)
    return found


@pytest.mark.parametrize("what", ["atoms", "cell"])
def test_each_structure_takes_the_steps_that_it_takes_alone(run, what):
    predictor = Predictor.open(run, dtype="float64")
    given = cells(3)
    config = RelaxConfig(relax=what, fmax=0.03, max_steps=25)
    found = list(relax(predictor, map(Structure.from_atoms, given), config))
    calculator = SciMLCalculator(run)
    for atoms, one in zip(given, found, strict=True):
        atoms.calc = calculator
        alone = FIRE(FrechetCellFilter(atoms) if what == "cell" else atoms, logfile=None)
        converged = alone.run(fmax=config.fmax, steps=config.max_steps)
        assert (one.converged, one.steps) == (converged, alone.nsteps)
        assert one.values["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(one.structure.positions, atoms.positions, atol=1e-5)
        np.testing.assert_allclose(one.structure.cell, atoms.cell.array, atol=1e-5)
    assert len({one.steps for one in found}) > 1  # so they did leave one after the other


def test_a_full_batch_takes_in_others_as_some_leave(run, monkeypatch):
    monkeypatch.setattr("domains.materials.dynamics.relax.BATCH_EDGES", 700)
    predictor = Predictor.open(run, dtype="float64")
    structures = [Structure.from_atoms(atoms) for atoms in cells(4)]
    config = RelaxConfig(relax="cell", fmax=0.05, max_steps=15)
    together = list(relax(predictor, structures, config))
    alone = [next(relax(predictor, [one], config)) for one in structures]
    assert [one.steps for one in together] == [one.steps for one in alone]
    np.testing.assert_allclose(
        [one.values["energy"] for one in together], [one.values["energy"] for one in alone], atol=1e-9
    )


def test_lists_are_made_again_before_they_are_incomplete(run):
    predictor = Predictor.open(run, dtype="float64")
    batch = MovingBatch(predictor, [Structure.from_atoms(atoms) for atoms in cells(3)])
    generator = torch.Generator().manual_seed(0)
    for scale in (0.05, 0.2, 0.5):
        batch.positions = batch.positions + scale * torch.randn(batch.positions.shape, generator=generator)
        batch.cell = batch.cell @ (torch.eye(3) + 0.1 * scale * torch.randn(3, 3, 3, generator=generator)).double()
        found = batch.evaluate()
        for number in range(3):
            fresh = next(iter(predictor.predict([batch.structure(number)])))
            assert found.energy[number] == pytest.approx(float(fresh["energy"]), abs=1e-9)
    assert 3 < batch.searches <= 12


def test_a_molecule_has_no_cell_to_relax(run):
    pair = Structure.from_atoms(molecule("O2"))
    pair = type(pair)(np.array([28, 29]), 2 * pair.positions, pair.cell, pair.pbc)
    predictor = Predictor.open(run, dtype="float64")
    with pytest.raises(DataError, match="has no cell that repeats, so none to relax; use relax=atoms"):
        list(relax(predictor, [pair], RelaxConfig(relax="cell")))
    (one,) = relax(predictor, [pair], RelaxConfig(relax="atoms", fmax=1e-3, max_steps=10))
    assert one.values["energy"] < float(next(iter(predictor.predict([pair])))["energy"])


def test_fixed_atoms_are_refused_wherever_atoms_would_move(run, tmp_path):
    held = cells(2)
    held[1].set_constraint(FixAtoms([0]))
    write(tmp_path / "given.extxyz", held)
    model, said = sciml.load(run), r"has constraints \(FixAtoms\), and all atoms would move; remove them"
    with pytest.raises(DataError, match=f"structure 1: {said}"):
        model.relax(held, cell=False, max_steps=1)
    with pytest.raises(DataError, match=f"structure 1: {said}"):
        model.dynamics(held, temperature=300, steps=1)
    config = PredictConfig(structures=str(tmp_path / "given.extxyz"), out=str(tmp_path / "a.extxyz"), relax="atoms")
    with pytest.raises(DataError, match=f"given.extxyz@1: {said}"):
        predict(load_model(RunFolder.find(str(run), "runs")), config)
    assert len(model.predict(held)) == 2


def test_files_and_atoms_are_relaxed(run, tmp_path, capsys):
    write(tmp_path / "given.extxyz", cells(2))
    out = tmp_path / "out.extxyz"
    main("predict", [f"run={run}", f"structures={tmp_path / 'given.extxyz'}", f"out={out}", "relax=cell", "fmax=0.05",
                     "max_steps=12", "dtype=float64"])  # fmt: skip
    assert "relaxed    " in capsys.readouterr().out
    written = read(out, ":")
    model = sciml.load(run)
    for found, one in zip(written, model.relax(cells(2), fmax=0.05, max_steps=12), strict=True):
        assert found.info["relax_steps"] == one.info["relax_steps"]
        assert found.info["relaxed"] == one.info["relaxed"]
        assert found.get_potential_energy() == pytest.approx(one.get_potential_energy(), abs=1e-6)
    first, *_, last = model.dynamics(cells(2), temperature=300, steps=4, every=2)[1]
    assert (first.info["step"], last.info["step"]) == (0, 4)
    assert not np.allclose(first.positions, last.positions)


def test_a_molecule_in_a_box_has_no_cell_to_relax_and_a_slab_no_volume_to_be_pressed(run):
    model, boxed = sciml.load(run), bulk("Cu", cubic=True)
    boxed.center(vacuum=6.0)
    boxed.pbc = False
    with pytest.raises(DataError, match="structure 0: has no cell that repeats, so none to relax; use relax=atoms"):
        model.relax(boxed, max_steps=1)
    slab = fcc111("Cu", (1, 1, 3), vacuum=6.0, periodic=False)
    slab.set_cell(slab.cell.complete())
    slab.rattle(0.05, seed=0)
    (relaxed,) = model.relax(slab, fmax=1e-9, max_steps=2)
    assert relaxed.info["relax_steps"] == 2
    said = "pressure: structure 1 does not repeat in all directions and has no volume to be pressed; leave it out"
    with pytest.raises(ConfigError, match=said):
        model.dynamics([bulk("Cu", cubic=True), slab], pressure=0.0, steps=1)
    assert model.dynamics([], steps=1) == model.relax([]) == []
