"""The normal equations of a potential under the network: what each coefficient counts in what it is fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from domains.materials.data.batch import GraphBatch
from domains.materials.training.pair_baseline import (
    EMBEDDINGS,
    FUNCTIONS,
    RADIUS,
    Kind,
    PairBaseline,
    PairResult,
    bells,
    surroundings,
)
from sciml.nn.repulsion import ScreenedRepulsion, atomic_radii

CORRECTION = 0.3
"""Size of the correction of a pair, beside that of its elements' functions, that costs as much in the fit."""
RIDGE = 1e-4
ENERGY_WEIGHT, STRESS_WEIGHT = 1.0, 0.02
"""All energies (eV an atom) and all stresses (times the volume, eV an atom) weigh so much beside all forces (eV/A). A
potential fitted without stresses has pressures of gigapascals; one that weighs them more has worse forces."""
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
LEAST_SCALE = 1e-3
"""eV/A."""
MOST_COEFFICIENTS = 3000
"""Above it, from some twenty elements on, pairs have no corrections: a fit's memory grows with its square."""


class _Features(NamedTuple):
    """Holds what each coefficient counts.

    Attributes:
        virials: in the symmetric change of the energy with strain, eV, in the order of :data:`VOIGT`.
    """

    energies: Float[Tensor, "graph coefficient"]
    forces: Float[Tensor, "component coefficient"]
    virials: Float[Tensor, "graph voigt coefficient"]


class _Beside(NamedTuple):
    """Holds the energies, forces and virials of what stands beside a potential."""

    energies: Float[Tensor, "graph"]
    forces: Float[Tensor, "atom 3"]
    virials: Float[Tensor, "graph voigt"]


