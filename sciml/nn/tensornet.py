"""A layer of Cartesian tensors: a scalar, a vector and a symmetric matrix on every atom, multiplied as 3 x 3 matrices.

A matrix ``s 1 + [v]x + t`` holds all three. Turned atoms turn it as ``R X R^T``, mirrored ones as ``R X^T R^T``; the
symmetrized product of two such matrices is another one. So products of what neighbors send, which tell angles and
dihedrals apart, need no tables of coupling coefficients, and are the same channel by channel.

Source: Simeon and De Fabritiis (2023), https://doi.org/10.48550/arXiv.2306.06482 (matrices, their products, directions
in the first layer alone). Gates and updates are as in :mod:`sciml.nn.painn`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciml.nn.channels import Channels, Gates
from sciml.nn.message import NodeStates, Pairs
from sciml.nn.painn import RadialFilter

SIX = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Where the six numbers of a symmetric matrix stand."""
PLACES = (0, 5, 4, 5, 1, 3, 4, 3, 2)
"""Which of the six stands at each of a matrix's nine places, row by row."""
SIGNS = (0, -1, 1, 1, 0, -1, -1, 1, 0)
AXES = (0, 2, 1, 2, 0, 0, 1, 0, 0)
"""Sign and component of a vector at each place of its cross-product matrix."""
NORM_SOFTENING = 0.1


