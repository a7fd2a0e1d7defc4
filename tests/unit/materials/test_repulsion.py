"""Trained potentials are walls at short range: atoms that come too close are driven apart."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.optimize import FIRE

from domains.materials.inference.calculator import SciMLCalculator
from sciml.core.config import build
from sciml.models.gnn import GNNConfig
from sciml.run.spec import spec_of_run

pytestmark = pytest.mark.filterwarnings("ignore::domains.materials.inference.calculator.OutsideTrainingSet")


@pytest.fixture(scope="module")
def calculator(small_run):
    return SciMLCalculator(small_run().path)


def dimer(calculator, symbols, distance):
    atoms = Atoms(symbols, positions=[[0, 0, 0], [0, 0.6 * distance, 0.8 * distance]])
    atoms.calc = calculator
    return atoms


@pytest.mark.parametrize("symbols", [("Cu", "Cu"), ("Cu", "Ni"), ("Ni", "Ni")])
def test_two_atoms_repel_each_other_below_their_bond(calculator, symbols):
    distances = np.arange(0.5, 2.2, 0.1)
    energies = np.array([dimer(calculator, symbols, one).get_potential_energy() for one in distances])
    assert (np.diff(energies) < 0).all()
    assert energies[0] - energies[-1] > 1000


def test_forces_are_slopes_of_the_wall(calculator):
    low, high = (dimer(calculator, ("Cu", "Ni"), d).get_potential_energy() for d in (1.4999, 1.5001))
    forces = dimer(calculator, ("Cu", "Ni"), 1.5).get_forces()
    assert forces[1] @ [0, 0.6, 0.8] == pytest.approx((low - high) / 2e-4, rel=1e-6)
    np.testing.assert_allclose(forces[0], -forces[1], atol=1e-9)


def test_fire_separates_atoms_that_overlap(calculator):
    atoms = dimer(calculator, ("Ni", "Ni"), 1.0)
    FIRE(atoms, logfile=None).run(fmax=0.1, steps=100)
    assert atoms.get_distance(0, 1) > 1.9
    crowd = Atoms("Ni16", scaled_positions=np.random.default_rng(0).uniform(size=(16, 3)), cell=[5.7] * 3, pbc=True)
    crowd.calc = calculator
    FIRE(crowd, logfile=None).run(fmax=0.1, steps=60)
    distances = crowd.get_all_distances(mic=True)
    assert distances[np.triu_indices(16, 1)].min() > 1.8


def test_a_model_whose_file_says_nothing_has_none():
    assert build(GNNConfig, {"kind": "gnn", "layer": "painn"}).repulsion == "none"


def test_a_warm_start_has_the_repulsion_of_its_source(small_run):
    assert small_run().record["config"]["model"]["repulsion"] == "zbl"
    domain = spec_of_run(small_run()).domain
    fresh = spec_of_run(small_run(), {"model.repulsion": "auto"})
    before = spec_of_run(small_run(), {"model.repulsion": "none"})
    assert domain.data_defaults(fresh, before).values == {"model.repulsion": "none"}
    assert domain.data_defaults(fresh, fresh).values == {"model.repulsion": "zbl"}
    assert domain.data_defaults(fresh).values == {"model.repulsion": "zbl"}
    assert domain.data_defaults(before).values == {}
