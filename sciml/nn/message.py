"""Prepares message passing: the edges of a batch of atoms, their lengths and their directions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sciml.nn.neighbor_sums import neighbor_sums
from sciml.nn.radial import RadialBasis, envelope


class NodeStates(NamedTuple):
    """Holds what a network knows about each atom.

    Attributes:
        scalars: channels that stay as they are when a structure is turned.
        vectors: channels that turn with it; None where there are none.
        tensors: symmetric matrices without trace that turn with it, as xx, yy, zz, yz, xz, xy; None where there are
            none.
    """

    scalars: Float[Tensor, "atom channel"]
    vectors: Float[Tensor, "atom 3 channel"] | None = None
    tensors: Float[Tensor, "atom 6 channel"] | None = None


@dataclass(frozen=True)
class Edges:
    """Holds a list of edges, for messages that depend on each of them in a way of its own.

    Attributes:
        senders, receivers: atoms at the ends.
        basis: functions of the distance, without the envelope.
        weights: the envelope, scaled so that sums over neighbors stay near one in size.
        num_atoms: atoms in the batch.
        graph_index: which graph each atom belongs to, where that is known.
    """

    senders: Int[Tensor, "edge"]
    receivers: Int[Tensor, "edge"]
    basis: Float[Tensor, "edge radial"]
    weights: Float[Tensor, "edge 1"]
    num_atoms: int
    graph_index: Int[Tensor, "atom"] | None = None

    def sum(self, messages: Float[Tensor, "edge channel"]) -> Float[Tensor, "atom channel"]:
        """Returns the messages that each atom receives, weighted and added up."""
        total = messages.new_zeros(self.num_atoms, messages.shape[1])
        return total.index_add(0, self.receivers, messages * self.weights.to(messages.dtype))


@dataclass(frozen=True)
class Pairs:
    """Lays out edges as an equal number of senders for each atom, for messages linear in the distance's functions.

    Such messages can be added over edges before they meet the sender's state. Edges between the same two atoms,
    which in small periodic cells are many, so become one; and sums over neighbors become matrix products of the
    functions with the senders' states. Empty places hold zeros.

    Attributes:
        senders: atoms that send, place by place; empty places name the receiver.
        radial: functions of the distance times the envelope, added over edges.
        directional: the same times the three components of the unit vector from receiver to sender.
        quadratic: the same times the six components of its product with itself, without trace, where these are wanted.
    """

    senders: Int[Tensor, "atom_place"]
    radial: Float[Tensor, "atom radial place"]
    directional: Float[Tensor, "atom radial*3 place"]
    quadratic: Float[Tensor, "atom radial*6 place"] | None = None

    def radial_sums(self, states: Float[Tensor, "atom channel"]) -> Float[Tensor, "atom radial channel"]:
        """Sums over neighbors of their states, weighted by each function of the distance."""
        return neighbor_sums(self.radial, states, self.senders)

    def directional_sums(self, states: Float[Tensor, "atom channel"]) -> Float[Tensor, "atom radial 3*channel"]:
        """Returns the sums weighted by directions as well."""
        return neighbor_sums(self.directional, states, self.senders).unflatten(1, (-1, 3)).flatten(2)

    def quadratic_sums(self, states: Float[Tensor, "atom channel"]) -> Float[Tensor, "atom radial 6*channel"]:
        """Returns the sums weighted by products of directions."""
        assert self.quadratic is not None
        return neighbor_sums(self.quadratic, states, self.senders).unflatten(1, (-1, 6)).flatten(2)


class MessageGeometry(nn.Module):
    """Prepares edge vectors for all layers at once; the only place where positions enter a network.

    Every message carries the envelope, so that energies and two derivatives are continuous where an atom crosses the
    cutoff. Edges longer than the cutoff, as lists made with a margin have them, count nothing.

    Args:
        basis: functions of the distance.
        exponent: of the envelope.
        avg_num_neighbors: edges for an atom in the training data; sums are divided by its square root, if above 1.
    """

    def __init__(self, basis: RadialBasis, exponent: int, avg_num_neighbors: float) -> None:
        super().__init__()
        self.basis, self.exponent, self.scale = basis, exponent, 1 / math.sqrt(max(avg_num_neighbors, 1.0))

    def weighted(self, edge_vectors: Float[Tensor, "edge 3"]) -> tuple[Float[Tensor, "edge"], Float[Tensor, "edge 1"]]:
        """Returns the lengths of edges, and the weights that multiply their messages."""
        lengths = edge_vectors.square().sum(-1).sqrt()
        return lengths, (self.scale * envelope(lengths, self.basis.cutoff, self.exponent))[:, None]


class EdgeGeometry(MessageGeometry):
    """Prepares edge vectors as a list of edges."""

    def forward(
        self,
        edge_vectors: Float[Tensor, "edge 3"],
        senders: Int[Tensor, "edge"],
        receivers: Int[Tensor, "edge"],
        num_atoms: int,
        graph_index: Int[Tensor, "atom"] | None = None,
    ) -> Edges:
        lengths, weights = self.weighted(edge_vectors)
        return Edges(senders, receivers, self.basis(lengths), weights, num_atoms, graph_index)


class PairGeometry(MessageGeometry):
    """Prepares edge vectors as an equal number of senders for each atom.

    Args:
        quadratic: whether products of directions are wanted.
    """

    def __init__(self, basis: RadialBasis, exponent: int, avg_num_neighbors: float, quadratic: bool = False) -> None:
        super().__init__(basis, exponent, avg_num_neighbors)
        self.quadratic = quadratic

    def forward(
        self,
        edge_vectors: Float[Tensor, "edge 3"],
        senders: Int[Tensor, "edge"],
        receivers: Int[Tensor, "edge"],
        num_atoms: int,
        graph_index: Int[Tensor, "atom"] | None = None,
    ) -> Pairs:
        lengths, weights = self.weighted(edge_vectors)
        radial = self.basis(lengths) * weights
        unit = edge_vectors / lengths[:, None]
        directional = (radial[:, :, None] * unit[:, None]).flatten(1)
        places, senders, width = place_pairs(senders, receivers, num_atoms)

        def placed(values: Float[Tensor, "edge value"]) -> Float[Tensor, "atom value place"]:
            rows = values.new_zeros(num_atoms * width, values.shape[1])
            return rows.index_add(0, places, values).unflatten(0, (num_atoms, width)).transpose(1, 2).contiguous()

        products = None
        if self.quadratic:
            x, y, z = unit.unbind(1)
            six = torch.stack([x * x - 1 / 3, y * y - 1 / 3, z * z - 1 / 3, y * z, x * z, x * y], dim=1)
            products = placed((radial[:, :, None] * six[:, None]).flatten(1))
        return Pairs(senders, placed(radial), placed(directional), products)


def place_pairs(
    senders: Int[Tensor, "edge"], receivers: Int[Tensor, "edge"], num_atoms: int
) -> tuple[Int[Tensor, "edge"], Int[Tensor, "atom_place"], int]:
    """Numbers the different senders of each atom.

    Returns:
        The place of each edge among all, which is the same for edges between the same two atoms; the sender of each
        place, where empty ones name the receiver; and how many places each atom has.
    """
    own = torch.arange(num_atoms, device=senders.device)
    if not len(senders):
        return senders, own, 1
    pairs, pair_of_edge = torch.unique(receivers * num_atoms + senders, return_inverse=True)
    pair_receivers = pairs.div(num_atoms, rounding_mode="floor")
    counts = torch.bincount(pair_receivers, minlength=num_atoms)
    width = int(counts.max())
    first = counts.cumsum(0) - counts
    places = torch.arange(len(pairs), device=pairs.device) + (own * width - first)[pair_receivers]
    table = own.repeat_interleave(width).index_copy(0, places, pairs - pair_receivers * num_atoms)
    return places[pair_of_edge], table, width