class TensorMessage(nn.Module):
    """Computes the scalars, vectors and symmetric matrices that atoms get from their neighbors.

    Args:
        num_channels: of each.
        num_radial: functions of the distance.
        is_first: whether atoms have scalars alone; directions enter here.
    """

    def __init__(self, num_channels: int, num_radial: int, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        self.whole = Channels()
        self.norm = nn.LayerNorm(num_channels)
        self.hidden = nn.Linear(num_channels, num_channels)
        self.gates = Gates(3, num_channels)
        self.filters = nn.ModuleList(RadialFilter(num_radial, num_channels) for _ in range(3))

    def forward(self, states: NodeStates, pairs: Pairs) -> Float[Tensor, "atom 10 channel"]:
        """Returns all three parts, one after the other: what atoms had and what they get."""
        scalars = states.scalars
        own, vector, tensor = self.gates(F.silu(self.hidden(self.norm(self.whole(scalars)))))
        if self.is_first:
            sums = pairs.radial_sums(own), pairs.directional_sums(vector), pairs.quadratic_sums(tensor)
            had = [scalars[:, None]]
        else:
            assert states.vectors is not None
            assert states.tensors is not None
            sent = [own[:, None], states.vectors * vector[:, None], states.tensors * tensor[:, None]]
            width = own.shape[1]
            together = pairs.radial_sums(torch.cat(sent, dim=1).flatten(1))
            sums = together.split([width, 3 * width, 6 * width], dim=2)
            had = [scalars[:, None], states.vectors, states.tensors]
        got = [filter_(part).unflatten(1, (-1, own.shape[1])) for filter_, part in zip(self.filters, sums, strict=True)]
        if self.is_first:
            return torch.cat([had[0] + got[0], *got[1:]], dim=1)
        return torch.cat([before + new for before, new in zip(had, got, strict=True)], dim=1)


class TensorUpdate(nn.Module):
    """Multiplies the matrices of an atom with one another, and mixes channels.

    Args:
        num_channels: of each part.
        correlation: matrices in the longest product: 2 or 3.
        makes_tensors: whether vectors and matrices are wanted behind it.
    """

    def __init__(self, num_channels: int, correlation: int, makes_tensors: bool) -> None:
        super().__init__()
        self.correlation, self.makes_tensors = correlation, makes_tensors
        self.whole = Channels()
        self.norm = nn.LayerNorm(num_channels)
        self.left = nn.ModuleList(nn.Linear(num_channels, num_channels, bias=False) for _ in range(3))
        self.right = nn.ModuleList(nn.Linear(num_channels, num_channels, bias=False) for _ in range(3))
        self.from_scalars = nn.Linear(num_channels, num_channels)
        self.from_vectors = nn.Linear(num_channels, num_channels, bias=False)
        self.from_tensors = nn.Linear(num_channels, num_channels, bias=False)
        self.gates = Gates(correlation + (2 * correlation if makes_tensors else 0), num_channels)

    def forward(self, parts: Float[Tensor, "atom 10 channel"]) -> NodeStates:
        """Returns the new states."""
        whole = self.whole(parts)
        left, right = (
            matrices(*(mix(part) for mix, part in zip(mixes, whole.split([1, 3, 6], dim=1), strict=True)))
            for mixes in (self.left, self.right)
        )
        left, right = bounded(left), bounded(right)
        products = [left, symmetrized(left, right)]
        if self.correlation == 3:
            products.append(symmetrized(products[1], right))
        split = [components(product) for product in products]
        hidden = self.from_scalars(self.norm(whole[:, 0]))
        _, vector, tensor = split[0]
        # off the diagonal each number stands twice in the matrix
        sizes = vector.square().sum(1), tensor.square().sum(1) + tensor[:, 3:].square().sum(1)
        for linear, size in zip((self.from_vectors, self.from_tensors), sizes, strict=True):
            hidden = hidden + linear((size + NORM_SOFTENING**2).sqrt())
        gates = self.gates(F.silu(hidden))
        own, *of_traces = gates[: self.correlation]
        scalars = parts[:, 0] + own
        for gate, (trace, _, _) in zip(of_traces, split[1:], strict=True):
            scalars = scalars + gate * trace[:, 0]
        if not self.makes_tensors:
            return NodeStates(scalars)
        vectors, tensors = parts[:, 1:4], parts[:, 4:]
        of_parts = gates[self.correlation :]
        for number, (_, vector, tensor) in enumerate(split):
            vectors = vectors + of_parts[2 * number][:, None] * vector
            tensors = tensors + of_parts[2 * number + 1][:, None] * tensor
        return NodeStates(scalars, vectors, tensors)


class TensorNetLayer(nn.Module):
    """Passes messages, then updates each atom.

    Args:
        num_channels: of scalars, vectors and matrices each.
        num_radial: functions of the distance.
        correlation: matrices in the longest product: 2 or 3.
        is_first: whether atoms come with scalars alone.
        makes_tensors: whether they leave with vectors and matrices.
    """

    def __init__(
        self,
        num_channels: int,
        num_radial: int,
        correlation: int = 2,
        is_first: bool = False,
        makes_tensors: bool = True,
    ) -> None:
        super().__init__()
        self.message = TensorMessage(num_channels, num_radial, is_first)
        self.update = TensorUpdate(num_channels, correlation, makes_tensors)

    def forward(self, states: NodeStates, pairs: Pairs) -> NodeStates:
        return self.update(self.message(states, pairs))


def matrices(
    scalars: Float[Tensor, "atom 1 channel"],
    vectors: Float[Tensor, "atom 3 channel"],
    tensors: Float[Tensor, "atom 6 channel"],
) -> Float[Tensor, "atom 3 3 channel"]:
    """Returns ``s 1 + [v]x + t``."""
    signs = vectors.new_tensor(SIGNS)[:, None]
    skew = signs * vectors[:, list(AXES)]
    unit = torch.eye(3, dtype=scalars.dtype, device=scalars.device).reshape(9, 1)
    return (skew + tensors[:, list(PLACES)] + unit * scalars).unflatten(1, (3, 3))


def components(
    matrix: Float[Tensor, "atom 3 3 channel"],
) -> tuple[Float[Tensor, "atom 1 channel"], Float[Tensor, "atom 3 channel"], Float[Tensor, "atom 6 channel"]]:
    """Returns the scalar, the vector and the symmetric matrix without trace that a matrix is the sum of."""
    diagonal = [matrix[:, i, i] for i in range(3)]
    scalar = sum(diagonal[1:], diagonal[0]) / 3
    vector = [0.5 * (matrix[:, j, i] - matrix[:, i, j]) for i, j in ((1, 2), (2, 0), (0, 1))]
    off = [0.5 * (matrix[:, i, j] + matrix[:, j, i]) for i, j in SIX[3:]]
    tensor = [*(one - scalar for one in diagonal), *off]
    return scalar[:, None], torch.stack(vector, dim=1), torch.stack(tensor, dim=1)


def bounded(matrix: Float[Tensor, "atom 3 3 channel"]) -> Float[Tensor, "atom 3 3 channel"]:
    """Scales matrices so that none is larger than one, and small ones stay as they are."""
    return matrix * torch.rsqrt(1 + matrix.square().sum((1, 2), keepdim=True))


def symmetrized(
    first: Float[Tensor, "atom 3 3 channel"], second: Float[Tensor, "atom 3 3 channel"]
) -> Float[Tensor, "atom 3 3 channel"]:
    """Returns ``(XY + YX) / 2`` for each channel."""
    forth = (first[:, :, :, None] * second[:, None]).sum(2)
    back = (second[:, :, :, None] * first[:, None]).sum(2)
    return 0.5 * (forth + back)
