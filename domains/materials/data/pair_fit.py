"""A cheap physical guess of any data set: a potential of pairs, linear in its coefficients, fitted to forces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from domains.materials.data.statistics import ranges
from domains.materials.data.store import Arrays

Array = np.ndarray
FUNCTIONS = 8
FIRST, LAST = 1.6, 4.6
"""A; where the first and the last of the bells stand that a pair's energy is made of."""
RIDGE = 1e-3


@dataclass(frozen=True)
class PairFeatures:
    """Holds what a potential of pairs gives for some structures, for each of its coefficients.

    Attributes:
        energy: of structures.
        forces: of the components of all atoms, one structure after the other.
        stress: of structures, ASE's sign; zeros where there is no volume.
        repulsion: forces of an exponential wall that knows nothing of the data.
    """

    energy: Float[Array, "structure coefficient"]
    forces: Float[Array, "component coefficient"]
    stress: Float[Array, "structure 3 3 coefficient"]
    repulsion: Float[Array, "component"]


def pair_features(arrays: Arrays, indices: Int[Array, "structure"], elements: tuple[int, ...]) -> PairFeatures:
    """Computes the features of some structures of a store, within 5 A at most.

    Args:
        indices: increasing.
    """
    from scipy.sparse import coo_array

    edges = ranges(arrays.edge_offsets, indices)
    sizes, counts = arrays.num_atoms[indices], arrays.num_edges[indices]
    first = np.repeat(arrays.atom_offsets[indices], counts)
    own_first = np.repeat(np.cumsum(sizes) - sizes, counts)
    graph = np.repeat(np.arange(len(indices)), counts)
    senders, receivers = (getattr(arrays, name)[edges].astype(np.int64) for name in ("senders", "receivers"))
    vectors = arrays.positions[senders + first] - arrays.positions[receivers + first]
    vectors = vectors + np.einsum("ei,eij->ej", arrays.shifts[edges].astype(np.float64), arrays.cell[indices][graph])
    lengths = np.linalg.norm(vectors, axis=1)
    unit = vectors / lengths[:, None]

    place = np.searchsorted(np.asarray(elements), arrays.atomic_numbers[np.stack([senders, receivers]) + first])
    pair = place.min(0) * len(elements) + place.max(0)
    kinds, pair = np.unique(pair, return_inverse=True)
    columns = (pair[:, None] * FUNCTIONS + np.arange(FUNCTIONS)).ravel()
    width = (LAST - FIRST) / (FUNCTIONS - 1)
    offset = (lengths[:, None] - (FIRST + width * np.arange(FUNCTIONS))) / width
    value = np.exp(-0.5 * offset**2)
    slope = -offset / width * value

    def summed(weights: Array, rows: Array, num_rows: int) -> Array:
        shape = num_rows, len(kinds) * FUNCTIONS
        table: Array = coo_array((weights.ravel(), (np.repeat(rows, FUNCTIONS), columns)), shape=shape).toarray()
        return table

    atoms, at = int(sizes.sum()), receivers + own_first
    forces = np.stack([summed(slope * unit[:, [axis]], at, atoms) for axis in range(3)], axis=1)
    volume = np.abs(np.linalg.det(arrays.cell[indices]))
    inverse = np.divide(0.5, volume, out=np.zeros_like(volume), where=volume > 0)[:, None]
    stress = np.zeros((len(indices), 3, 3, len(kinds) * FUNCTIONS))
    for i in range(3):
        for j in range(i, 3):
            parts = slope * (vectors[:, [i]] * unit[:, [j]])
            stress[:, i, j] = stress[:, j, i] = inverse * summed(parts, graph, len(indices))
    wall = np.zeros((atoms, 3))
    np.add.at(wall, at, -np.exp(-2.5 * lengths)[:, None] * unit)
    return PairFeatures(0.5 * summed(value, graph, len(indices)), forces.reshape(3 * atoms, -1), stress, wall.ravel())


def fit(features: Float[Array, "row coefficient"], values: Float[Array, "row"]) -> Float[Array, "coefficient"]:
    """Returns the coefficients of least squares, kept small where the data do not tell them."""
    gram = features.T @ features
    scale = RIDGE * max(float(np.trace(gram)) / len(gram), 1e-12)
    solution: Array = np.linalg.solve(gram + scale * np.eye(len(gram)), features.T @ values)
    return solution


def correlation(first: Array, second: Array) -> float:
    """Returns the correlation of two lists of numbers about zero; zero where one has none."""
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(np.vdot(first, second)) / norm if norm else 0.0
