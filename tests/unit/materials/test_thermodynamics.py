"""Monte Carlo beside sums over all arrangements, and the command that runs it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from ase.io import read

from domains.materials.inference.predictor import Predictor
from domains.materials.screening.sites import Sites
from domains.materials.simulation.alloys import crystal
from domains.materials.thermodynamics.averages import (
    blocks,
    energy_and_heat_capacity,
    jackknife,
    ordering_temperature,
    warren_cowley_by_shell,
)
from domains.materials.thermodynamics.lattice_energy import LatticeEnergy, shells
from domains.materials.thermodynamics.monte_carlo import BOLTZMANN, Chains
from domains.materials.thermodynamics.thermodynamics import sample
from domains.materials.thermodynamics.thermodynamics_config import ThermodynamicsConfig
from sciml.core.errors import ConfigError
from sciml.data.staging import StagedParts
from sciml.distributed.mesh import Mesh
from sciml.domain.loading import load_domain
from sciml.run.loaded import load_model

TEMPERATURES = np.array([300.0, 600.0, 1200.0])
COUPLING = 0.02


def bcc(repeats):
    structure = crystal("bcc", 3.0, 1.0, (repeats,) * 3)
    return structure, shells(structure, 2)


def ising(neighbors):
    """Half of a coupling between each unlike (or minus it between each like) pair of nearest neighbors."""

    def energy(kinds):
        spins = np.where(kinds == 29, 1.0, -1.0)
        return 0.5 * COUPLING * (spins * (spins @ neighbors[0])).sum(1)

    return energy


def exact(energy, kinds, temperatures):
    """Energies, variances and arrangements' weights by going through all of them."""
    size, ones = len(kinds), int((kinds == 29).sum())
    every = np.full((len(list(combinations(range(size), ones))), size), 28)
    for row, chosen in zip(every, combinations(range(size), ones), strict=True):
        row[list(chosen)] = 29
    energies = energy(every)
    weights = np.exp(-(energies - energies.min()) / (BOLTZMANN * temperatures[:, None]))
    return every, energies, weights / weights.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def sampled():
    """Long chains of an Ising alloy on 16 sites, small enough to be summed over."""
    _, neighbors = bcc(2)
    kinds = np.array([28] * 8 + [29] * 8)
    energy = ising(neighbors)
    chains = Chains.start(kinds, energy, len(TEMPERATURES), 4, seed=1)
    energies, order = [], []
    for sweep in range(260):
        chains.sweep(energy, TEMPERATURES)
        if sweep >= 60:
            energies.append(chains.energies.copy())
            order.append(warren_cowley_by_shell(chains.kinds, (28, 29), neighbors))
    return energy, kinds, neighbors, np.stack(energies), np.stack(order)


def test_energies_and_heat_capacities_are_those_of_all_arrangements(sampled):
    energy, kinds, _, energies, _ = sampled
    _, each, weights = exact(energy, kinds, TEMPERATURES)
    mean, capacity = energy_and_heat_capacity(energies, TEMPERATURES, len(kinds))
    expected = weights @ each
    variance = weights @ each**2 - expected**2
    heat = variance / (BOLTZMANN * TEMPERATURES) ** 2 / len(kinds)
    np.testing.assert_array_less(np.abs(mean.mean - expected / len(kinds)), 4 * mean.error + 1e-6)
    np.testing.assert_array_less(np.abs(capacity.mean - heat), 4 * capacity.error + 1e-6)
    assert (mean.error < 0.05 * np.abs(expected) / len(kinds)).all()


def test_short_range_order_is_that_of_all_arrangements(sampled):
    energy, kinds, neighbors, _, order = sampled
    every, _, weights = exact(energy, kinds, TEMPERATURES)
    expected = weights @ warren_cowley_by_shell(every, (28, 29), neighbors)[..., 0, 1]
    found = jackknife(blocks(order[..., 0, 1]), lambda mean: mean)
    np.testing.assert_array_less(np.abs(found.mean - expected), 4 * found.error + 1e-6)
    assert (expected[:, 0] < 0).all()  # unlike neighbors attract each other
    assert (expected[:, 1] > 0).all()


def test_energies_of_chains_are_those_of_their_configurations():
    _, neighbors = bcc(2)
    energy = ising(neighbors)
    chains = Chains.start(np.array([28] * 10 + [29] * 6), energy, 3, 2, seed=0)
    for _ in range(5):
        chains.sweep(energy, TEMPERATURES)
    np.testing.assert_allclose(chains.energies, energy(chains.kinds.reshape(-1, 16)).reshape(3, 2))
    assert ((chains.kinds == 29).sum(-1) == 6).all()
    assert (chains.taken > 0).all()


def test_shells_of_crystals():
    for lattice, counts in (("bcc", [8, 6]), ("fcc", [12, 6])):
        near = shells(crystal(lattice, 3.0, 1.0, (3, 3, 3)), 2)
        assert [int(table[0].sum()) for table in near] == counts


