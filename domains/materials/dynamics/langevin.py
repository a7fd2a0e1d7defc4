"""Molecular dynamics of many structures at once, each at a temperature and, where wanted, a pressure of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from domains.materials.data.structure import Structure
from domains.materials.dynamics.moving import Gradients, MovingBatch
from domains.materials.inference.predictor import Labels
from sciml.core.errors import ConfigError
from sciml.core.types import AtLeastOne, NonNegative, Positive

BOLTZMANN = 8.617333262e-5
"""eV/K."""
FEMTOSECOND = 0.09822694788464063
"""In the unit of time that goes with eV, A and atomic masses."""
GPA = 1 / 160.21766208
"""In eV/A^3."""


@dataclass(frozen=True)
class DynamicsConfig:
    """Says how structures move.

    Attributes:
        temperature: K; one for all structures, or one for each.
        pressure: GPa; None keeps the cell.
        steps: to take.
        every: steps between snapshots.
        time_step: fs.
        friction: of the thermostat, 1/ps.
        compressibility: of the barostat, 1/GPa; about that of the material, since it sets how fast the volume follows.
        barostat_time: of the volume, fs.
        seed: of all that is drawn; each structure has random numbers of its own.
    """

    temperature: float | tuple[float, ...] = 300.0
    pressure: float | None = None
    steps: AtLeastOne = 1000
    every: AtLeastOne = 100
    time_step: Positive[float] = 2.0
    friction: Positive[float] = 10.0
    compressibility: Positive[float] = 0.006
    barostat_time: Positive[float] = 500.0
    seed: NonNegative[int] = 0

    def temperatures(self, count: int) -> Float[Tensor, "graph"]:
        """Returns the temperature of each of some structures, K."""
        given = [self.temperature] * count if isinstance(self.temperature, (int, float)) else list(self.temperature)
        if len(given) != count:
            raise ConfigError(f"{len(given)} temperatures for {count} structures", key="temperature", hint="give one")
        if not all(one >= 0 for one in given):
            raise ConfigError("a temperature is not negative", key="temperature", hint="for example 300")
        return torch.tensor(given, dtype=torch.float64)


class Snapshot(NamedTuple):
    """Holds where structures are at a step.

    Attributes:
        step: number of the step.
        structures: atoms and cells.
        values: potential energy (eV), forces (eV/A) and stress (eV/A^3, without the atoms' motion) of each, by name.
        temperature: of the moving atoms, K.
        momenta: of the atoms of each, (N, 3), in the unit that goes with eV, A and atomic masses.
    """

    step: int
    structures: list[Structure]
    values: list[Labels]
    temperature: Float[np.ndarray, "graph"]
    momenta: list[Float[np.ndarray, "atom 3"]]


class LangevinDynamics:
    """Samples the canonical ensemble, or with a pressure the isothermal-isobaric one.

    Steps are kick, drift, friction with noise, drift, kick (BAOAB: Leimkuhler and Matthews, 2013,
    https://doi.org/10.1093/amrx/abs010). A pressure is kept by stochastic cell rescaling of the volume, the same in all
    directions (Bernetti and Bussi, 2020, https://doi.org/10.1063/5.0020514). The center of mass moves as it will.

    Args:
        moving: the structures.
        masses: of their atoms, in atomic units; by default those of their elements.

    Raises:
        ConfigError: a structure that does not repeat in all directions is to have a pressure.
    """

    def __init__(
        self, moving: MovingBatch, config: DynamicsConfig, masses: Float[Tensor, "atom"] | None = None
    ) -> None:
        self.moving, self.config = moving, config
        self.volume = torch.linalg.det(moving.cell).abs()
        if config.pressure is not None:
            self._check_cells()
        self._generators = [np.random.default_rng([config.seed, number]) for number in range(len(moving))]
        self.energy_unit = BOLTZMANN * config.temperatures(len(moving))
        self.masses = _masses(moving) if masses is None else masses
        per_atom = self.energy_unit[moving.graph_index]
        self.thermal = (per_atom / self.masses).sqrt()[:, None]
        self.velocity = self.thermal * self._normal()
        self.found: Gradients = moving.evaluate()
        self.step_number = 0

    def run(self) -> Iterator[Snapshot]:
        """Yields the state at the start and after every so many steps."""
        yield self._snapshot()
        for number in range(1, self.config.steps + 1):
            self.step()
            if number % self.config.every == 0:
                yield self._snapshot()

    def step(self) -> None:
        """Takes a step."""
        moving, config = self.moving, self.config
        dt = config.time_step * FEMTOSECOND
        keep = float(np.exp(-config.friction * config.time_step / 1000))
        kick = 0.5 * dt * self.found.forces / self.masses[:, None]
        self.velocity = self.velocity + kick
        moving.positions = moving.positions + 0.5 * dt * self.velocity
        noise = (1 - keep**2) ** 0.5 * self.thermal * self._normal()
        self.velocity = keep * self.velocity + noise
        moving.positions = moving.positions + 0.5 * dt * self.velocity
        if config.pressure is not None:
            self._rescale(config.pressure * GPA)
        self.found = moving.evaluate()
        self.velocity = self.velocity + 0.5 * dt * self.found.forces / self.masses[:, None]
        self.step_number += 1

    def kinetic_energy(self) -> Float[Tensor, "graph"]:
        """Returns the kinetic energy of each structure, eV."""
        return self.moving.by_graph(0.5 * self.masses * self.velocity.square().sum(1))

    def _rescale(self, pressure: float) -> None:
        """Moves the logarithm of the volume by what the pressure inside wants, and by noise."""
        config, moving = self.config, self.moving
        volume = torch.linalg.det(moving.cell).abs()
        inside = 2 * self.kinetic_energy() / (3 * volume) - self.found.stress.diagonal(dim1=1, dim2=2).mean(1)
        rate = config.compressibility / GPA * config.time_step / config.barostat_time
        drawn = torch.tensor([one.standard_normal() for one in self._generators], dtype=torch.float64)
        change = -rate * (pressure - inside) + (2 * self.energy_unit * rate / volume).sqrt() * drawn
        factor = torch.exp(change / 3)
        atoms = factor[moving.graph_index, None]
        moving.cell, moving.positions = moving.cell * factor[:, None, None], moving.positions * atoms
        self.velocity = self.velocity / atoms

    def _normal(self) -> Float[Tensor, "atom 3"]:
        drawn = [
            torch.from_numpy(one.standard_normal((int(atoms), 3)))
            for one, atoms in zip(self._generators, self.moving.num_atoms, strict=True)
        ]
        return torch.cat(drawn)

    def _snapshot(self) -> Snapshot:
        kinetic = self.kinetic_energy() / (1.5 * BOLTZMANN * self.moving.num_atoms)
        structures = [self.moving.structure(number) for number in range(len(self.moving))]
        values = [self.moving.values(self.found, number) for number in range(len(self.moving))]
        momenta = (self.masses[:, None] * self.velocity).split(self.moving.num_atoms.tolist())
        of_each = [one.numpy() for one in momenta]
        return Snapshot(self.step_number, structures, values, kinetic.numpy(), of_each)

    def _check_cells(self) -> None:
        """Refuses a pressure in what does not fill its cell: a slab, a molecule in a box."""
        for number, volume in enumerate(self.volume.tolist()):
            if not (volume > 0 and self.moving.structure(number).pbc.all()):
                raise ConfigError(
                    f"structure {number} does not repeat in all directions and has no volume to be pressed",
                    key="pressure",
                    hint="leave it out",
                )


def _masses(moving: Any) -> Float[Tensor, "atom"]:
    from ase.data import atomic_masses

    numbers = np.concatenate([moving.structure(number).atomic_numbers for number in range(len(moving))])
    return torch.from_numpy(atomic_masses[numbers])
