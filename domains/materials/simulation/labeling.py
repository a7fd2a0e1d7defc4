"""Labels simulated structures by EAM or EMT, and says what these predict for pure crystals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np
import torch

from domains.materials.data.batch import GraphSample, collate
from domains.materials.data.neighbors import graph_sample
from domains.materials.data.structure import Structure, stress_matrix
from domains.materials.simulation import eam
from domains.materials.simulation.alloys import crystal

Labels = dict[str, np.ndarray]
# A small batch keeps the intermediate values of its pairs in the processor's cache.
BATCH_PAIRS = 40_000
IDEAL_C_OVER_A = (8 / 3) ** 0.5


class Labeler(Protocol):
    """Labels structures by a potential.

    Attributes:
        name: how users call it.
        title: what it is, with its source, for the file's readers.
        symbols: elements that it knows.
    """

    name: str
    title: str
    symbols: tuple[str, ...]

    def label(self, structures: Sequence[Structure]) -> list[Labels]:
        """Returns energy (eV), forces (eV/A), stress (eV/A^3) and further labels of each structure."""
        ...


class EAMLabeler:
    """Labels by Zhou, Johnson and Wadley's potential (:mod:`domains.materials.simulation.eam`); adds the
    ``eam_density``.
    """

    name = "eam"
    title = "EAM of Zhou, Johnson and Wadley (2004), doi:10.1103/PhysRevB.69.144113"
    symbols = tuple(eam.PARAMETERS)

    def label(self, structures: Sequence[Structure]) -> list[Labels]:
        # all pairs that the potential needs
        samples = [graph_sample(structure, eam.reach(structure.elements)) for structure in structures]
        labels: list[Labels] = []
        for few in _by_size(samples):
            result = eam.evaluate(collate(few, dtype=torch.float64))
            sizes = [len(sample.atomic_numbers) for sample in few]
            parts = zip(
                result.energy.numpy(),
                torch.split(result.forces, sizes),
                result.stress.numpy(),
                torch.split(result.density, sizes),
                strict=True,
            )
            labels += [
                {"energy": energy, "forces": forces.numpy(), "stress": stress, "eam_density": density.numpy()}
                for energy, forces, stress, density in parts
            ]
        return labels


class EMTLabeler:
    """Labels by ASE's effective medium theory, structure by structure."""

    name = "emt"
    title = "EMT (Jacobsen, Stoltze and Norskov, 1996, doi:10.1016/0039-6028(96)00816-3) as in ASE"
    symbols = ("Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")

    def label(self, structures: Sequence[Structure]) -> list[Labels]:
        from ase.calculators.emt import EMT

        labels: list[Labels] = []
        for structure in structures:
            atoms = replace(structure, labels={}).to_atoms()
            atoms.calc = EMT()
            energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
            labels.append({"energy": np.asarray(energy, np.float64), "forces": forces, "stress": stress_matrix(stress)})
        return labels


LABELERS: Mapping[str, type[EAMLabeler] | type[EMTLabeler]] = {"eam": EAMLabeler, "emt": EMTLabeler}


class Crystal(NamedTuple):
    """Describes a relaxed crystal of one element.

    Attributes:
        a: lattice constant, A, of the cubic cell or in the basal plane.
        c: the other one of HCP, A; ``a`` for cubic crystals.
        energy: eV/atom.
    """

    a: float
    c: float
    energy: float


@cache
def pure_crystal(labeler: str, symbol: str, lattice: str | None = None) -> Crystal:
    """Returns the crystal of an element with the lowest energy on a lattice.

    Args:
        labeler: a key of ``LABELERS``.
        lattice: fcc, bcc or hcp; None takes the one that the element has in nature.
    """
    from scipy.optimize import minimize

    lattice = lattice or natural_lattice(symbol)
    potential, start = LABELERS[labeler](), _start(symbol, lattice)

    def energy_and_slope(logs: np.ndarray) -> tuple[float, np.ndarray]:
        a, c_over_a = np.exp(logs[0]), np.exp(logs[-1]) if lattice == "hcp" else 1.0
        structure = pure_structure(symbol, lattice, a, a * c_over_a)
        labels = potential.label([structure])[0]
        pull = structure.volume * np.diag(labels["stress"]) / len(structure)
        slope = [pull.sum(), pull[2]] if lattice == "hcp" else [pull.sum()]
        return float(labels["energy"]) / len(structure), np.array(slope)

    logs = [np.log(start), np.log(IDEAL_C_OVER_A)] if lattice == "hcp" else [np.log(start)]
    minimum = minimize(energy_and_slope, logs, jac=True, method="BFGS", options={"gtol": 1e-8})
    a = float(np.exp(minimum.x[0]))
    return Crystal(a, a * float(np.exp(minimum.x[1])) if lattice == "hcp" else a, float(minimum.fun))


def natural_lattice(symbol: str) -> str:
    """Returns FCC, BCC or HCP, as the element crystallizes at room temperature."""
    from ase.data import atomic_numbers, reference_states

    return str((reference_states[atomic_numbers[symbol]] or {})["symmetry"])


def pure_structure(symbol: str, lattice: str, a: float, c: float) -> Structure:
    """Returns a crystal of one element."""
    from ase.data import atomic_numbers

    sites = crystal(lattice, a, c)
    return replace(sites, atomic_numbers=np.full(len(sites), atomic_numbers[symbol]))


def _start(symbol: str, lattice: str) -> float:
    """Returns the lattice constant at which an element has the volume an atom that it has in nature."""
    from ase.build import bulk

    volume = bulk(symbol).get_volume() / len(bulk(symbol))
    atoms_in_cube = {"fcc": 4.0, "bcc": 2.0, "hcp": 4 / (np.sqrt(3) * IDEAL_C_OVER_A)}[lattice]
    return float((atoms_in_cube * volume) ** (1 / 3))


def _by_size(samples: Sequence[GraphSample]) -> list[list[GraphSample]]:
    """Yields the same in batches of about as many pairs."""
    batches: list[list[GraphSample]] = []
    count = BATCH_PAIRS
    for sample in samples:
        if count >= BATCH_PAIRS:
            batches.append([])
            count = 0
        batches[-1].append(sample)
        count += len(sample.senders)
    return batches
