"""A potential of pairs under the network, fitted to the training forces in seconds: what the network starts from.

Functions of an element are found where it is alone, and those of two elements are their mean, with a small correction.
So a pair that was never seen hot, or at all, has a sensible curve, where a network extrapolates freely. The mean of the
elements' functions at a distance scaled by their radii is the simplest of the rules by which alloys are mixed, see
Johnson (1989), https://doi.org/10.1103/PhysRevB.39.12554.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from domains.materials.data.batch import GraphBatch, collate
from domains.materials.data.store import MaterialsStore
from domains.materials.training.periodic_table import likest_element
from sciml.nn.repulsion import atomic_radii

FUNCTIONS = 12
FIRST, LAST = 1.7, 4.9
"""Where the first and the last bell stand; distances are scaled so that two atoms of radius 1.4 A keep theirs."""
RADIUS = 1.4
CORRECTION = 0.3
"""Size of the correction of a pair, beside that of its elements' functions, that costs as much in the fit."""
RIDGE = 1e-4
ENERGY_WEIGHT = 1.0
LEAST_SCALE = 1e-3
"""eV/A."""
MOST_EDGES, BLOCK_EDGES, FEWEST = 1_500_000, 60_000, 20
"""How much is fitted to, how much at a time, and how few structures are not enough."""


@dataclass(frozen=True)
class PairBaseline:
    """Holds a fitted potential of pairs.

    Attributes:
        elements: coefficients of each element's functions, eV.
        corrections: of each pair's, symmetric and zero for like pairs.
        shift: energy that an atom of each element has of it on average, which is left to the reference energies, eV.
        reach: where it ends, A.
        scale: rms of what it leaves of a force component, eV/A: the unit of what the network says, which so stays small
            where nothing holds it.
    """

    elements: Float[Tensor, "element function"]
    corrections: Float[Tensor, "element element function"]
    shift: Float[Tensor, "element"]
    reach: Float[Tensor, ""]
    scale: Float[Tensor, ""]

    def to_tensors(self) -> dict[str, Tensor]:
        """Returns its parts by name, as statistics keep them."""
        return dict(vars(self))

    def for_elements(self, before: Sequence[int], after: Sequence[int]) -> PairBaseline:
        """Returns it for a longer table of elements; new ones have the functions of those that they are most like."""
        likest = [number if number in before else likest_element(number, before) for number in after]
        rows = torch.tensor([list(before).index(number) for number in likest])
        return PairBaseline(
            self.elements[rows], self.corrections[rows[:, None], rows], self.shift[rows], self.reach, self.scale
        )


class PairResult(NamedTuple):
    """Holds what a potential of pairs gives for a batch.

    Attributes:
        energies: of atoms, eV, less the shift.
        pull: change of the energy with each edge's vector, eV/A; None where it was not asked for.
    """

    energies: Float[Tensor, "atom"]
    pull: Float[Tensor, "edge 3"] | None

    def forces(self, batch: GraphBatch) -> Float[Tensor, "atom 3"]:
        """Returns the forces, eV/A."""
        assert self.pull is not None
        zero = self.pull.new_zeros(len(self.energies), 3)
        return zero.index_add(0, batch.receivers, self.pull).index_add(0, batch.senders, self.pull, alpha=-1)

    def virials(self, vectors: Float[Tensor, "edge 3"]) -> Float[Tensor, "edge 3 3"]:
        """Returns the part of each edge in the symmetric change of the energy with strain, eV."""
        assert self.pull is not None
        outer = torch.einsum("ea,eb->eab", vectors.detach(), self.pull)
        return 0.5 * (outer + outer.transpose(1, 2))


