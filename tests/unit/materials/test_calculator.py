"""ASE's calculator says what the task says, conserves energy, and knows what it does not know."""

from __future__ import annotations

import warnings

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.filters import FrechetCellFilter
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE

from domains.materials.data.batch import collate
from domains.materials.data.structure import Structure, stress_voigt
from domains.materials.inference.calculator import OutsideTrainingSet, SciMLCalculator
from domains.materials.training.ensemble import combined
from sciml.core.errors import ConfigError, DataError

LEARNED = ("trainer.max_steps=150", "optim.lr=0.01", "trainer.valid_every=150", "trainer.save_every=150")
"""Enough for a crystal that stays one."""


def crystal(repeat=(2, 1, 1), rattle=0.05, seed=0):
    """A rattled copper-nickel alloy."""
    atoms = bulk("Cu", "fcc", 3.58, cubic=True).repeat(repeat)
    atoms.symbols = np.random.default_rng(seed).choice(["Cu", "Ni"], len(atoms))
    atoms.symbols[:2] = ["Cu", "Ni"]
    atoms.rattle(rattle, seed=seed)
    return atoms


@pytest.fixture(scope="module")
def learned(small_run):
    return small_run(*LEARNED).path


@pytest.fixture
def calculator(learned):
    return SciMLCalculator(learned)


@pytest.fixture
def doubting(small_run):
    """Of an ensemble that has learned next to nothing."""
    return SciMLCalculator(small_run("task.members=2").path)


def with_calculator(atoms, calculator):
    atoms = atoms.copy()
    atoms.calc = calculator
    return atoms


def heated(atoms, kelvin, seed=0):
    """Gives the atoms speeds; their center stays where it is."""
    speeds = np.random.default_rng(seed).normal(size=(len(atoms), 3))
    atoms.set_velocities(speeds * np.sqrt(kelvin * units.kB / atoms.get_masses())[:, None])
    Stationary(atoms)
    return atoms