class NormalEquations:
    """Adds up the normal equations of a fit, and the energies that fix its shift.

    Args:
        elements: atomic numbers, increasing.
        reach: where the potential ends, A.
        kind: of the potential.
        repulsion: what stands beside it.
        num_branches: data sets, each of which has its own zero of energy.
    """

    def __init__(
        self,
        elements: Sequence[int],
        reach: float,
        kind: Kind,
        repulsion: ScreenedRepulsion | None,
        num_branches: int = 1,
    ) -> None:
        self.elements, self.reach, self.repulsion = torch.tensor(elements), reach, repulsion
        self.num_branches = num_branches
        self.columns = EMBEDDINGS[kind]
        count = len(elements)
        upper = torch.triu_indices(count, count, 1)
        if (count + upper.shape[1]) * FUNCTIONS > MOST_COEFFICIENTS:
            upper = upper[:, :0]
        self.pairs = torch.full((count, count), -1)
        self.pairs[upper[0], upper[1]] = self.pairs[upper[1], upper[0]] = count + torch.arange(upper.shape[1])
        self.num_pairs = (count + upper.shape[1]) * FUNCTIONS
        self.size = self.num_pairs + count * self.columns
        self.gram, self.right = torch.zeros(self.size, self.size).double(), torch.zeros(self.size).double()
        self.virial_gram, self.virial_right, self.virial_rows = self.gram.clone(), self.right.clone(), 0
        self.composition: list[Tensor] = []
        self.energies: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.rows, self.squares = 0, 0.0

    def add(self, batch: GraphBatch) -> None:
        """Takes account of some structures with forces."""
        places = torch.searchsorted(self.elements, batch.atomic_numbers)
        vectors = batch.positions[batch.senders] - batch.positions[batch.receivers]
        vectors = vectors + torch.einsum("ea,eab->eb", batch.shifts, batch.cell[batch.edge_graph])
        found, beside = self._features(places, vectors, batch), self._beside(vectors, batch)
        known = batch.masks["forces"][batch.graph_index].repeat_interleave(3)
        features, wanted = found.forces[known], (batch.labels["forces"] - beside.forces).flatten()[known]
        self.gram += features.T @ features
        self.right += features.T @ wanted
        self._add_virials(batch, found.virials, beside.virials)
        self.energies.append(found.energies / batch.num_atoms[:, None])
        has = batch.masks["energy"] if "energy" in batch.masks else torch.zeros(batch.num_samples, dtype=torch.bool)
        labels = batch.labels.get("energy", torch.zeros(batch.num_samples).double()) - beside.energies
        self.labels.append(torch.where(has, labels / batch.num_atoms, torch.nan))
        self.rows += len(wanted)
        self.squares += float(wanted.square().sum())
        counts = torch.zeros(batch.num_samples, self.num_branches, len(self.elements)).double()
        branch = batch.branch[batch.graph_index]
        counts.index_put_((batch.graph_index, branch, places), torch.ones(()).double(), accumulate=True)
        self.composition.append(counts.flatten(1) / batch.num_atoms[:, None])

    def _add_virials(
        self,
        batch: GraphBatch,
        features: Float[Tensor, "graph voigt coefficient"],
        beside: Float[Tensor, "graph voigt"],
    ) -> None:
        volume = torch.linalg.det(batch.cell).abs()
        known = volume > 0
        if "stress" not in batch.masks or not (known := known & batch.masks["stress"]).any():
            return
        labels = torch.stack([batch.labels["stress"][:, i, j] for i, j in VOIGT], dim=1) * volume[:, None]
        share = known / batch.num_atoms
        rows = (features * share[:, None, None]).flatten(0, 1)
        self.virial_gram += rows.T @ rows
        self.virial_right += rows.T @ (torch.where(known[:, None], labels - beside, 0.0) * share[:, None]).flatten()
        self.virial_rows += len(VOIGT) * int(known.sum())

    def _beside(self, vectors: Float[Tensor, "edge 3"], batch: GraphBatch) -> _Beside:
        nothing = torch.zeros(batch.num_samples).double()
        if self.repulsion is None:
            return _Beside(nothing, torch.zeros_like(batch.positions), nothing.new_zeros(len(nothing), len(VOIGT)))
        moved = vectors.clone().requires_grad_()
        of_atoms = self.repulsion(batch.atomic_numbers, moved, batch.senders, batch.receivers)
        (pull,) = torch.autograd.grad(of_atoms.sum(), moved)
        result = PairResult(of_atoms, pull)
        virials = nothing.new_zeros(len(nothing), 3, 3).index_add(0, batch.edge_graph, result.virials(vectors))
        return _Beside(
            nothing.index_add(0, batch.graph_index, of_atoms.detach()),
            result.forces(batch),
            torch.stack([virials[:, i, j] for i, j in VOIGT], dim=1),
        )

    def _features(self, places: Int[Tensor, "atom"], vectors: Float[Tensor, "edge 3"], batch: GraphBatch) -> _Features:
        lengths = vectors.norm(dim=1).requires_grad_()
        unit = vectors / lengths.detach()[:, None]
        radii = atomic_radii().to(vectors)[batch.atomic_numbers]
        scale = (radii[batch.senders] + radii[batch.receivers]) / (2 * RADIUS)
        atoms, graphs = len(places), batch.graph_index[batch.receivers]
        values = bells(lengths, scale, self.reach)
        slopes = _slopes(values, lengths)
        energies = 0.5 * self._table(values.detach(), places, batch, graphs, batch.num_samples)
        forces = [self._table(slopes * unit[:, [axis]], places, batch, batch.receivers, atoms) for axis in range(3)]
        virials = [
            0.5 * self._table(slopes * (unit[:, i] * vectors[:, j])[:, None], places, batch, graphs, batch.num_samples)
            for i, j in VOIGT
        ]
        if self.columns:
            moved = vectors.clone().requires_grad_()
            gained = surroundings(moved, scale, self.reach, batch, self.columns)
            pulls = _slopes(gained, moved)
            columns = self._by_element(gained.detach(), places, batch.graph_index, batch.num_samples)
            energies = torch.cat([energies, columns], dim=1)
            of_edges = places[batch.receivers]
            for axis in range(3):
                pull = pulls[:, axis]
                columns = self._by_element(pull, of_edges, batch.receivers, atoms)
                columns = columns - self._by_element(pull, of_edges, batch.senders, atoms)
                forces[axis] = torch.cat([forces[axis], columns], dim=1)
            for number, (i, j) in enumerate(VOIGT):
                pull = 0.5 * (pulls[:, i] * vectors[:, [j]] + pulls[:, j] * vectors[:, [i]])
                columns = self._by_element(pull, of_edges, graphs, batch.num_samples)
                virials[number] = torch.cat([virials[number], columns], dim=1)
        return _Features(energies, torch.stack(forces, dim=1).flatten(0, 1), torch.stack(virials, dim=1))

    def _by_element(
        self,
        values: Float[Tensor, "entry density"],
        places: Int[Tensor, "entry"],
        rows: Int[Tensor, "entry"],
        num_rows: int,
    ) -> Float[Tensor, "row coefficient"]:
        """Adds up values in each row, those of each element apart."""
        count = len(self.elements)
        table = values.new_zeros(num_rows * count, self.columns).index_add(0, rows * count + places, values)
        return table.unflatten(0, (num_rows, count)).flatten(1)

    def _table(
        self,
        values: Float[Tensor, "edge function"],
        places: Int[Tensor, "atom"],
        batch: GraphBatch,
        rows: Int[Tensor, "edge"],
        num_rows: int,
    ) -> Float[Tensor, "row coefficient"]:
        """Adds up what each coefficient counts in each row."""
        width = self.num_pairs // FUNCTIONS
        table = values.new_zeros(num_rows * width, FUNCTIONS)
        first, second = places[batch.senders], places[batch.receivers]
        for kind in (first, second):
            table.index_add_(0, rows * width + kind, 0.5 * values)
        unlike = self.pairs[first, second] >= 0
        table.index_add_(0, rows[unlike] * width + self.pairs[first, second][unlike], CORRECTION * values[unlike])
        return table.unflatten(0, (num_rows, width)).flatten(1)

    def left_by(self, coefficients: Float[Tensor, "coefficient"]) -> float:
        """Returns the mean square of what coefficients leave of the forces' components, (eV/A)^2."""
        explained = 2 * coefficients @ self.right - coefficients @ self.gram @ coefficients
        return (self.squares - float(explained)) / self.rows

    def coefficients(self) -> Float[Tensor, "coefficient"]:
        """Returns those that fit forces, energies and stresses best; all energies together weigh as all forces."""
        shares, features, labels = torch.cat(self.composition), torch.cat(self.energies), torch.cat(self.labels)
        known = labels.isfinite()
        gram, right = self.gram, self.right
        if known.sum() > shares.any(0).sum():
            # what composition explains, in each data set apart, is left to the reference energies
            both = torch.cat([features[known], labels[known, None]], dim=1)
            both = both - shares[known] @ torch.linalg.pinv(shares[known]) @ both
            weight = ENERGY_WEIGHT * self.rows / len(both)
            gram, right = gram + weight * both[:, :-1].T @ both[:, :-1], right + weight * both[:, :-1].T @ both[:, -1]
        if self.virial_rows:
            weight = STRESS_WEIGHT * self.rows / self.virial_rows
            gram, right = gram + weight * self.virial_gram, right + weight * self.virial_right
        ridge = RIDGE * gram.diagonal().mean() * torch.eye(self.size).double()
        return torch.linalg.solve(gram + ridge, right)

    def solved(self) -> PairBaseline:
        """Returns the potential that fits best."""
        shares, features, flat = torch.cat(self.composition), torch.cat(self.energies), self.coefficients()
        solution = flat[: self.num_pairs].unflatten(0, (-1, FUNCTIONS))
        count = len(self.elements)
        corrections = CORRECTION * solution[self.pairs.clamp(min=0)] * (self.pairs >= 0)[:, :, None]
        shift = (torch.linalg.pinv(shares) @ (features @ flat)).unflatten(0, (self.num_branches, count))
        reach = torch.tensor(self.reach).double()
        scale = torch.tensor(max(self.left_by(flat), LEAST_SCALE**2)).double().sqrt()
        embedding = flat[self.num_pairs :].unflatten(0, (count, -1))
        return PairBaseline(solution[:count], corrections, embedding, shift, reach, scale)


def _slopes(
    values: Float[Tensor, "_ column"], edges: Float[Tensor, "edge *axis"]
) -> Float[Tensor, "edge *axis column"]:
    """Returns how the sum of each column changes with each edge's length, or vector."""
    columns = [torch.autograd.grad(values[:, k].sum(), edges, retain_graph=True)[0] for k in range(values.shape[1])]
    return torch.stack(columns, dim=-1)