def evaluate(
    baseline: PairBaseline,
    places: Int[Tensor, "atom"],
    radii: Float[Tensor, "atom"],
    vectors: Float[Tensor, "edge 3"],
    batch: GraphBatch,
    *,
    gradients: bool,
) -> PairResult:
    """Returns energies of atoms and, where wanted, the change with each edge; nothing can be differentiated further.

    Args:
        places: of atoms' elements in the table.
        radii: of atoms, A.
        vectors: of edges, A.
    """
    with torch.enable_grad():
        moved = vectors.detach().requires_grad_(gradients)
        first, second = places[batch.senders], places[batch.receivers]
        own = baseline.elements.to(moved)
        weights = 0.5 * (own[first] + own[second]) + baseline.corrections.to(moved)[first, second]
        scale = (radii[batch.senders] + radii[batch.receivers]) / (2 * RADIUS)
        pairs = 0.5 * (weights * bells(moved.square().sum(1).sqrt(), scale, baseline.reach.to(moved))).sum(1)
        pull = torch.autograd.grad(pairs.sum(), moved)[0] if gradients else None
    energies = pairs.detach().new_zeros(len(places)).index_add(0, batch.receivers, pairs.detach())
    return PairResult(energies - baseline.shift.to(energies)[places], pull)


def bells(
    lengths: Float[Tensor, "edge"], scale: Float[Tensor, "edge"], reach: float | Float[Tensor, ""]
) -> Float[Tensor, "edge function"]:
    """Returns bells of scaled distances that end, with two derivatives, at the reach."""
    width = (LAST - FIRST) / (FUNCTIONS - 1)
    centers = FIRST + width * torch.arange(FUNCTIONS, dtype=lengths.dtype, device=lengths.device)
    inside = (1 - (lengths / reach).square()).clamp(min=0) ** 3
    return inside[:, None] * torch.exp(-0.5 * (((lengths / scale)[:, None] - centers) / width).square())


def fit_pair_baseline(store: MaterialsStore, reach: float, seed: int = 0) -> PairBaseline | None:
    """Fits a potential of pairs to the forces of a store's training split, by least squares with a small ridge.

    Args:
        reach: where it ends, A; no more than the store's cutoff.

    Returns:
        None where the store has too few forces.
    """
    arrays, elements = store.arrays, store.schema.elements
    if "forces" not in arrays.labels:
        return None
    train = store.indices("train")
    having = train[arrays.masks["forces"][train] & (arrays.num_edges[train] > 0)]
    chosen = np.random.default_rng(seed).permutation(having)
    chosen = chosen[np.cumsum(arrays.num_edges[chosen]) <= MOST_EDGES]
    if len(chosen) < FEWEST:
        return None
    fit = _Fit(elements, reach)
    for numbers in _blocks(arrays.num_edges[chosen]):
        samples = [store.sample(int(index)) for index in chosen[numbers]]
        fit.add(collate(samples, store.schema.labels, torch.float64))
    return fit.solved()


def _blocks(num_edges: np.ndarray) -> list[np.ndarray]:
    blocks = np.cumsum(num_edges) // BLOCK_EDGES
    return [np.flatnonzero(blocks == number) for number in np.unique(blocks)]