@pytest.mark.filterwarnings("ignore::domains.materials.inference.calculator.OutsideTrainingSet")
@pytest.mark.parametrize("kind", ["calculator", "doubting"])
def test_results_are_those_of_the_task(kind, request):
    calculator = request.getfixturevalue(kind)
    atoms = with_calculator(crystal(), calculator)
    found = {"forces": atoms.get_forces(), "energy": atoms.get_potential_energy(), "stress": atoms.get_stress()}
    predictor = calculator.predictor
    batch = collate([predictor.sample(Structure.from_atoms(atoms))], dtype=torch.float64)
    members = predictor.task.evaluate(predictor.model, batch, create_graph=False)
    expected = {name: value.detach().numpy() for name, value in combined(members, predictor.task.calibration).items()}
    assert found["energy"] == pytest.approx(expected["energy"][0], abs=1e-10)
    np.testing.assert_allclose(found["forces"], expected["forces"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(found["stress"], stress_voigt(expected["stress"][0]), rtol=0, atol=1e-10)
    assert calculator.results["free_energy"] == found["energy"]
    if kind == "doubting":
        # spreads are differences of members, times factors that may be large
        assert calculator.get_property("energy_std", atoms) == pytest.approx(expected["energy_std"][0], rel=1e-8)
        np.testing.assert_allclose(calculator.results["forces_std"], expected["forces_std"], rtol=1e-6, atol=1e-8)
        assert calculator.results["stress_std"].shape == (6,)


def test_forces_and_stress_are_slopes_of_the_energy(calculator):
    atoms = with_calculator(crystal(), calculator)
    forces, stress, h = atoms.get_forces(), atoms.get_stress(voigt=False), 1e-4
    assert np.abs(forces).max() > 0.1

    def energy(atom, axis, shift):
        moved = with_calculator(atoms, calculator)
        moved.positions[atom, axis] += shift
        return moved.get_potential_energy()

    for atom, axis in ((0, 0), (3, 2), (7, 1)):
        slope = (energy(atom, axis, h) - energy(atom, axis, -h)) / (2 * h)
        assert forces[atom, axis] == pytest.approx(-slope, abs=1e-6)

    def stretched(strain):
        some = with_calculator(atoms, calculator)
        some.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        return some.get_potential_energy()

    for row, column in ((0, 0), (1, 2)):
        strain = np.zeros((3, 3))
        strain[row, column] += h / 2
        strain[column, row] += h / 2
        slope = (stretched(strain) - stretched(-strain)) / (2 * h)
        assert stress[row, column] == pytest.approx(slope / atoms.get_volume(), abs=1e-6)


@pytest.mark.filterwarnings("ignore::domains.materials.inference.calculator.OutsideTrainingSet")
def test_neighbors_are_searched_again_only_when_an_atom_has_moved_by_half_the_skin(learned):
    kept, fresh = SciMLCalculator(learned, skin=0.6), SciMLCalculator(learned, skin=0)
    atoms = crystal((2, 2, 1))
    generator = np.random.default_rng(0)
    start = atoms.positions.copy()
    direction = generator.normal(size=start.shape)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    for distance, searches in ((0.0, 1), (0.15, 1), (0.29, 1), (0.31, 2), (0.60, 2), (0.62, 3)):
        atoms.positions = start + distance * direction
        one, other = with_calculator(atoms, kept), with_calculator(atoms, fresh)
        np.testing.assert_allclose(one.get_forces(), other.get_forces(), rtol=0, atol=1e-10)
        assert one.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-10)
        assert kept.searches == searches, distance
    assert fresh.searches == 6
    changes = (
        lambda: atoms.set_cell(atoms.cell * 1.001),
        lambda: atoms.symbols.__setitem__(0, "Ni"),
        lambda: atoms.set_pbc([True, True, False]),
        lambda: atoms.positions.__setitem__(1, atoms.positions[1] + atoms.cell[0]),
    )
    for change in changes:
        before = kept.searches
        change()
        one, other = with_calculator(atoms, kept), with_calculator(atoms, fresh)
        np.testing.assert_allclose(one.get_forces(), other.get_forces(), rtol=0, atol=1e-10)
        assert kept.searches == before + 1


def test_atoms_that_collide_between_two_searches_are_refused(learned):
    calculator = SciMLCalculator(learned, skin=4.0)
    pair = with_calculator(Atoms("Cu2", positions=[[0, 0, 0], [2.3, 0, 0]]), calculator)
    pair.get_potential_energy()
    pair.positions[1, 0] = 0.35
    with pytest.raises(DataError, match=r"atoms 0 and 1 are 0\.35 A apart"):
        pair.get_potential_energy()


def test_a_cell_and_its_atoms_come_to_rest(calculator):
    atoms = with_calculator(crystal(rattle=0.1), calculator)
    before, moved = atoms.get_potential_energy(), FrechetCellFilter(atoms)
    assert FIRE(moved, logfile=None).run(fmax=0.01, steps=300)
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.01
    assert atoms.get_potential_energy() < before
    assert 10 < atoms.get_volume() / len(atoms) < 13  # A^3; copper has 11.8, nickel 10.9
    assert np.abs(atoms.get_stress()).max() < 0.01


def drift(atoms, picoseconds, step_fs=2.0):
    """How far the total energy moves (eV/atom) about its first value, at constant energy."""
    start = atoms.get_total_energy()
    totals = []
    steps = VelocityVerlet(atoms, step_fs * units.fs)
    steps.attach(lambda: totals.append(atoms.get_total_energy() - start), interval=5)
    steps.run(round(1000 * picoseconds / step_fs))
    return np.array(totals) / len(atoms)


def test_dynamics_conserve_energy(learned):
    calculator = SciMLCalculator(learned, skin=0.8)
    atoms = heated(with_calculator(crystal(), calculator), 300)
    found = drift(atoms, 0.2)
    kinetic = atoms.get_kinetic_energy() / len(atoms)
    assert kinetic > 0.01  # eV/atom: it moves
    assert np.abs(found).max() < 0.01 * kinetic
    assert 1 <= calculator.searches <= 10


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::domains.materials.inference.calculator.OutsideTrainingSet")
def test_energy_is_conserved_over_5_ps(learned):
    atoms = heated(with_calculator(crystal((2, 2, 1), rattle=0.0), SciMLCalculator(learned)), 600)
    found = drift(atoms, 5.0)
    slope = np.polyfit(np.linspace(0, 5.0, len(found)), found, 1)[0]
    assert abs(slope) < 1e-5  # eV/atom/ps
    assert np.abs(found).max() < 1e-3


def test_only_energies_are_computed_where_only_they_are_asked_for(calculator):
    atoms = with_calculator(crystal(), calculator)
    energy = atoms.get_potential_energy()
    assert "forces" not in calculator.results
    assert np.abs(atoms.get_forces()).max() > 0
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-10)


