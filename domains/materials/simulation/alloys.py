"""Solid solutions drawn at random: elements on the sites of a crystal, ordered a little, strained and shaken."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Float

from domains.materials.data.structure import Structure
from domains.materials.simulation.short_range_order import arrange, draw_target, neighbor_counts

Array = np.ndarray
Generator = np.random.Generator
Fractions = Mapping[str, float]
LatticeConstants = Callable[[str, str], tuple[float, float]]
"""From an element and a lattice to the lattice constants a and c (A) of its crystal; cubes need no c."""

ATOMS_PER_CELL = {"fcc": 4, "bcc": 2, "hcp": 4}
LATTICES = tuple(ATOMS_PER_CELL)
# Between the first and the second shell of neighbors, over a.
FIRST_SHELL = {"fcc": 0.854, "bcc": 0.933, "hcp": 1.207}


@dataclass(frozen=True)
class Family:
    """Groups elements that share a lattice.

    Attributes:
        lattice: one of ``LATTICES``.
        elements: symbols.
    """

    lattice: str
    elements: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """Says which structures to draw.

    Attributes:
        families: each structure is of one of them.
        orders: numbers of elements that a structure may have, all as often; their fractions are uniform among all that
            add up to one.
        compositions: where given, elements and fractions are one of these, and ``orders`` means nothing.
        supercells: numbers of conventional cells (4 atoms in FCC and HCP, 2 in BCC) along the three axes.
        rattle: A; displacements are normal, their standard deviation uniform from zero to this.
        strain: largest relative change of all lengths.
        shear: largest element of the strain outside its diagonal.
        vacancies: share of structures that lack one atom.
        short_range_order: share of structures in which the elements are ordered by swaps.
        order_strength: largest Warren-Cowley parameter of unlike neighbors that is wanted there.
    """

    families: tuple[Family, ...]
    orders: tuple[int, ...] = (1, 2, 3, 4, 5)
    compositions: tuple[Fractions, ...] = ()
    supercells: tuple[tuple[int, int, int], ...] = ((2, 2, 2),)
    rattle: float = 0.0
    strain: float = 0.0
    shear: float = 0.0
    vacancies: float = 0.0
    short_range_order: float = 0.0
    order_strength: float = 0.5


def draw(recipe: Recipe, lattice_constants: LatticeConstants, seed: int, index: int) -> Structure:
    """Draws the structure of a number: a function of seed and index alone, whatever else is drawn."""
    generator = np.random.default_rng([seed, index])
    family, elements, fixed = _draw_system(recipe, generator)
    repeats = recipe.supercells[generator.integers(len(recipe.supercells))]
    fractions = fixed or dict(zip(elements, generator.dirichlet(np.ones(len(elements))), strict=True))
    structure, a = solid_solution(family.lattice, fractions, repeats, lattice_constants, generator)

    kind = "random"
    if len(fractions) > 1 and generator.random() < recipe.short_range_order:
        kind = "ordered"
        structure = ordered(structure, FIRST_SHELL[family.lattice] * a, recipe.order_strength, generator)
    if generator.random() < recipe.vacancies:
        kind += " vacancy"
        structure = without_atom(structure, int(generator.integers(len(structure))))
    structure = strained(structure, draw_strain(recipe.strain, recipe.shear, generator))
    structure = rattled(structure, recipe.rattle * generator.random(), generator)
    return replace(structure, name=f"{seed}-{index}", group=f"{'-'.join(sorted(fractions))} {family.lattice} {kind}")


def solid_solution(
    lattice: str,
    fractions: Fractions,
    repeats: tuple[int, int, int],
    lattice_constants: LatticeConstants,
    generator: Generator,
) -> tuple[Structure, float]:
    """Returns elements on random sites of an undisturbed crystal, whose lattice constants are the means of its
    elements'.

    The rule of means: Vegard (1921), https://doi.org/10.1007/BF01349680.

    Returns:
        The structure and its lattice constant a, A.
    """
    from ase.data import atomic_numbers

    num_sites = ATOMS_PER_CELL[lattice] * math.prod(repeats)
    counts = atom_counts(fractions, num_sites)
    shares = np.array(list(counts.values())) / num_sites
    a, c = shares @ np.array([lattice_constants(symbol, lattice) for symbol in counts])
    numbers = np.repeat([atomic_numbers[symbol] for symbol in counts], list(counts.values()))
    sites = crystal(lattice, float(a), float(c), repeats)
    return replace(sites, atomic_numbers=generator.permutation(numbers)), float(a)


def crystal(lattice: str, a: float, c: float, repeats: tuple[int, int, int] = (1, 1, 1)) -> Structure:
    """Returns the sites of a crystal, without elements, in repeats of its smallest cell with right angles.

    Args:
        a, c: lattice constants, A; cubes have no c.
    """
    sites = _unit_crystal(lattice, repeats)
    size = np.array([a, a, c if lattice == "hcp" else a])
    return replace(sites, positions=sites.positions * size, cell=sites.cell * size)


@cache
def _unit_crystal(lattice: str, repeats: tuple[int, int, int]) -> Structure:
    """Returns the same with lattice constants of 1 A."""
    from ase.build import bulk

    shape = {"c": 1.0, "orthorhombic": True} if lattice == "hcp" else {"cubic": True}
    return Structure.from_atoms(bulk("X", lattice, a=1.0, **shape).repeat(repeats))


def atom_counts(fractions: Fractions, num_atoms: int) -> dict[str, int]:
    """Returns the number of atoms of each element: at least one, and otherwise as near to the fractions as
    whole numbers are.
    """
    wanted = np.array(list(fractions.values()), dtype=float)
    spare = num_atoms - len(wanted)
    exact = np.clip(wanted / wanted.sum() * num_atoms - 1, 0, None)
    exact *= spare / max(exact.sum(), np.finfo(float).tiny)
    counts = np.floor(exact).astype(int)
    for largest in np.argsort(counts - exact, kind="stable")[: spare - counts.sum()]:
        counts[largest] += 1
    return {symbol: 1 + int(n) for symbol, n in zip(fractions, counts, strict=True)}


def ordered(structure: Structure, first_shell: float, strength: float, generator: Generator) -> Structure:
    """Returns the same atoms on other sites, with a short-range order that is drawn within the strength.

    Args:
        first_shell: A; nearest neighbors are nearer, others farther.
    """
    neighbors = neighbor_counts(structure, first_shell)
    _, counts = np.unique(structure.atomic_numbers, return_counts=True)
    target = draw_target(counts / len(structure), strength, generator)
    arrangement = arrange(structure.atomic_numbers, neighbors, target, generator)
    return replace(structure, atomic_numbers=arrangement.atomic_numbers)


def without_atom(structure: Structure, index: int) -> Structure:
    """Returns the structure with a vacancy in place of one atom."""
    keep = np.arange(len(structure)) != index
    return replace(structure, atomic_numbers=structure.atomic_numbers[keep], positions=structure.positions[keep])


def draw_strain(strain: float, shear: float, generator: Generator) -> Float[Array, "3 3"]:
    """Draws a symmetric strain: one value on the diagonal, three beside it, uniform up to the given sizes."""
    beside = np.triu(generator.uniform(-shear, shear, (3, 3)), 1)
    return generator.uniform(-strain, strain) * np.eye(3) + beside + beside.T


def strained(structure: Structure, strain: Float[Array, "3 3"]) -> Structure:
    """Returns cell and positions stretched alike."""
    stretch = np.eye(3) + strain
    return replace(structure, positions=structure.positions @ stretch, cell=structure.cell @ stretch)


def rattled(structure: Structure, size: float, generator: Generator) -> Structure:
    """Returns the atoms displaced by normal random numbers of a standard deviation in A, their mean kept."""
    shift: Float[Array, "atom 3"] = size * generator.standard_normal((len(structure), 3))
    return replace(structure, positions=structure.positions + shift - shift.mean(axis=0))


def _draw_system(recipe: Recipe, generator: Generator) -> tuple[Family, tuple[str, ...], Fractions]:
    """Draws a family and elements of it; with given compositions, one of those and a family that has its elements."""
    if recipe.compositions:
        composition = recipe.compositions[generator.integers(len(recipe.compositions))]
        families = [family for family in recipe.families if set(composition) <= set(family.elements)]
        return families[generator.integers(len(families))], tuple(composition), composition
    order = int(generator.choice(recipe.orders))
    families = [family for family in recipe.families if len(family.elements) >= order]
    family = families[generator.integers(len(families))]
    chosen = generator.choice(len(family.elements), order, replace=False)
    return family, tuple(family.elements[i] for i in sorted(chosen)), {}
