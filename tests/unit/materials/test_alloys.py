"""Solid solutions: sites, compositions, disturbances, and that a structure is a function of its number."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from ase.data import atomic_numbers, chemical_symbols
from ase.neighborlist import neighbor_list as ase_neighbor_list

from domains.materials.simulation import alloys
from domains.materials.simulation.alloys import Family, Recipe, draw
from domains.materials.simulation.short_range_order import warren_cowley

RECIPE = Recipe((Family("fcc", ("Co", "Cu", "Fe", "Ni", "Pd")), Family("bcc", ("Mo", "Ta", "W"))))
CONSTANTS = {"Co": 3.5, "Cu": 3.6, "Fe": 3.6, "Ni": 3.5, "Pd": 3.9, "Mo": 3.1, "Ta": 3.3, "W": 3.2}


def constants(symbol: str, lattice: str) -> tuple[float, float]:
    return CONSTANTS[symbol], 1.6 * CONSTANTS[symbol]


def symbols(structure) -> Counter:
    return Counter(chemical_symbols[z] for z in structure.atomic_numbers)


class TestDraw:
    def test_depends_on_seed_and_number_alone(self):
        recipe = replace(RECIPE, rattle=0.1, strain=0.05, shear=0.05, vacancies=0.5, short_range_order=0.5)
        first, second = draw(recipe, constants, 3, 17), draw(recipe, constants, 3, 17)
        for name in ("atomic_numbers", "positions", "cell"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        for seed, index in [(3, 18), (4, 17)]:
            other = draw(recipe, constants, seed, index)
            assert other.cell.tobytes() != first.cell.tobytes()

    def test_all_orders_come_as_often_and_stay_in_their_family(self):
        drawn = [draw(RECIPE, constants, 0, index) for index in range(300)]
        orders = Counter(len(structure.elements) for structure in drawn)
        assert set(orders) == {1, 2, 3, 4, 5}
        assert min(orders.values()) > 35
        for structure in drawn:
            system, lattice, kind = structure.group.split(" ")
            assert system == "-".join(sorted(symbols(structure)))
            assert kind == "random"
            family = next(family for family in RECIPE.families if family.lattice == lattice)
            assert set(symbols(structure)) <= set(family.elements)

    def test_fractions_cover_the_simplex(self):
        """Uniform fractions of a binary have the mean 1/2 and the variance 1/12."""
        recipe = replace(RECIPE, families=RECIPE.families[:1], orders=(2,), supercells=((4, 4, 4),))
        share = [
            structure.atomic_numbers.tolist().count(structure.elements[0]) / len(structure)
            for structure in (draw(recipe, constants, 1, index) for index in range(300))
        ]
        assert np.mean(share) == pytest.approx(0.5, abs=0.06)
        assert np.var(share) == pytest.approx(1 / 12, rel=0.2)

    def test_given_compositions(self):
        recipe = replace(RECIPE, compositions=({"Co": 1.0, "Ni": 3.0}, {"W": 1.0, "Ta": 1.0}))
        drawn = [symbols(draw(recipe, constants, 0, index)) for index in range(20)]
        assert {frozenset(counts.items()) for counts in drawn} == {
            frozenset({("Co", 8), ("Ni", 24)}),
            frozenset({("W", 8), ("Ta", 8)}),
        }

    def test_order_is_drawn_in_the_share_that_is_wanted(self):
        recipe = replace(RECIPE, orders=(2,), supercells=((3, 3, 3),), short_range_order=0.5, order_strength=0.8)
        strengths: dict[bool, list[float]] = {True: [], False: []}
        for index in range(60):
            structure = draw(recipe, constants, 0, index)
            lattice = structure.group.split(" ")[1]
            a = structure.cell[0, 0] / 3
            alpha = warren_cowley(structure, alloys.FIRST_SHELL[lattice] * a).alpha
            strengths["ordered" in structure.group].append(abs(alpha[0, 1]))
        assert 15 < len(strengths[True]) < 45
        assert np.mean(strengths[True]) > 2 * np.mean(strengths[False])


class TestSites:
    @pytest.mark.parametrize(("lattice", "coordination", "density"), [("fcc", 12, 4), ("bcc", 8, 2), ("hcp", 12, None)])
    def test_lattices(self, lattice, coordination, density):
        a, c = 3.0, 3.0 * np.sqrt(8 / 3)
        sites = alloys.crystal(lattice, a, c, (2, 2, 2))
        first, distance = ase_neighbor_list("id", sites.to_atoms(), alloys.FIRST_SHELL[lattice] * a)
        np.testing.assert_array_equal(np.bincount(first), coordination)
        np.testing.assert_allclose(distance, distance[0])
        per_atom = a**3 / density if density else np.sqrt(3) / 4 * a**2 * c
        assert sites.volume / len(sites) == pytest.approx(per_atom)

    def test_lattice_constants_are_means(self):
        fractions = {"Cu": 0.75, "Pd": 0.25}
        for lattice, ratio in (("fcc", 1.0), ("hcp", 1.6)):
            structure, a = alloys.solid_solution(lattice, fractions, (2, 2, 2), constants, np.random.default_rng(0))
            assert a == pytest.approx(0.75 * 3.6 + 0.25 * 3.9)
            assert structure.cell[0, 0] == pytest.approx(2 * a)
            assert structure.cell[2, 2] == pytest.approx(2 * a * ratio)
            assert symbols(structure) == {"Cu": 24, "Pd": 8}

    def test_elements_sit_anywhere(self):
        placed = [
            alloys.solid_solution("fcc", {"Cu": 1, "Pd": 1}, (2, 2, 2), constants, np.random.default_rng(seed))[0]
            for seed in range(200)
        ]
        share = np.mean([structure.atomic_numbers == atomic_numbers["Cu"] for structure in placed], axis=0)
        np.testing.assert_allclose(share, 0.5, atol=0.15)


class TestCounts:
    @pytest.mark.parametrize(
        ("fractions", "total", "counts"),
        [
            ((0.5, 0.5), 32, (16, 16)),
            ((0.2, 0.2, 0.2, 0.2, 0.2), 32, None),
            ((0.999, 0.001), 16, (15, 1)),
            ((1.0,), 7, (7,)),
            ((20, 30, 50), 10, (2, 3, 5)),
            ((0, 0, 1), 3, (1, 1, 1)),
        ],
    )
    def test_as_near_as_whole_numbers_are(self, fractions, total, counts):
        names = ("Co", "Cu", "Fe", "Ni", "Pd")[: len(fractions)]
        found = alloys.atom_counts(dict(zip(names, fractions, strict=True)), total)
        assert sum(found.values()) == total
        assert min(found.values()) >= 1
        if counts:
            assert tuple(found.values()) == counts
        else:
            assert set(found.values()) == {6, 7}


class TestDisturbances:
    @pytest.fixture
    def crystal(self):
        return alloys.solid_solution("fcc", {"Cu": 1.0}, (4, 4, 4), constants, np.random.default_rng(0))[0]

    def test_rattle_has_its_size_and_moves_no_center(self, crystal):
        moved = alloys.rattled(crystal, 0.1, np.random.default_rng(0)).positions - crystal.positions
        assert moved.std() == pytest.approx(0.1, rel=0.08)
        np.testing.assert_allclose(moved.mean(axis=0), 0, atol=1e-12)

    def test_strain_is_symmetric_and_within_its_size(self, crystal):
        generator = np.random.default_rng(0)
        strains = np.array([alloys.draw_strain(0.05, 0.02, generator) for _ in range(200)])
        np.testing.assert_array_equal(strains, strains.swapaxes(1, 2))
        diagonal, beside = strains[:, range(3), range(3)], strains[:, [0, 0, 1], [1, 2, 2]]
        assert 0.045 < np.abs(diagonal).max() <= 0.05
        assert 0.018 < np.abs(beside).max() <= 0.02

    def test_strain_changes_cell_and_positions_alike(self, crystal):
        strained = alloys.strained(crystal, np.diag([0.1, 0, 0]))
        assert strained.volume == pytest.approx(1.1 * crystal.volume)
        np.testing.assert_allclose(
            np.linalg.solve(strained.cell.T, strained.positions.T), np.linalg.solve(crystal.cell.T, crystal.positions.T)
        )

    def test_a_vacancy_leaves_the_others(self, crystal):
        left = alloys.without_atom(crystal, 5)
        assert len(left) == len(crystal) - 1
        np.testing.assert_array_equal(left.positions, np.delete(crystal.positions, 5, axis=0))

    def test_vacancies_are_told_in_the_group(self):
        drawn = [draw(replace(RECIPE, vacancies=0.4), constants, 0, index) for index in range(100)]
        for structure in drawn:
            full = len(structure) in (16, 32)
            assert full != structure.group.endswith("vacancy")
        assert 20 < sum(structure.group.endswith("vacancy") for structure in drawn) < 60
