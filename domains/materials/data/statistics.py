"""Statistics of the training split, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from domains.materials.data.composition import element_counts
from domains.materials.data.labels import NODE
from domains.materials.data.references import References, fit_references
from domains.materials.data.schema import MaterialsStatistics
from domains.materials.data.store import Arrays

BLOCK = 256
"""Structures whose edges are gone through together."""


def compute_statistics(
    arrays: Arrays, train: np.ndarray, elements: tuple[int, ...], known: np.ndarray
) -> MaterialsStatistics:
    """Returns the statistics of some structures of a store.

    Args:
        train: numbers of the structures, increasing.
        known: energies of free atoms (branch, element), eV; not a number where they are to be fitted.
    """
    counts = element_counts(arrays.atomic_numbers, arrays.atom_offsets, elements)[train]
    references = References(np.nan_to_num(known), np.zeros_like(known))
    residuals = np.zeros(0)
    if "energy" in arrays.labels:
        energies, there = arrays.labels["energy"][train], arrays.masks["energy"][train]
        branch = arrays.branch[train]
        references = fit_references(counts[there], energies[there], branch[there], known)
        expected = (counts * (references.free + references.bonding)[branch]).sum(1)
        residuals = ((energies - expected) / counts.sum(1))[there]
    summaries = {name: _summary(arrays, name, train) for name in arrays.label_specs if arrays.masks[name][train].any()}
    spread = residuals.std() if len(residuals) > 1 and residuals.std() > 0 else 1.0
    sets = [arrays.branch[train] == branch for branch in range(len(known))]
    atoms_of_train = max(int(arrays.num_atoms[train].sum()), 1)

    def tensors(place: int) -> dict[str, torch.Tensor]:
        return {name: torch.tensor(values[place], dtype=torch.float64) for name, values in summaries.items()}

    return MaterialsStatistics(
        references=torch.from_numpy(references.free),
        bonding=torch.from_numpy(references.bonding),
        energy_std=torch.tensor(spread, dtype=torch.float64),
        avg_num_neighbors=torch.tensor(arrays.num_edges[train].sum() / atoms_of_train, dtype=torch.float64),
        element_counts=torch.from_numpy(np.stack([counts[own].sum(0) for own in sets]).astype(np.float64)),
        shortest=torch.from_numpy(np.stack([_shortest(arrays, train[own], elements) for own in sets])),
        mean=tensors(0),
        std=tensors(1),
        rms=tensors(2),
        count=tensors(3),
    )


def _summary(arrays: Arrays, name: str, train: np.ndarray) -> tuple[float, float, float, float]:
    """Returns mean, standard deviation and root mean square of a label's values, and how many structures have it."""
    having = train[arrays.masks[name][train]]
    number, mean, squares = 0, 0.0, 0.0
    for values in _values(arrays, name, having):
        # blocks about their own mean, merged pairwise: energies of thousands of eV lose no digits
        size, center = values.size, float(values.mean())
        delta = center - mean
        squares += float(((values - center) ** 2).sum()) + delta**2 * number * size / (number + size)
        mean += delta * size / (number + size)
        number += size
    variance = squares / number
    return mean, variance**0.5, (variance + mean**2) ** 0.5, float(len(having))


def _values(arrays: Arrays, name: str, indices: np.ndarray) -> Iterator[np.ndarray]:
    label = arrays.labels[name]
    if arrays.label_specs[name]["level"] != NODE:
        scale = arrays.num_atoms[indices] if name == "energy" else np.ones(len(indices))
        yield label[indices] / scale.reshape(-1, *([1] * (label.ndim - 1)))
        return
    for start in range(0, len(indices), BLOCK):
        rows = ranges(arrays.atom_offsets, indices[start : start + BLOCK])
        yield label[rows]


def ranges(offsets: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Returns the numbers of all rows of some structures, one structure after the other."""
    sizes = offsets[indices + 1] - offsets[indices]
    firsts = np.repeat(offsets[indices] - (np.cumsum(sizes) - sizes), sizes)
    return firsts + np.arange(int(sizes.sum()))


def _shortest(arrays: Arrays, train: np.ndarray, elements: tuple[int, ...]) -> np.ndarray:
    """Returns the shortest distance of each pair of elements (element, element), A; infinite where they never meet."""
    index = np.full(256, -1)
    index[list(elements)] = np.arange(len(elements))
    shortest = np.full((len(elements), len(elements)), np.inf)
    for start in range(0, len(train), BLOCK):
        block = train[start : start + BLOCK]
        edges = ranges(arrays.edge_offsets, block)
        first_atom = np.repeat(arrays.atom_offsets[block], arrays.num_edges[block])
        cell = np.repeat(arrays.cell[block], arrays.num_edges[block], axis=0)
        senders, receivers = arrays.senders[edges] + first_atom, arrays.receivers[edges] + first_atom
        vectors = arrays.positions[senders] - arrays.positions[receivers]
        vectors = vectors + np.einsum("ei,eij->ej", arrays.shifts[edges].astype(np.float64), cell)
        pairs = index[arrays.atomic_numbers[senders]], index[arrays.atomic_numbers[receivers]]
        np.minimum.at(shortest, pairs, np.linalg.norm(vectors, axis=1))
    return shortest
