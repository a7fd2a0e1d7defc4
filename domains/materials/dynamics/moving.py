"""Structures that move together as one batch: their forces, with neighbor lists that follow them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from domains.materials.data.batch import GraphSample, collate, whole_cells
from domains.materials.data.neighbors import graph_sample, neighbor_list
from domains.materials.data.structure import Structure
from domains.materials.inference.predictor import Labels, Predictor
from domains.materials.training.ensemble import combined
from domains.materials.training.potential import ENERGY
from sciml.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ase import Atoms

SKIN = 0.5
"""A, around the cutoff."""


def check_free(atoms: Atoms, where: str) -> None:
    """Refuses atoms that are held: everything in a batch moves.

    Args:
        where: the structure that is named.

    Raises:
        DataError: the atoms have constraints.
    """
    if atoms.constraints:
        kinds = ", ".join(sorted({type(one).__name__ for one in atoms.constraints}))
        raise DataError(
            f"{where}: has constraints ({kinds}), and all atoms would move; remove them, or move it by ASE with the "
            "model's calculator"
        )


class Gradients(NamedTuple):
    """Holds energies and their gradients, in float64.

    Attributes:
        energy: eV.
        forces: eV/A.
        stress: eV/A^3; zero where a structure has no volume.
    """

    energy: Float[Tensor, "graph"]
    forces: Float[Tensor, "atom 3"]
    stress: Float[Tensor, "graph 3 3"]


class MovingBatch:
    """Holds structures whose atoms and cells move; positions are float64, whatever the model computes in.

    Neighbors are listed with a skin and listed again, structure by structure, when atoms and cells have moved so far
    that a list might no longer be complete; longer edges are left out each time, so nothing depends on the skin.

    Args:
        predictor: the model; of an ensemble the mean moves atoms.
        structures: to begin with.

    Attributes:
        positions, cell: where atoms are now, A.
        num_atoms: of each structure.
        graph_index: the structure of each atom.
        searches: lists that were made.

    Raises:
        ConfigError: the model has no forces.
        DataError: elements that the model does not know, or atoms that are too close at the start.
    """

    def __init__(self, predictor: Predictor, structures: Sequence[Structure] = (), skin: float = SKIN) -> None:
        if not predictor.config.has_gradients:
            raise ConfigError("the model has no forces to move atoms by", key="run", hint="train one with forces")
        self.predictor, self.skin, self.searches = predictor, skin, 0
        self._samples: list[GraphSample] = []
        self.positions = torch.zeros(0, 3, dtype=torch.float64)
        self.cell = torch.zeros(0, 3, 3, dtype=torch.float64)
        self.add(structures)

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def num_edges(self) -> int:
        return sum(len(sample.senders) for sample in self._samples)

    def add(self, structures: Sequence[Structure]) -> None:
        """Takes in further structures, behind those that are there."""
        predictor = self.predictor
        for structure in structures:
            predictor.schema.check_elements(structure.elements, structure.name or structure.formula)
            sample = graph_sample(structure, predictor.cutoff + self.skin)
            self._samples.append(replace(sample, branch=predictor.branch_of(structure.elements), labels={}))
        new = [torch.from_numpy(structure.positions) for structure in structures]
        self.positions = torch.cat([self.positions, *new])
        self.cell = torch.cat([self.cell, *(torch.from_numpy(structure.cell)[None] for structure in structures)])
        self.searches += len(structures)
        self._gather()

    def keep(self, wanted: Bool[Tensor, "graph"]) -> None:
        """Lets the other structures go."""
        self.positions, self.cell = self.positions[wanted[self.graph_index]], self.cell[wanted]
        self._samples = [sample for sample, stays in zip(self._samples, wanted.tolist(), strict=True) if stays]
        self._gather()

    def structure(self, number: int) -> Structure:
        """Returns a structure as it is now."""
        sample, atoms = self._samples[number], self.graph_index == number
        positions, cell = self.positions[atoms].numpy().copy(), self.cell[number].numpy().copy()
        return Structure(sample.atomic_numbers, positions, cell, sample.pbc)

    def values(self, found: Gradients, number: int) -> Labels:
        """Returns energy, forces and stress of a structure by name, of those that were found for all."""
        forces = found.forces[self.graph_index == number]
        return {
            "energy": found.energy[number].numpy(),
            "forces": forces.numpy(),
            "stress": found.stress[number].numpy(),
        }

    def by_graph(self, rows: Float[Tensor, "atom *any"]) -> Float[Tensor, "graph *any"]:
        """Adds up the atoms of each structure."""
        return rows.new_zeros(len(self), *rows.shape[1:]).index_add(0, self.graph_index, rows)

    def evaluate(self) -> Gradients:
        """Returns energies, forces and stress where atoms are now."""
        self._list_again()
        predictor, listed = self.predictor, self._listed
        vectors = self.positions[listed.senders] - self.positions[listed.receivers]
        vectors = vectors + torch.einsum("ea,eab->eb", listed.shifts, self.cell[listed.edge_graph])
        near = vectors.square().sum(1) < predictor.cutoff**2
        edges = {name: getattr(listed, name)[near] for name in ("senders", "receivers", "shifts", "edge_graph")}
        shifts = edges["shifts"] + self._wholes[edges["senders"]] - self._wholes[edges["receivers"]]
        edges["shifts"] = shifts.to(predictor.dtype)
        positions, cell = self._near_origin().to(predictor.dtype), self.cell.to(predictor.dtype)
        batch = replace(listed, positions=positions, cell=cell, **edges).to(predictor.device)
        with torch.no_grad():
            members = predictor.task.evaluate(predictor.model, batch, create_graph=False)
            values = combined(members, {})
        found = (values[name].detach().double().cpu() for name in (ENERGY, "forces", "stress"))
        return Gradients(*found)

    def _near_origin(self) -> Float[Tensor, "atom 3"]:
        """Returns positions in the cells around the origin, where any precision has digits for distances."""
        inside = self.positions - torch.einsum("na,nab->nb", self._wholes, self.cell[self.graph_index])
        middle = self.by_graph(inside) / self.num_atoms[:, None]
        return inside - middle[self.graph_index]

    def _gather(self) -> None:
        """Makes one graph of all structures, at the places where they were listed."""
        self.num_atoms: Int[Tensor, "graph"] = torch.tensor([len(s.atomic_numbers) for s in self._samples])
        self.graph_index = torch.repeat_interleave(torch.arange(len(self)), self.num_atoms.long())
        if len(self):
            self._listed = collate(self._samples, dtype=torch.float64)
            wholes = [whole_cells(sample.positions, sample.cell, sample.pbc) for sample in self._samples]
            self._wholes = torch.from_numpy(np.concatenate(wholes))

    def _list_again(self) -> None:
        """Searches neighbors anew where a list may have become incomplete.

        A vector r of now was D^-1 (r - u) when it was listed, with the deformation D of the cell since then and the
        difference u of what atoms moved beside it. So it was no longer than |D^-1| (cutoff + 2 max |u|).
        """
        old = self._listed
        has_cell = old.cell.flatten(1).abs().sum(1) > 0
        eye = torch.eye(3, dtype=torch.float64).expand_as(self.cell)
        filled = torch.linalg.det(old.cell).abs() > 0
        before = torch.where(filled[:, None, None], old.cell, eye)
        deformation = torch.where(filled[:, None, None], torch.linalg.solve(before, self.cell), eye)
        flat = has_cell & ~filled & (old.cell != self.cell).flatten(1).any(1)  # a slab's cell that changes
        moved = self.positions - torch.einsum("na,nab->nb", old.positions, deformation[self.graph_index])
        farthest = moved.new_zeros(len(self)).scatter_reduce(0, self.graph_index, moved.norm(dim=1), "amax")
        shrunk = torch.linalg.matrix_norm(torch.linalg.inv(deformation), 2)
        reach = shrunk * (self.predictor.cutoff + 2 * farthest)
        stale = (reach > self.predictor.cutoff + self.skin) | flat | ~reach.isfinite()
        if not stale.any():
            return
        for number in stale.nonzero()[:, 0].tolist():
            structure = self.structure(number)
            near = neighbor_list(structure, self.predictor.cutoff + self.skin, min_distance=0)
            edges = {"senders": near.senders, "receivers": near.receivers, "shifts": near.shifts}
            moved_to = {"positions": structure.positions, "cell": structure.cell}
            self._samples[number] = replace(self._samples[number], **moved_to, **edges)
            self.searches += 1
        self._gather()
