"""Energies of elements on the sites of one crystal by a trained model, many arrangements at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int

from domains.materials.data.batch import GraphBatch, collate
from domains.materials.data.neighbors import neighbor_list
from domains.materials.data.structure import Structure
from domains.materials.inference.predictor import BATCH_EDGES, Predictor
from domains.materials.screening.equilibrium import ENERGY, minimum, pure_crystals
from domains.materials.screening.sites import Sites
from sciml.core.errors import ConfigError

Array = np.ndarray
STRAINS = (-0.04, -0.02, 0.0, 0.02, 0.04)
SAME_SHELL = 1.02
"""Distances that differ by less than this factor are of one shell."""


class LatticeEnergy:
    """Evaluates a model on a rigid crystal; neighbors are searched once.

    Args:
        predictor: the model, with an energy.
        sites: of the crystal.
        a: lattice constant, A.
    """

    def __init__(self, predictor: Predictor, sites: Sites, a: float) -> None:
        self.predictor, self.sites, self.a = predictor, sites, a
        blank = sites.sample(np.full(len(sites), predictor.schema.elements[0]), a, predictor.branch)
        self.structure = Structure(blank.atomic_numbers, blank.positions, blank.cell, blank.pbc)
        self.most = max(BATCH_EDGES // max(len(blank.senders), 1), 1)
        self._sample = blank
        self._batches: dict[int, GraphBatch] = {}

    def __call__(self, numbers: Int[Array, "structure site"]) -> Float[Array, "structure"]:
        """Returns the energy of each arrangement, eV: the mean of an ensemble's members."""
        energies = []
        for first in range(0, len(numbers), self.most):
            few = numbers[first : first + self.most]
            energies.append(self._evaluated(few))
        return np.concatenate(energies)

    def _evaluated(self, numbers: Int[Array, "structure site"]) -> Float[Array, "structure"]:
        predictor = self.predictor
        if len(numbers) not in self._batches:
            samples = [self._sample] * len(numbers)
            self._batches[len(numbers)] = collate(samples, dtype=predictor.dtype).to(predictor.device)
        atomic_numbers = torch.from_numpy(np.ascontiguousarray(numbers)).ravel().to(predictor.device)
        batch = replace(self._batches[len(numbers)], atomic_numbers=atomic_numbers)
        with torch.no_grad():
            members = predictor.task.evaluate(predictor.model, batch, create_graph=False, gradients=False)
        mean: Array = torch.stack([member[ENERGY].double() for member in members]).mean(0).cpu().numpy()
        return mean


def lattice_constant(predictor: Predictor, sites: Sites, kinds: Int[Array, "site"], counts: Mapping[str, int]) -> float:
    """Returns the lattice constant (A) at which a random alloy's energy is least.

    Raises:
        ConfigError: the model knows no energy, an element, or no such volume.
    """
    predictor.refuse_without(ENERGY)
    for symbol in counts:
        if symbol not in predictor.schema.symbols:
            known = ", ".join(predictor.schema.symbols)
            raise ConfigError(f"the model does not know {symbol}", key="elements", hint=f"it knows {known}")
    pure = pure_crystals(predictor, ENERGY, tuple(counts), (sites.lattice,))
    vegard = float(np.average([pure[symbol, sites.lattice].a for symbol in counts], weights=list(counts.values())))
    random = np.random.default_rng(0).permutation(kinds)
    samples = (sites.sample(random, vegard * (1 + strain), predictor.branch) for strain in STRAINS)
    curve = predictor.member_values(samples, ENERGY).mean(0)
    least = minimum(STRAINS, curve)
    if not least.inside:
        raise ConfigError(
            f"the model finds no volume of least energy for this alloy on {sites.lattice}",
            key="lattice",
            hint="another lattice, or train the model on it",
        )
    return vegard * (1 + least.strain)


def shells(structure: Structure, count: int) -> list[Float[Array, "site site"]]:
    """Returns for the nearest shells how often each site has each other one in it."""
    ends: Array = np.zeros(0)
    reach = 1.0
    while len(ends) < count:
        reach *= 1.3
        found = neighbor_list(structure, reach, min_distance=0)
        distances = np.sort(found.distances)
        ends = distances[:-1][np.diff(distances) > (SAME_SHELL - 1) * distances[1:]]
    tables, low = [], 0.0
    for end in ends[:count]:
        high = SAME_SHELL**0.5 * float(end)
        near = (found.distances > low) & (found.distances <= high)
        table = np.zeros((len(structure), len(structure)))
        np.add.at(table, (found.receivers[near], found.senders[near]), 1.0)
        tables.append(table)
        low = high
    return tables
