"""A potential of pairs or embedded atoms under the network: what the network starts from.

Functions of an element are found where it is alone, and those of two elements are their mean, with a small correction.
So a pair that was never seen hot, or at all, has a sensible curve, where a network extrapolates freely. The mean of the
elements' functions at a distance scaled by their radii is the simplest of the rules by which alloys are mixed, see
Johnson (1989), https://doi.org/10.1103/PhysRevB.39.12554. An atom may also gain energy by how densely it is surrounded
(the embedded-atom method: Daw and Baskes, 1984, https://doi.org/10.1103/PhysRevB.29.6443); which elements surround it
makes no difference there, so alloys follow from the metals. In a modified embedded-atom potential (Baskes, 1992,
https://doi.org/10.1103/PhysRevB.46.2727) it also counts how uneven the surroundings are, in which direction and along
which axes: bonds of body-centered metals have directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from domains.materials.data.batch import GraphBatch
from domains.materials.training.periodic_table import likest_element

FUNCTIONS = 12
FIRST, LAST = 1.7, 4.9
"""Where the first and the last bell stand; distances are scaled so that two atoms of radius 1.4 A keep theirs."""
RADIUS = 1.4
SHELLS, SHELL_WIDTH = (2.2, 2.8, 3.4, 4.2), 0.5
"""Where the bells stand that add up to densities, A, scaled as above, and how wide they are."""
SOFTENING, LARGE_DENSITY = 0.05, 20.0
"""Densities whose root is still smooth at zero, and whose square counts as one."""
Kind = Literal["pair", "eam", "meam"]
"""Pairs alone; embedded atoms, too; and their modified form."""
EMBEDDINGS: dict[Kind, int] = {"pair": 0, "eam": 2 * len(SHELLS), "meam": 4 * len(SHELLS)}
"""Numbers by which each kind describes an atom's surroundings."""


@dataclass(frozen=True)
class PairBaseline:
    """Holds a fitted potential of pairs or embedded atoms.

    Attributes:
        elements: coefficients of each element's functions, eV.
        corrections: of each pair's, symmetric and zero for like pairs.
        embedding: of what each element gains by its surroundings, eV; as many columns as the kind has.
        shift: energy that an atom of each element has of it on average in each data set, which is left to the
            reference energies, eV; one row holds for all data sets, as in runs of before.
        reach: where it ends, A.
        scale: rms of what it leaves of a force component, eV/A: the unit of what the network says, which so stays small
            where nothing holds it.
    """

    elements: Float[Tensor, "element function"]
    corrections: Float[Tensor, "element element function"]
    embedding: Float[Tensor, "element density"]
    shift: Float[Tensor, "branch element"]
    reach: Float[Tensor, ""]
    scale: Float[Tensor, ""]

    @classmethod
    def from_tensors(cls, parts: Mapping[str, Tensor]) -> PairBaseline:
        """Returns what :meth:`to_tensors` gave, also before there were embedded atoms and several data sets."""
        nothing = parts["elements"].new_zeros(len(parts["elements"]), 0)
        return cls(**{"embedding": nothing, **parts, "shift": torch.atleast_2d(parts["shift"])})

    def to_tensors(self) -> dict[str, Tensor]:
        """Returns its parts by name, as statistics keep them."""
        return dict(vars(self))

    def for_elements(self, before: Sequence[int], after: Sequence[int], branches: Sequence[int] = (0,)) -> PairBaseline:
        """Returns it for a longer table of elements; new ones have the functions of those that they are most like.

        Args:
            before, after: atomic numbers of the tables.
            branches: for each of the new data sets, the number of the old one whose shift it has.
        """
        likest = [number if number in before else likest_element(number, before) for number in after]
        rows = torch.tensor([list(before).index(number) for number in likest])
        return replace(
            self,
            elements=self.elements[rows],
            corrections=self.corrections[rows[:, None], rows],
            embedding=self.embedding[rows],
            shift=self.shift[[branch if len(self.shift) > 1 else 0 for branch in branches]][:, rows],
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
        lengths, reach = moved.square().sum(1).sqrt(), baseline.reach.to(moved)
        pairs = 0.5 * (weights * bells(lengths, scale, reach)).sum(1)
        energies = pairs.new_zeros(len(places)).index_add(0, batch.receivers, pairs)
        if baseline.embedding.shape[1]:
            values = surroundings(moved, scale, reach, batch, baseline.embedding.shape[1])
            energies = energies + (baseline.embedding.to(moved)[places] * values).sum(1)
        pull = torch.autograd.grad(energies.sum(), moved)[0] if gradients else None
    branch = batch.branch[batch.graph_index] if len(baseline.shift) > 1 else torch.zeros_like(places)
    return PairResult(energies.detach() - baseline.shift.to(energies)[branch, places], pull)


def bells(
    lengths: Float[Tensor, "edge"], scale: Float[Tensor, "edge"], reach: float | Float[Tensor, ""]
) -> Float[Tensor, "edge function"]:
    """Returns bells of scaled distances that end, with two derivatives, at the reach."""
    width = (LAST - FIRST) / (FUNCTIONS - 1)
    centers = FIRST + width * torch.arange(FUNCTIONS, dtype=lengths.dtype, device=lengths.device)
    return _bells_at(centers, width, lengths, scale, reach)


def surroundings(
    vectors: Float[Tensor, "edge 3"],
    scale: Float[Tensor, "edge"],
    reach: float | Float[Tensor, ""],
    batch: GraphBatch,
    columns: int,
) -> Float[Tensor, "atom density"]:
    """Returns how atoms are surrounded, shell by shell: roots of the densities, as of bonds by their number, and
    squares; in a modified potential also the squares of the densities' directions and of what they stretch along axes.

    Args:
        scale: of the distances of edges.
        columns: how many numbers of those that the richest kind has.
    """
    lengths = vectors.square().sum(1).sqrt()
    weights = _bells_at(lengths.new_tensor(SHELLS), SHELL_WIDTH, lengths, scale, reach)

    def around(values: Float[Tensor, "edge shell *part"]) -> Float[Tensor, "atom shell *part"]:
        return values.new_zeros(len(batch.positions), *values.shape[1:]).index_add(0, batch.receivers, values)

    total = around(weights)
    found = [(total + SOFTENING).sqrt() - SOFTENING**0.5, total.square() / LARGE_DENSITY]
    if columns > EMBEDDINGS["eam"]:
        directions = vectors / lengths[:, None]
        axes = directions[:, :, None] * directions[:, None] - torch.eye(3).to(vectors) / 3
        pointing = around(weights[:, :, None] * directions[:, None])
        stretched = around(weights[:, :, None, None] * axes[:, None])
        found += [pointing.square().sum(2) / LARGE_DENSITY, stretched.square().sum((2, 3)) / LARGE_DENSITY]
    return torch.cat(found, dim=1)


def _bells_at(
    centers: Float[Tensor, "bell"],
    width: float,
    lengths: Float[Tensor, "edge"],
    scale: Float[Tensor, "edge"],
    reach: float | Float[Tensor, ""],
) -> Float[Tensor, "edge bell"]:
    ending = (1 - (lengths / reach).square()).clamp(min=0)[:, None] ** 3
    return ending * torch.exp(-0.5 * (((lengths / scale)[:, None] - centers) / width).square())