def test_an_interrupted_sampling_goes_on_as_if_nothing_had_been(tmp_path):
    _, neighbors = bcc(2)
    energy, kinds = ising(neighbors), np.array([28] * 8 + [29] * 8)
    config = ThermodynamicsConfig(elements="CuNi", lattice="bcc", atoms=16, sweeps=30, replicas=2)
    whole, _ = sample(energy, kinds, neighbors, config, StagedParts(tmp_path / "whole", {}, ".json"))
    calls = 0

    def stops(numbers):
        nonlocal calls
        calls += 1
        if calls == 200:
            raise KeyboardInterrupt
        return energy(numbers)

    with pytest.raises(KeyboardInterrupt):
        sample(stops, kinds, neighbors, config, StagedParts(tmp_path / "part", {}, ".json"))
    again, new = sample(energy, kinds, neighbors, config, StagedParts(tmp_path / "part", {}, ".json"))
    np.testing.assert_array_equal(again.energies, whole.energies)
    np.testing.assert_array_equal(again.order, whole.order)
    assert new < 30 * 16 * 12


def loaded(folder):
    import torch

    return load_model(folder, mesh=Mesh.alone(torch.device("cpu")))


def test_a_model_on_a_lattice_gives_what_prediction_gives(small_run):
    predictor = Predictor(loaded(small_run()), dtype="float64")
    sites = Sites("fcc", (1, 1, 2), predictor.cutoff)
    energy = LatticeEnergy(predictor, sites, 3.6)
    numbers = np.random.default_rng(0).choice([28, 29], size=(5, len(sites)))
    structures = [replace(energy.structure, atomic_numbers=row) for row in numbers]
    expected = [float(values["energy"]) for values in predictor.predict(structures, gradients=False)]
    np.testing.assert_allclose(energy(numbers), expected, rtol=1e-10)


def test_the_command_writes_tables_pictures_and_snapshots(small_run, tmp_path):
    folder = small_run()
    domain = load_domain(folder.record["config"]["domain"])
    out = tmp_path / "order"
    config = ThermodynamicsConfig(
        elements="Cu3Ni", atoms=8, temperatures=(800.0, 400.0), sweeps=12, replicas=2, out=str(out), dtype="float64"
    )
    result = domain.thermodynamics(loaded(folder), config)
    rows = list(csv.DictReader((out / "thermodynamics.csv").read_text().splitlines()))
    assert [float(row["temperature"]) for row in rows] == [400, 800]
    assert "alpha1_Ni-Cu" in rows[0]
    record = json.loads((out / "thermodynamics.json").read_text())
    assert record["formula"] == result.document["formula"] == "Cu6Ni2"
    snapshots = read(out / "snapshots.extxyz", ":")
    assert [atoms.info["temperature"] for atoms in snapshots] == [400, 800]
    assert all(sorted(atoms.symbols) == ["Cu"] * 6 + ["Ni"] * 2 for atoms in snapshots)
    assert sorted(path.name for path in (out / "figures").iterdir()) == ["heat_capacity.png", "short_range_order.png"]
    with pytest.raises(ConfigError, match="overwrite"):
        domain.thermodynamics(loaded(folder), config)
    with pytest.raises(ConfigError, match="elements: the model does not know W; it knows Ni, Cu"):
        domain.thermodynamics(loaded(folder), ThermodynamicsConfig(elements="CuW", out=str(tmp_path / "b")))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"elements": "Cu"}, "elements: one element alone has no order"),
        ({"elements": "C!"}, "elements: 'C!' is no formula"),
        ({"elements": "CuNi", "temperatures": (0.0, 300.0)}, "temperatures must be above 0 K"),
        ({"elements": "CuNi", "temperatures": (300.0, 300.0)}, "temperatures: each temperature is named once"),
        ({"elements": "CuNi", "equilibration": 1.0}, "equilibration: nothing is left"),
        ({"elements": "CuNi", "sweeps": 5}, "sweeps: 4 sweeps behind equilibration are too few"),
        ({"elements": "CuNi", "lattice": "sc"}, "lattice must be one of"),
    ],
)
def test_keys_that_cannot_be_are_refused(keys, said):
    with pytest.raises(ConfigError, match=said):
        ThermodynamicsConfig(**keys)


def test_a_peak_is_an_ordering_temperature_only_if_it_is_clear():
    _, capacity = energy_and_heat_capacity(np.zeros((4, 3, 2)), TEMPERATURES, 16)
    assert ordering_temperature(capacity, TEMPERATURES) is None
    clear = capacity._replace(mean=np.array([0.1, 1.0, 0.2]), error=np.full(3, 0.05))
    assert ordering_temperature(clear, TEMPERATURES) == (600.0, 225.0)
    assert ordering_temperature(clear._replace(error=np.full(3, 0.5)), TEMPERATURES) is None


@pytest.mark.slow
def test_an_alloy_orders_at_the_known_temperature_of_the_bcc_ising_model():
    """The bulk orders at k T = 6.355 times the coupling (Butera and Comi 2000); 128 sites round the peak off."""
    _, neighbors = bcc(4)
    kinds = np.array([28] * 64 + [29] * 64)
    energy = ising(neighbors)
    known = 6.355 * COUPLING / BOLTZMANN
    temperatures = known * np.linspace(0.7, 1.4, 15)
    chains = Chains.start(kinds, energy, len(temperatures), 4, seed=2)
    energies = []
    for sweep in range(500):
        chains.sweep(energy, temperatures)
        if sweep >= 100:
            energies.append(chains.energies.copy())
    _, capacity = energy_and_heat_capacity(np.stack(energies), temperatures, len(kinds))
    found, within = ordering_temperature(capacity, temperatures)
    assert found == pytest.approx(known, rel=0.08)
    assert within < 0.05 * known
