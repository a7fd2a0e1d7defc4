"""Predicts from composition alone, which a model must beat."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from domains.materials.data.batch import WIDE, GraphBatch
from domains.materials.data.composition import element_counts
from domains.materials.data.labels import NODE
from domains.materials.data.schema import MaterialsSchema, MaterialsStatistics
from domains.materials.data.store import MaterialsStore
from sciml.domain.protocol import Prediction
from sciml.domain.score import Baseline
from sciml.report.style import SKY

COMPOSITION = Baseline("composition", SKY, "P")


class LinearComposition:
    """Predicts energies linear in composition, no forces, and the mean stress; other targets likewise.

    A value of a structure is linear in its fractions of elements, a value of an atom the mean of its element, both
    by least squares on the training split.

    Args:
        store: whose training split is fitted.
        schema, statistics: of the model, with the reference energies.
    """

    def __init__(self, store: MaterialsStore, schema: MaterialsSchema, statistics: MaterialsStatistics) -> None:
        self.schema, self.elements, self.statistics = store.schema, schema.elements, statistics
        self.coefficients = _fitted(store)

    def __call__(self, batch: GraphBatch) -> Prediction:
        counts = _counts(batch, self.schema)
        values: dict[str, Tensor] = {}
        for name, table in self.coefficients.items():
            label = self.schema.labels[name]
            if name == "energy":
                branch = batch.branch[batch.graph_index]
                atoms = self.statistics.reference_energy(batch.atomic_numbers, self.elements, branch)
                total = torch.zeros(batch.num_samples, dtype=torch.float64)
                values[name] = total.index_add(0, batch.graph_index.cpu(), atoms.double().cpu())
            elif label.level == NODE:
                values[name] = table[self.schema.element_index(batch.atomic_numbers).cpu()]
            else:
                fractions = counts / counts.sum(1, keepdim=True)
                values[name] = torch.einsum("ge,e...->g...", fractions, table)
        values = {name: value if name == WIDE else value.float() for name, value in values.items()}
        return Prediction({name: value.to(batch.positions.device) for name, value in values.items()})


def _counts(batch: GraphBatch, schema: MaterialsSchema) -> Float[Tensor, "graph element"]:
    """Returns the number of atoms of each element in each structure, (graph, element)."""
    places = schema.element_index(batch.atomic_numbers).cpu()
    counts = torch.zeros(batch.num_samples, len(schema.elements), dtype=torch.float64)
    return counts.index_put_((batch.graph_index.cpu(), places), torch.ones(()).double(), accumulate=True)


def _fitted(store: MaterialsStore) -> Mapping[str, Tensor]:
    """Returns a row of values for each element, by label; forces are zero: their mean has no direction."""
    arrays, train, elements = store.arrays, store.indices("train"), store.schema.elements
    counts = element_counts(arrays.atomic_numbers, arrays.atom_offsets, elements)
    tables = {}
    for name, label in store.schema.labels.items():
        known = train[arrays.masks[name][train]]
        table = np.zeros((len(elements), *label.shape))
        if len(known) and label.level == NODE and not label.shape:
            table = _means_by_element(store, name, known)
        elif len(known) and label.level != NODE:
            fractions = counts[known] / counts[known].sum(1, keepdims=True)
            values = np.asarray(arrays.labels[name][known], dtype=np.float64)
            solution = np.linalg.lstsq(fractions, values.reshape(len(known), -1), rcond=None)[0]
            table = solution.reshape(table.shape)
        tables[name] = torch.from_numpy(table)
    return tables


def _means_by_element(store: MaterialsStore, name: str, known: np.ndarray) -> np.ndarray:
    """Returns the mean of an atom's label over the atoms of each element."""
    arrays, elements = store.arrays, np.asarray(store.schema.elements)
    sums = np.zeros((2, len(elements)))
    for index in known:
        atoms = slice(arrays.atom_offsets[index], arrays.atom_offsets[index + 1])
        places = np.searchsorted(elements, arrays.atomic_numbers[atoms])
        np.add.at(sums[0], places, arrays.labels[name][atoms])
        np.add.at(sums[1], places, 1.0)
    return sums[0] / np.maximum(sums[1], 1.0)
