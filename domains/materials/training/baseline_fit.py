"""Fits the potential under the network to the training forces, energies and stresses, in seconds."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int

from domains.materials.data.batch import collate
from domains.materials.data.store import MaterialsStore
from domains.materials.training.baseline_equations import NormalEquations
from domains.materials.training.pair_baseline import Kind, PairBaseline
from sciml.nn.repulsion import ScreenedRepulsion

MOST_EDGES, JUDGING_EDGES, BLOCK_EDGES, FEWEST = 1_500_000, 300_000, 60_000, 20
"""How much is fitted to, also where it is only judged, how much at a time, and how few structures are not enough."""


def fit_pair_baseline(
    store: MaterialsStore,
    reach: float,
    kind: Kind,
    *,
    repulsion: ScreenedRepulsion | None = None,
    seed: int = 0,
) -> PairBaseline | None:
    """Fits a potential to the forces, energies and stresses of a store's training split, by least squares with a small
    ridge.

    Args:
        reach: where it ends, A; no more than the store's cutoff.
        kind: of the potential.
        repulsion: what stands under the model beside it, so that it is fitted to the rest.

    Returns:
        None where the store has too few forces.
    """
    chosen = _having_forces(store, MOST_EDGES, seed)
    return _fitted(store, chosen, reach, kind, repulsion).solved() if len(chosen) >= FEWEST else None


def num_with_forces(store: MaterialsStore) -> int:
    """Counts the training structures that a potential can be fitted to; below :data:`FEWEST` there is none."""
    return len(_training_with_forces(store))


def left_by_baseline(
    store: MaterialsStore,
    reach: float,
    kind: Kind,
    *,
    repulsion: ScreenedRepulsion | None = None,
    seed: int = 0,
) -> float | None:
    """Returns the share of the forces, as rms, that a potential fitted to most training structures leaves of others.

    Args:
        reach, kind: as in :func:`fit_pair_baseline`.
        repulsion: what stands beside; the share is of what it leaves.

    Returns:
        None where the store has too few forces.
    """
    chosen = _having_forces(store, JUDGING_EDGES, seed)
    num_judged = len(chosen) // 5
    if num_judged < FEWEST:
        return None
    fitted = _fitted(store, chosen[num_judged:], reach, kind, repulsion)
    judged = _fitted(store, chosen[:num_judged], reach, kind, repulsion)
    return (judged.left_by(fitted.coefficients()) * judged.rows / judged.squares) ** 0.5 if judged.squares else None


def _having_forces(store: MaterialsStore, most_edges: int, seed: int) -> Int[np.ndarray, "structure"]:
    """Returns training structures with forces, in random order, as many as have so many edges together."""
    chosen = np.random.default_rng(seed).permutation(_training_with_forces(store))
    return chosen[np.cumsum(store.arrays.num_edges[chosen]) <= most_edges]


def _training_with_forces(store: MaterialsStore) -> Int[np.ndarray, "structure"]:
    arrays = store.arrays
    if "forces" not in arrays.labels:
        return np.zeros(0, np.int64)
    train = store.indices("train")
    having: np.ndarray = train[arrays.masks["forces"][train] & (arrays.num_edges[train] > 0)]
    return having


def _fitted(
    store: MaterialsStore,
    chosen: Int[np.ndarray, "structure"],
    reach: float,
    kind: Kind,
    repulsion: ScreenedRepulsion | None,
) -> NormalEquations:
    fit = NormalEquations(store.schema.elements, reach, kind, repulsion, len(store.schema.branches))
    for numbers in _blocks(store.arrays.num_edges[chosen]):
        samples = [store.sample(int(index)) for index in chosen[numbers]]
        fit.add(collate(samples, store.schema.labels, torch.float64))
    return fit


def _blocks(num_edges: np.ndarray) -> list[np.ndarray]:
    blocks = np.cumsum(num_edges) // BLOCK_EDGES
    return [np.flatnonzero(blocks == number) for number in np.unique(blocks)]
