"""Several structures as one graph of separate parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

WIDE = "energy"
"""The label that is float64 always: of energies of thousands of eV, float32 has no digits left that matter."""
NEAR = 20.0
"""A; atoms farther from the origin are brought there, where float32 has digits for their distances."""


@dataclass(frozen=True)
class GraphBatch:
    """Holds the atoms and edges of several structures, one after the other.

    An edge goes from its sender to its receiver; its vector points from the receiver to the sender's image:
    ``positions[senders] + shifts @ cell[graph] - positions[receivers]``.

    Attributes:
        atomic_numbers: per atom.
        positions: A.
        cell: A, a vector a row; zeros where there is none.
        pbc: along which cell vectors a structure repeats.
        senders, receivers: atoms of an edge, numbered through the batch.
        shifts: whole numbers of cell vectors by which the sender is shifted.
        graph_index: the structure of an atom.
        edge_graph: the structure of an edge.
        num_atoms: of each structure.
        branch: the data set of each structure.
        labels: by name; of structures (graph, ...) or of atoms (atom, ...); zeros where one is missing.
        masks: by name of a label, which structures have it.
    """

    atomic_numbers: Int[Tensor, "atom"]
    positions: Float[Tensor, "atom 3"]
    cell: Float[Tensor, "graph 3 3"]
    pbc: Bool[Tensor, "graph 3"]
    senders: Int[Tensor, "edge"]
    receivers: Int[Tensor, "edge"]
    shifts: Float[Tensor, "edge 3"]
    graph_index: Int[Tensor, "atom"]
    edge_graph: Int[Tensor, "edge"]
    num_atoms: Int[Tensor, "graph"]
    branch: Int[Tensor, "graph"]
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    masks: Mapping[str, Bool[Tensor, "graph"]] = field(default_factory=dict)

    @property
    def num_samples(self) -> int:
        """Counts the structures in the batch."""
        return len(self.num_atoms)

    @property
    def num_edges(self) -> int:
        return len(self.senders)

    def to(self, device: torch.device | str) -> GraphBatch:
        """Returns the batch on a device."""
        moved: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                moved[name] = value.to(device, non_blocking=True)
            else:
                moved[name] = {key: tensor.to(device, non_blocking=True) for key, tensor in value.items()}
        return replace(self, **moved)


@dataclass(frozen=True)
class GraphSample:
    """Holds one structure with its neighbor list as numpy arrays; a sample of a batch.

    Attributes:
        atomic_numbers: (N,).
        positions: (N, 3), A.
        cell: (3, 3), A.
        pbc: (3,).
        senders, receivers: (E,).
        shifts: (E, 3).
        branch: number of the data set.
        labels: by name; only those that the structure has.
    """

    atomic_numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    shifts: np.ndarray
    branch: int = 0
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)

    def near_origin(self) -> GraphSample:
        """Returns the same edges between atoms moved by whole cell vectors, and all together, to around the origin."""
        if np.abs(self.positions).max(initial=0.0) <= NEAR:
            return self
        wholes = whole_cells(self.positions, self.cell, self.pbc)
        positions = self.positions - wholes @ self.cell
        middle = 0.5 * (positions.min(0) + positions.max(0))
        shifts = self.shifts + wholes[self.senders] - wholes[self.receivers]
        return replace(self, positions=positions - middle, shifts=shifts)


def whole_cells(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Returns by how many cell vectors atoms lie outside of their cell, (N, 3): whole numbers, which are zero along
    directions that do not repeat.
    """
    from ase.geometry import complete_cell

    return np.floor(np.linalg.solve(complete_cell(cell).T, positions.T).T) * pbc


@dataclass(frozen=True)
class LabelShape:
    """Describes what one value of a label looks like.

    Attributes:
        level: ``graph`` for one of each structure, ``node`` for one of each atom.
        shape: of that one value, e.g. () for an energy and (3,) for forces.
    """

    level: str
    shape: tuple[int, ...] = ()


def collate(
    samples: Sequence[GraphSample], labels: Mapping[str, LabelShape] | None = None, dtype: torch.dtype = torch.float32
) -> GraphBatch:
    """Gathers structures into a batch.

    Args:
        labels: which labels the batch has, all with a mask; none by default.
        dtype: of positions, cells, shifts and labels: float32 or float64. In float32 atoms are near the origin
            (:meth:`GraphSample.near_origin`): at 10,000 A, where unwrapped trajectories lead, its steps are 0.001 A.
    """
    if dtype is torch.float32:
        samples = [sample.near_origin() for sample in samples]
    num_atoms = np.array([len(s.atomic_numbers) for s in samples], dtype=np.int64)
    num_edges = np.array([len(s.senders) for s in samples], dtype=np.int64)
    offsets = np.repeat(np.cumsum(num_atoms) - num_atoms, num_edges)
    numpy_dtype = np.float64 if dtype is torch.float64 else np.float32
    graphs = np.arange(len(samples), dtype=np.int64)

    def whole(name: str) -> Int[Tensor, "entry"]:
        return torch.from_numpy(np.concatenate([getattr(s, name) for s in samples], dtype=np.int64))

    def real(arrays: Sequence[np.ndarray], kind: type = numpy_dtype) -> Float[Tensor, "entry ..."]:
        return torch.from_numpy(np.concatenate(arrays, dtype=kind, casting="unsafe"))

    shapes = labels or {}
    masks = {name: torch.tensor([name in s.labels for s in samples], dtype=torch.bool) for name in shapes}
    return GraphBatch(
        atomic_numbers=whole("atomic_numbers"),
        positions=real([s.positions for s in samples]),
        cell=real([s.cell[None] for s in samples]),
        pbc=torch.from_numpy(np.stack([s.pbc for s in samples]).astype(bool)),
        senders=whole("senders") + torch.from_numpy(offsets),
        receivers=whole("receivers") + torch.from_numpy(offsets),
        shifts=real([s.shifts for s in samples]),
        graph_index=torch.from_numpy(np.repeat(graphs, num_atoms)),
        edge_graph=torch.from_numpy(np.repeat(graphs, num_edges)),
        num_atoms=torch.from_numpy(num_atoms),
        branch=torch.tensor([s.branch for s in samples], dtype=torch.int64),
        labels={
            name: real([_values(s, name, shape) for s in samples], np.float64 if name == WIDE else numpy_dtype)
            for name, shape in shapes.items()
        },
        masks=masks,
    )


def _values(sample: GraphSample, name: str, shape: LabelShape) -> np.ndarray:
    """Returns a label's values with a leading dim of one structure or of its atoms; zeros where it has none."""
    count = len(sample.atomic_numbers) if shape.level == "node" else 1
    if name not in sample.labels:
        return np.zeros((count, *shape.shape))
    return sample.labels[name].reshape(count, *shape.shape)
