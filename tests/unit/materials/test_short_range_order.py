"""Short-range order of known crystals, against a plain count, and as the target of a search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.neighborlist import neighbor_list as ase_neighbor_list

from domains.materials.data.structure import Structure
from domains.materials.simulation import short_range_order as sro
from domains.materials.simulation.alloys import FIRST_SHELL, crystal

COPPER, GOLD = 29, 79
A = 3.6


def random_alloy(elements: tuple[int, ...], seed: int = 0, lattice: str = "fcc", size: int = 3) -> Structure:
    sites = crystal(lattice, A, 1.6 * A, (size, size, size))
    numbers = np.resize(elements, len(sites))
    return replace(sites, atomic_numbers=np.random.default_rng(seed).permutation(numbers))


def colored(lattice: str, numbers: list[int]) -> Structure:
    """A crystal with the elements of its smallest cell given, in 2 x 2 x 2 cells."""
    sites = crystal(lattice, A, A).to_atoms()
    sites.numbers = numbers
    return Structure.from_atoms(sites.repeat(2))


class TestWarrenCowley:
    def test_b2_has_unlike_neighbors_only(self):
        elements, alpha = sro.warren_cowley(colored("bcc", [GOLD, COPPER]), FIRST_SHELL["bcc"] * A)
        assert elements == (COPPER, GOLD)
        np.testing.assert_allclose(alpha, [[1, -1], [-1, 1]], atol=1e-12)

    def test_l12_has_no_gold_beside_gold(self):
        structure = colored("fcc", [GOLD, COPPER, COPPER, COPPER])
        alpha = sro.warren_cowley(structure, FIRST_SHELL["fcc"] * A).alpha
        np.testing.assert_allclose(alpha, [[1 / 9, -1 / 3], [-1 / 3, 1]], atol=1e-12)

    def test_a_pure_crystal_has_none(self):
        np.testing.assert_allclose(sro.warren_cowley(random_alloy((COPPER,)), 3.0).alpha, [[0]], atol=1e-12)

    @pytest.mark.parametrize("lattice", ["fcc", "bcc", "hcp"])
    def test_equals_a_plain_count(self, lattice):
        structure = random_alloy((26, 27, 28), lattice=lattice)
        cutoff = FIRST_SHELL[lattice] * A
        first, second = ase_neighbor_list("ij", structure.to_atoms(), cutoff)
        assert len(first) == {"fcc": 12, "bcc": 8, "hcp": 12}[lattice] * len(structure)
        numbers = structure.atomic_numbers
        _, alpha = sro.warren_cowley(structure, cutoff)
        for row, z in enumerate((26, 27, 28)):
            around = numbers[second[numbers[first] == z]]
            for column, other in enumerate((26, 27, 28)):
                share = np.mean(around == other)
                assert alpha[row, column] == pytest.approx(1 - share / np.mean(numbers == other))

    def test_an_element_without_neighbors_has_no_order(self):
        lonely = replace(
            colored("bcc", [GOLD, COPPER]), positions=20.0 * np.arange(48).reshape(16, 3), pbc=np.zeros(3, dtype=bool)
        )
        assert np.isnan(sro.warren_cowley(lonely, 3.0).alpha).all()


class TestArrange:
    @pytest.mark.parametrize("strength", [-0.3, 0.2, 0.4])
    def test_a_binary_target_is_reached(self, strength):
        structure = random_alloy((COPPER, GOLD))
        neighbors = sro.neighbor_counts(structure, FIRST_SHELL["fcc"] * A)
        target = np.array([[-strength, strength], [strength, -strength]])
        found = sro.arrange(structure.atomic_numbers, neighbors, target, np.random.default_rng(1))
        assert abs(found.order.alpha[0, 1] - strength) <= 0.02
        np.testing.assert_array_equal(np.sort(found.atomic_numbers), np.sort(structure.atomic_numbers))
        np.testing.assert_array_equal(
            found.order.alpha, sro.warren_cowley(replace(structure, atomic_numbers=found.atomic_numbers), 3.0).alpha
        )

    def test_a_quinary_target_is_approached(self):
        structure = random_alloy((24, 25, 26, 27, 28), size=4)
        neighbors = sro.neighbor_counts(structure, FIRST_SHELL["fcc"] * A)
        target = sro.draw_target(np.full(5, 0.2), 0.2, np.random.default_rng(3))
        found = sro.arrange(structure.atomic_numbers, neighbors, target, np.random.default_rng(1), tolerance=0.05)
        unlike = ~np.eye(5, dtype=bool)
        before = np.abs(sro.order_on(structure.atomic_numbers, neighbors).alpha - target)[unlike]
        after = np.abs(found.order.alpha - target)[unlike]
        assert after.max() <= 0.05 < before.max()

    def test_an_unreachable_target_ends(self):
        """Gold all around gold cannot be had: the fractions would have to change."""
        structure = random_alloy((COPPER, GOLD), size=2)
        neighbors = sro.neighbor_counts(structure, FIRST_SHELL["fcc"] * A)
        found = sro.arrange(
            structure.atomic_numbers, neighbors, np.array([[-1.0, 1.0], [1.0, -1.0]]), np.random.default_rng(0)
        )
        assert 0.2 < found.order.alpha[0, 1] < 1

    def test_a_pure_crystal_stays(self):
        structure = random_alloy((COPPER,), size=2)
        neighbors = sro.neighbor_counts(structure, 3.0)
        found = sro.arrange(structure.atomic_numbers, neighbors, np.zeros((1, 1)), np.random.default_rng(0))
        np.testing.assert_array_equal(found.atomic_numbers, structure.atomic_numbers)

    def test_seeds_give_other_arrangements_and_the_same_again(self):
        structure = random_alloy((COPPER, GOLD))
        neighbors = sro.neighbor_counts(structure, 3.0)
        target = np.array([[-0.3, 0.3], [0.3, -0.3]])
        first, again, other = (
            sro.arrange(structure.atomic_numbers, neighbors, target, np.random.default_rng(seed)).atomic_numbers
            for seed in (0, 0, 1)
        )
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    def test_bonds_after_a_swap_equal_a_new_count(self):
        """In a cell so small that atoms are their own neighbors."""
        structure = random_alloy((26, 27, 28, 28), size=1)
        neighbors = sro.neighbor_counts(structure, 5.5)
        assert np.diag(neighbors).min() > 0
        _, is_element = sro._one_hot(structure.atomic_numbers)
        bonds = is_element.T @ neighbors @ is_element
        i, j = sro._candidates(is_element, np.random.default_rng(0))
        after = sro._bonds_after(i, j, bonds, is_element, neighbors)
        for number, (first, second) in enumerate(zip(i, j, strict=True)):
            assert structure.atomic_numbers[first] != structure.atomic_numbers[second]
            swapped = is_element.copy()
            swapped[[first, second]] = swapped[[second, first]]
            np.testing.assert_array_equal(after[number], swapped.T @ neighbors @ swapped)


class TestTarget:
    def test_shares_around_an_atom_add_up_and_none_is_negative(self):
        generator = np.random.default_rng(0)
        for _ in range(50):
            fractions = generator.dirichlet(np.ones(4))
            alpha = sro.draw_target(fractions, 0.5, generator)
            np.testing.assert_allclose(alpha, alpha.T)
            assert np.abs(alpha[~np.eye(4, dtype=bool)]).max() <= 0.5
            shares = (1 - alpha) * fractions
            np.testing.assert_allclose(shares.sum(axis=1), 1)
            assert shares.min() >= -1e-12
