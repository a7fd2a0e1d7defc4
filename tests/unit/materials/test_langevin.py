"""Dynamics sample the ensembles that they are of, where these are known."""

import numpy as np
import pytest
import torch

from domains.materials.data.structure import Structure
from domains.materials.dynamics.langevin import BOLTZMANN, GPA, DynamicsConfig, LangevinDynamics
from domains.materials.dynamics.moving import Gradients, MovingBatch
from domains.materials.inference.predictor import Predictor
from sciml.core.config import build
from sciml.core.errors import ConfigError
from tests.unit.materials.test_relax import cells

STIFFNESS = 2.0


class Wells(MovingBatch):
    """Atoms that feel only springs to their places; or nothing at all."""

    def __init__(self, structures, stiffness=STIFFNESS):
        self.count, self.stiffness = len(structures), stiffness
        self.structures = structures
        self.positions = torch.cat([torch.from_numpy(one.positions) for one in structures])
        self.cell = torch.stack([torch.from_numpy(one.cell) for one in structures])
        self.num_atoms = torch.tensor([len(one) for one in structures])
        self.graph_index = torch.repeat_interleave(torch.arange(self.count), self.num_atoms)
        self.places = self.positions.clone()

    def __len__(self):
        return self.count

    def structure(self, number):
        return self.structures[number]

    def evaluate(self):
        away = self.positions - self.places
        energy = self.by_graph(0.5 * self.stiffness * away.square().sum(1))
        return Gradients(energy, -self.stiffness * away, torch.zeros_like(self.cell))


def boxes(count, atoms, length):
    generator = np.random.default_rng(0)
    numbers, pbc = np.full(atoms, 28), np.ones(3, dtype=bool)
    return [Structure(numbers, generator.uniform(0, length, (atoms, 3)), length * np.eye(3), pbc) for _ in range(count)]


def test_springs_share_the_energy_of_their_temperature():
    temperatures = [300.0] * 20 + [900.0] * 20
    config = DynamicsConfig(temperature=temperatures, time_step=2.0, friction=20.0, steps=1500, every=15)
    dynamics = LangevinDynamics(Wells(boxes(40, 8, 9.0)), config)
    seen = list(dynamics.run())[20:]
    potential = np.array([[of_one["energy"] for of_one in one.values] for one in seen]).mean(0).reshape(2, 20).mean(
        1
    ) / (1.5 * 8 * BOLTZMANN)
    kinetic = np.array([one.temperature for one in seen]).mean(0).reshape(2, 20).mean(1)
    np.testing.assert_allclose(potential, [300, 900], rtol=0.06)
    np.testing.assert_allclose(kinetic, [300, 900], rtol=0.06)


def test_an_ideal_gas_has_the_volumes_of_its_pressure():
    atoms, temperature, pressure = 10, 1000.0, 0.5
    config = DynamicsConfig(temperature=temperature, pressure=pressure, compressibility=2.0, barostat_time=100.0,
                            friction=50.0, steps=1400, every=10)  # fmt: skip
    mean = (atoms + 1) * BOLTZMANN * temperature / (pressure * GPA)
    moving = Wells(boxes(40, atoms, mean ** (1 / 3)), stiffness=0.0)
    dynamics = LangevinDynamics(moving, config)
    volumes = []
    for one in dynamics.run():
        if one.step >= 400:
            volumes.append(torch.linalg.det(moving.cell).numpy())
    seen = np.array(volumes)
    # the density of the volume is V^N exp(-P V / kT)
    assert seen.mean() == pytest.approx(mean, rel=0.05)
    assert seen.std() == pytest.approx(mean / (atoms + 1) ** 0.5, rel=0.15)


def test_a_structure_moves_the_same_whoever_moves_with_it(small_run):
    predictor = Predictor.open(small_run().path, dtype="float64")
    structures = [Structure.from_atoms(atoms) for atoms in cells(2)]
    config = DynamicsConfig(temperature=400.0, pressure=0.0, steps=6, every=3)
    together = list(LangevinDynamics(MovingBatch(predictor, structures), config).run())
    alone = list(LangevinDynamics(MovingBatch(predictor, structures[:1]), config).run())
    assert [one.step for one in together] == [0, 3, 6]
    for both, one in zip(together, alone, strict=True):
        np.testing.assert_allclose(both.structures[0].positions, one.structures[0].positions, atol=1e-9)
        np.testing.assert_allclose(both.structures[0].cell, one.structures[0].cell, atol=1e-9)
    assert not np.allclose(together[-1].structures[0].cell, structures[0].cell)


def test_what_cannot_work_is_one_sentence():
    with pytest.raises(ConfigError, match="temperature: 2 temperatures for 3 structures; give one"):
        LangevinDynamics(Wells(boxes(3, 2, 5.0)), DynamicsConfig(temperature=[300.0, 600.0]))
    with pytest.raises(ConfigError, match="pressure: structure 0 does not repeat in all directions"):
        LangevinDynamics(Wells(boxes(1, 2, 0.0)), DynamicsConfig(pressure=1.0))


def test_temperatures_may_be_an_array():
    given = build(DynamicsConfig, {"temperature": np.linspace(300, 900, 3), "steps": np.int64(5)})
    assert given.temperatures(3).tolist() == [300.0, 600.0, 900.0]
    assert given.steps == 5
