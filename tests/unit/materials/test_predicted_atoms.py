"""Atoms keep all that they came with beside what a model says of them in Python, and no older label."""

from __future__ import annotations

from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms

import sciml
from domains.materials.inference import predict as predicting
from domains.materials.inference.predict import OutOfDomain

from .alloy_files import alloy, relabeled


@pytest.fixture(scope="module")
def model(small_run):
    return sciml.load(str(small_run().path))


def labeled():
    """Returns atoms with labels wherever they may stand, and with entries of their own."""
    atoms = relabeled(alloy(3), energy=-1.0)
    atoms.info |= {"energy": 99.0, "REF_energy": 1.0, "outside": "of town"}
    atoms.arrays |= {"forces": np.ones((len(atoms), 3)), "tags": np.arange(len(atoms))}
    atoms.set_velocities(np.ones((len(atoms), 3)))
    return atoms


def test_a_copy_keeps_what_it_came_with_and_loses_its_labels(model, tmp_path):
    given = labeled()
    given.set_constraint(FixAtoms([1]))
    (found,) = model.predict(given)
    bare = given.copy()
    bare.calc = model.calculator(dtype="float32")
    assert found.get_potential_energy() == pytest.approx(bare.get_potential_energy(), abs=1e-4)
    assert found.info == {"REF_energy": 1.0, "outside": False}
    assert set(found.arrays) == {"numbers", "positions", "tags", "momenta"}
    np.testing.assert_array_equal(found.constraints[0].index, [1])
    ase.io.write(tmp_path / "found.extxyz", found)
    assert ase.io.read(tmp_path / "found.extxyz").get_potential_energy() == pytest.approx(found.get_potential_energy())
    assert given.info["energy"] == 99.0
    assert "forces" in given.arrays


def test_results_are_given_away_for_atoms_with_initial_moments_and_charges(model):
    given = bulk("Ni", cubic=True)  # ASE starts nickel from 0.6 muB
    given.set_initial_charges([0.1, -0.1, 0.1, -0.1])
    assert given.get_initial_magnetic_moments().all()
    bare = given.copy()
    bare.calc = model.calculator()
    (found,) = model.predict(given, dtype="float64")
    ((start,),) = model.dynamics(given, steps=1, every=2)
    (relaxed,) = model.relax(given, max_steps=1)
    assert found.get_potential_energy() == pytest.approx(bare.get_potential_energy())
    np.testing.assert_allclose(found.get_forces(), bare.get_forces(), atol=1e-9)
    np.testing.assert_allclose(found.get_stress(), bare.get_stress(), atol=1e-9)
    assert start.get_potential_energy() == pytest.approx(bare.get_potential_energy())
    assert np.isfinite(relaxed.get_potential_energy())
    for moved in (start, relaxed):
        there = moved.copy()
        there.calc = model.calculator()
        np.testing.assert_allclose(moved.get_forces(), there.get_forces(), atol=1e-9)
        np.testing.assert_allclose(moved.get_stress(), there.get_stress(), atol=1e-9)
    np.testing.assert_array_equal(found.get_initial_charges(), given.get_initial_charges())


def test_a_structure_outside_says_why_in_python_too(model):
    near = alloy(3)
    near.positions[1] = near.positions[0] + [1.5, 0, 0]
    (found,) = model.predict(near)
    assert found.info["outside"]
    assert " at 1.5" in found.info["outside_why"]


def test_relaxed_atoms_keep_tags_and_no_velocities(model):
    (found,) = model.relax(labeled(), cell=False, fmax=1e-6, max_steps=2)
    assert set(found.arrays) == {"numbers", "positions", "tags"}
    assert {"REF_energy", "outside", "relaxed", "relax_steps"} == set(found.info)
    ((start, end),) = model.dynamics(labeled(), steps=2, every=2, time_step=0.1)
    assert [one.get_temperature() for one in (start, end)] == pytest.approx(
        [one.info["temperature"] for one in (start, end)]
    )
    assert end.arrays["tags"].tolist() == start.arrays["tags"].tolist() == list(range(len(end)))
    assert "forces" not in end.arrays
    assert end.info["step"] == 2


def test_properties_with_a_variance_of_their_own_are_said_to_have_spreads(tmp_path):
    alone = SimpleNamespace(has_spread=False, uncertain=("hardness",))
    assert "spreads    hardness alone" in predicting._lines(tmp_path, 1, alone, OutOfDomain())[1]


@pytest.mark.parametrize("pbc", [True, False])
def test_float32_is_as_exact_far_from_the_origin(model, pbc):
    near = bulk("Ni", cubic=True) * 2
    near.pbc = pbc
    near.rattle(0.1, seed=0)
    expected = model.predict(near, dtype="float64")[0].get_forces()
    far = near.copy()  # as unwrapped trajectories have them
    away = np.random.default_rng(0).integers(-1000, 1000, (len(near), 3)) * pbc
    far.positions += away @ near.cell.array + [1e4, -2e4, 3e4]
    (found,) = model.predict(far)
    np.testing.assert_allclose(found.get_forces(), expected, atol=5e-5)
    np.testing.assert_array_equal(found.positions, far.positions)
    ((moved, _),) = model.dynamics(far, dtype="float32", steps=1, every=1)
    np.testing.assert_allclose(moved.get_forces(), expected, atol=5e-5)