class _Fit:
    """Adds up the normal equations of a fit, and the energies that fix its shift."""

    def __init__(self, elements: Sequence[int], reach: float) -> None:
        self.elements, self.reach = torch.tensor(elements), reach
        count = len(elements)
        upper = torch.triu_indices(count, count, 1)
        self.pairs = torch.full((count, count), -1)
        self.pairs[upper[0], upper[1]] = self.pairs[upper[1], upper[0]] = count + torch.arange(upper.shape[1])
        self.size = (count + upper.shape[1]) * FUNCTIONS
        self.gram, self.right = torch.zeros(self.size, self.size).double(), torch.zeros(self.size).double()
        self.composition: list[Tensor] = []
        self.energies: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.rows, self.squares = 0, 0.0

    def add(self, batch: GraphBatch) -> None:
        """Takes account of some structures with forces."""
        places = torch.searchsorted(self.elements, batch.atomic_numbers)
        vectors = batch.positions[batch.senders] - batch.positions[batch.receivers]
        vectors = vectors + torch.einsum("ea,eab->eb", batch.shifts, batch.cell[batch.edge_graph])
        lengths = vectors.norm(dim=1).requires_grad_()
        radii = atomic_radii().to(vectors)[batch.atomic_numbers]
        values = bells(lengths, (radii[batch.senders] + radii[batch.receivers]) / (2 * RADIUS), self.reach)
        slopes = torch.stack(
            [torch.autograd.grad(values[:, k].sum(), lengths, retain_graph=True)[0] for k in range(FUNCTIONS)], dim=1
        )
        unit = vectors / lengths.detach()[:, None]
        atoms = len(places)
        forces = [self._table(slopes * unit[:, [axis]], places, batch, batch.receivers, atoms) for axis in range(3)]
        features = torch.stack(forces, dim=1).flatten(0, 1)
        known = batch.masks["forces"][batch.graph_index].repeat_interleave(3)
        features, wanted = features[known], batch.labels["forces"].flatten()[known]
        self.gram += features.T @ features
        self.right += features.T @ wanted
        energies = self._table(values.detach(), places, batch, batch.graph_index[batch.receivers], batch.num_samples)
        self.energies.append(0.5 * energies / batch.num_atoms[:, None])
        has = batch.masks["energy"] if "energy" in batch.masks else torch.zeros(batch.num_samples, dtype=torch.bool)
        labels = batch.labels.get("energy", torch.zeros(batch.num_samples).double())
        self.labels.append(torch.where(has, labels / batch.num_atoms, torch.nan))
        self.rows += len(wanted)
        self.squares += float(wanted.square().sum())
        counts = torch.zeros(batch.num_samples, len(self.elements)).double()
        counts.index_put_((batch.graph_index, places), torch.ones(()).double(), accumulate=True)
        self.composition.append(counts / batch.num_atoms[:, None])

    def _table(
        self,
        values: Float[Tensor, "edge function"],
        places: Int[Tensor, "atom"],
        batch: GraphBatch,
        rows: Int[Tensor, "edge"],
        num_rows: int,
    ) -> Float[Tensor, "row coefficient"]:
        """Adds up what each coefficient counts in each row."""
        table = values.new_zeros(num_rows * (self.size // FUNCTIONS), FUNCTIONS)
        width = self.size // FUNCTIONS
        first, second = places[batch.senders], places[batch.receivers]
        for kind in (first, second):
            table.index_add_(0, rows * width + kind, 0.5 * values)
        unlike = first != second
        table.index_add_(0, rows[unlike] * width + self.pairs[first, second][unlike], CORRECTION * values[unlike])
        return table.unflatten(0, (num_rows, width)).flatten(1)

    def solved(self) -> PairBaseline:
        """Returns the potential that fits forces and energies best; all energies together weigh as all forces."""
        shares, features, labels = torch.cat(self.composition), torch.cat(self.energies), torch.cat(self.labels)
        known = labels.isfinite()
        gram, right = self.gram, self.right
        if known.sum() > len(self.elements):
            # what composition explains is left to the reference energies
            both = torch.cat([features[known], labels[known, None]], dim=1)
            both = both - shares[known] @ torch.linalg.pinv(shares[known]) @ both
            weight = ENERGY_WEIGHT * self.rows / len(both)
            gram, right = gram + weight * both[:, :-1].T @ both[:, :-1], right + weight * both[:, :-1].T @ both[:, -1]
        ridge = RIDGE * gram.diagonal().mean() * torch.eye(self.size).double()
        flat = torch.linalg.solve(gram + ridge, right)
        solution = flat.unflatten(0, (-1, FUNCTIONS))
        left = (self.squares - 2 * flat @ self.right + flat @ self.gram @ flat) / self.rows
        count = len(self.elements)
        corrections = CORRECTION * solution[self.pairs.clamp(min=0)] * (self.pairs >= 0)[:, :, None]
        shift = torch.linalg.pinv(shares) @ (features @ solution.flatten())
        reach, scale = torch.tensor(self.reach).double(), left.clamp(min=LEAST_SCALE**2).sqrt()
        return PairBaseline(solution[:count], corrections, shift, reach, scale)
