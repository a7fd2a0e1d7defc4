"""Small alloys with EMT's labels, and files of them."""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write


def alloy(seed=0, elements=("Cu", "Ni"), repeat=(2, 1, 1), group="", **info):
    """A rattled FCC alloy with energy, forces and stress."""
    generator = np.random.default_rng(seed)
    atoms = bulk("Cu", "fcc", 3.6, cubic=True).repeat(repeat)
    atoms.symbols = generator.choice(elements, len(atoms))
    atoms.symbols[: len(elements)] = elements
    atoms.positions += generator.normal(0, 0.05, atoms.positions.shape)
    atoms.calc = EMT()
    labels = {
        "energy": atoms.get_potential_energy(),
        "forces": atoms.get_forces(),
        "stress": atoms.get_stress(),
    }
    atoms.calc = SinglePointCalculator(atoms, **labels)
    if group:
        atoms.info["group"] = group
    atoms.info.update(info)
    return atoms


def relabeled(atoms, **labels):
    """The same atoms with other labels; None takes one away."""
    results = {**(atoms.calc.results if atoms.calc else {}), **labels}
    fresh = atoms.copy()
    fresh.calc = SinglePointCalculator(fresh, **{k: v for k, v in results.items() if v is not None})
    return fresh


def extxyz(path, frames):
    write(path, frames, format="extxyz")
    return str(path)


def mixed_set(count=12):
    """Frames of three compositions in named groups."""
    kinds = (("Cu",), ("Ni",), ("Cu", "Ni"))
    return [alloy(n, kinds[n % 3], group="-".join(kinds[n % 3])) for n in range(count)]


def dimer(distance=2.5, **kwargs):
    return Atoms("Cu2", positions=[[0, 0, 0], [distance, 0, 0]], **kwargs)
