"""Warren-Cowley short-range order: which elements like to be neighbors, measured, and made by swapping atoms.

``alpha[a, b] = 1 - P(b | a) / c_b``, where ``P(b | a)`` is the share of b among the neighbors of a and ``c_b`` its
share of all atoms: zero in a random alloy, negative where a and b attract, positive where they avoid each other.

Source: Cowley (1950), https://doi.org/10.1103/PhysRev.77.669.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from domains.materials.data.neighbors import neighbor_list
from domains.materials.data.structure import Structure

Array = np.ndarray
# Swaps that are judged at once; the best of them is taken or left.
CANDIDATES = 64
START_TEMPERATURE = 0.01
COOLING = 0.95


class ShortRangeOrder(NamedTuple):
    """Describes the short-range order of a structure.

    Attributes:
        elements: atomic numbers, increasing.
        alpha: of all pairs of them; not a number where an element has no neighbor.
    """

    elements: tuple[int, ...]
    alpha: Float[Array, "element element"]


class Arrangement(NamedTuple):
    """Holds atoms on their sites, and the order that they have there."""

    atomic_numbers: Int[Array, "atom"]
    order: ShortRangeOrder


def neighbor_counts(structure: Structure, cutoff: float) -> Float[Array, "atom atom"]:
    """Counts the images of the second atom within the cutoff (A) of the first."""
    edges = neighbor_list(structure, cutoff)
    counts = np.zeros((len(structure), len(structure)))
    np.add.at(counts, (edges.receivers, edges.senders), 1.0)
    return counts


def warren_cowley(structure: Structure, cutoff: float) -> ShortRangeOrder:
    """Measures the order among atoms closer than the cutoff (A), which lies between two shells of neighbors."""
    return order_on(structure.atomic_numbers, neighbor_counts(structure, cutoff))


def order_on(atomic_numbers: Int[Array, "atom"], neighbors: Float[Array, "atom atom"]) -> ShortRangeOrder:
    """Measures the order from counts of neighbors."""
    elements, is_element = _one_hot(atomic_numbers)
    return ShortRangeOrder(elements, _alpha(is_element.T @ neighbors @ is_element, is_element.mean(axis=0)))


def draw_target(
    fractions: Float[Array, "element"], strength: float, generator: np.random.Generator
) -> Float[Array, "element element"]:
    """Draws a symmetric alpha with independent values of unlike pairs, uniform within the strength.

    Those of like pairs follow: the shares of all elements around an atom add up to one. Where one of them would be
    below zero, all values are made smaller.
    """
    size = len(fractions)
    alpha = np.triu(generator.uniform(-strength, strength, (size, size)), 1)
    alpha += alpha.T
    np.fill_diagonal(alpha, -(alpha @ fractions) / fractions)
    return alpha / max(1.0, alpha.max())


def arrange(
    atomic_numbers: Int[Array, "atom"],
    neighbors: Float[Array, "atom atom"],
    target: Float[Array, "element element"],
    generator: np.random.Generator,
    *,
    tolerance: float = 0.02,
    max_steps: int = 200,
) -> Arrangement:
    """Swaps atoms until the order is the wanted one: a Monte-Carlo search that cools down.

    Args:
        atomic_numbers: of the atoms on the sites to begin with.
        neighbors: counts of neighbors, from :func:`neighbor_counts` on sites that no vacancy interrupts.
        target: alpha of the elements in order of their numbers; only unlike pairs are looked at.
        tolerance: largest error of an alpha at which the search ends.
        max_steps: where it ends if a target is out of reach, as most are in small cells; the best that was seen is
            returned.
    """
    numbers, temperature = np.array(atomic_numbers), START_TEMPERATURE
    _, is_element = _one_hot(numbers)
    fractions, unlike = is_element.mean(axis=0), ~np.eye(is_element.shape[1], dtype=bool)
    if not unlike.any():
        return Arrangement(numbers, order_on(numbers, neighbors))

    bonds = is_element.T @ neighbors @ is_element
    error = _error(bonds, fractions, target)
    best, best_error = numbers.copy(), error
    for _ in range(max_steps):
        if np.abs(_alpha(bonds, fractions) - target)[unlike].max() <= tolerance:
            best = numbers
            break
        i, j = _candidates(is_element, generator)
        after = _bonds_after(i, j, bonds, is_element, neighbors)
        errors = _error(after, fractions, target)
        choice = int(np.argmin(errors))
        if errors[choice] < error or generator.random() < np.exp((error - errors[choice]) / temperature):
            swap, with_ = [i[choice], j[choice]], [j[choice], i[choice]]
            numbers[swap], is_element[swap] = numbers[with_], is_element[with_]
            bonds, error = after[choice], errors[choice]
            if error < best_error:
                best, best_error = numbers.copy(), error
        temperature *= COOLING
    return Arrangement(best, order_on(best, neighbors))


def _one_hot(atomic_numbers: Array) -> tuple[tuple[int, ...], Float[Array, "atom element"]]:
    elements, index = np.unique(atomic_numbers, return_inverse=True)
    return tuple(int(z) for z in elements), np.eye(len(elements))[index]


def _alpha(bonds: Float[Array, "*swap element element"], fractions: Array) -> Float[Array, "*swap element element"]:
    """Returns alpha from counts of neighbors by their elements; a row an element."""
    around = bonds.sum(axis=-1, keepdims=True)
    shares = np.divide(bonds, around, out=np.full_like(bonds, np.nan), where=around > 0)
    return 1 - shares / fractions


def _error(bonds: Array, fractions: Array, target: Array) -> Array:
    """Returns the sum of squared errors of all pairs, weighted by how frequent they are in a random alloy."""
    return ((_alpha(bonds, fractions) - target) ** 2 * np.outer(fractions, fractions)).sum(axis=(-2, -1))


def _candidates(is_element: Array, generator: np.random.Generator) -> tuple[Array, Array]:
    """Returns pairs of atoms of different elements."""
    i = generator.integers(len(is_element), size=CANDIDATES)
    differs = 1 - is_element[i] @ is_element.T
    return i, np.argmax(differs * generator.random(differs.shape), axis=1)


def _bonds_after(i: Array, j: Array, bonds: Array, is_element: Array, neighbors: Array) -> Array:
    """Returns the counts of neighbors by elements after each swap, from what changes: two rows of atoms, and
    their own bond.
    """
    change = is_element[j] - is_element[i]
    around = neighbors @ is_element
    lost = around[i] - around[j]
    own = neighbors[i, i] + neighbors[j, j] - 2 * neighbors[i, j]
    crossed = change[:, :, None] * lost[:, None, :]
    return bonds + crossed + crossed.swapaxes(1, 2) + own[:, None, None] * change[:, :, None] * change[:, None, :]