def test_float32_is_as_good_as_float32_is(learned, calculator):
    single = SciMLCalculator(learned, dtype="float32")
    one, other = with_calculator(crystal(), single), with_calculator(crystal(), calculator)
    np.testing.assert_allclose(one.get_forces(), other.get_forces(), atol=1e-4)
    assert one.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-3)


def test_results_can_be_written_by_ase(calculator, tmp_path):
    atoms = with_calculator(crystal(), calculator)
    atoms.get_forces()
    ase.io.write(tmp_path / "a.extxyz", atoms)
    again = ase.io.read(tmp_path / "a.extxyz")
    np.testing.assert_allclose(again.get_forces(), atoms.get_forces(), atol=1e-6)


def test_each_kind_of_reason_outside_is_warned_of_once(calculator):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for distance in (1.5, 1.45, 1.4):
            with_calculator(Atoms("CuNi", positions=[[0, 0, 0], [distance, 0, 0]]), calculator).get_forces()
            assert [reason.kind for reason in calculator.outside] == ["distance"]
        with_calculator(crystal(), calculator).get_forces()
    assert calculator.outside == []
    (warning,) = [one for one in told if issubclass(one.category, OutsideTrainingSet)]
    assert str(warning.message).startswith("NiCu lies outside the training set: Ni-Cu at 1.50 A, at least ")


def test_doubt_of_an_ensemble_is_warned_of(doubting):
    doubting.predictor.task.calibration = {"forces": 1e6}
    with pytest.warns(OutsideTrainingSet, match="forces known to"):
        with_calculator(crystal(), doubting).get_forces()


def test_what_has_no_head_is_not_implemented(small_run):
    energies = SciMLCalculator(
        small_run("task.targets.energy.forces_weight=0", "task.targets.energy.stress_weight=0").path
    )
    atoms = with_calculator(crystal(), energies)
    assert np.isfinite(atoms.get_potential_energy())
    with pytest.raises(
        PropertyNotImplementedError, match="no head for 'forces'; it predicts energy, energies, free_energy"
    ):
        atoms.get_forces()
    assert energies.implemented_properties == ["energy", "energies", "free_energy"]


def test_stress_without_a_cell_is_not_implemented(calculator):
    atoms = with_calculator(Atoms("Cu2", positions=[[0, 0, 0], [2.5, 0, 0]]), calculator)
    assert atoms.get_forces().shape == (2, 3)
    with pytest.raises(PropertyNotImplementedError, match="stress needs a cell of three vectors"):
        atoms.get_stress()


def moved_to(value):
    atoms = crystal()
    atoms.positions[3, 0] = value
    return atoms


@pytest.mark.parametrize(
    ("atoms", "says"),
    [
        (Atoms("CuAu", positions=[[0, 0, 0], [2.5, 0, 0]]), "CuAu: the model does not know Au; it knows Ni, Cu"),
        (Atoms("Cu", pbc=True), "Cu: pbc says that the structure repeats, but it has no cell"),
        (moved_to(np.nan), "the position of atom 3 is not a finite number"),
        (Atoms("Cu2", positions=[[0, 0, 0], [0.3, 0, 0]]), r"Cu2: atoms 0 and 1 are 0\.30 A apart, closer than 0\.4 A"),
        (Atoms(), "has no atom"),
    ],
)
def test_atoms_that_cannot_be_predicted_are_refused(calculator, atoms, says):
    with pytest.raises(DataError, match=says):
        with_calculator(atoms, calculator).get_potential_energy()


def test_not_a_number_on_the_way_is_refused(calculator):
    atoms = with_calculator(crystal(), calculator)
    atoms.get_potential_energy()
    atoms.positions[2, 2] = np.inf
    with pytest.raises(DataError, match="the position of atom 2 is not a finite number"):
        atoms.get_potential_energy()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"run": "yesterday"}, "run: there is no run 'yesterday'"),
        ({"skin": -0.1}, r"skin must be at least 0, got -0\.1; try skin=0\.5"),
        ({"dtype": "half"}, "dtype must be one of float32, float64, got 'half'"),
        ({"checkpoint": "7"}, "checkpoint: .* has no checkpoint '7'"),
    ],
)
def test_a_run_that_cannot_be_opened_is_refused(learned, tmp_path, options, says):
    with pytest.raises(ConfigError, match=says):
        SciMLCalculator(**{"run": learned, "runs_dir": str(tmp_path), **options})
