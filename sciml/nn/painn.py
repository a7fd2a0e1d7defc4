"""PaiNN's layer: scalars and vectors on every atom, exchanged with neighbors and mixed on the spot."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciml.nn.channels import Channels, Gates
from sciml.nn.message import NodeStates, Pairs

# Length below which the norm of a vector channel turns into its square. In a perfect crystal vectors vanish by
# symmetry; a force's gradient then meets the norm's second derivative, which is the inverse of this length.
NORM_SOFTENING = 0.1


class RadialFilter(nn.Linear):
    """Weighs functions of the distance, channel by channel, in sums that were made with each of them.

    ``sum_j W(r_ij) x_j`` with ``W = sum_k w_k b_k(r)`` is ``sum_k w_k sum_j b_k(r_ij) x_j``: the filter is applied to
    atoms and not to edges.

    Args:
        num_radial: functions of the distance.
        num_channels: channels.
    """

    def __init__(self, num_radial: int, num_channels: int) -> None:
        super().__init__(num_radial, num_channels, bias=False)

    def forward(self, sums: Float[Tensor, "atom radial component"]) -> Float[Tensor, "atom component"]:
        """Returns the filtered sums; axes lie side by side, since products over long rows are several times faster."""
        weights = self.weight.T.repeat(1, sums.shape[2] // len(self.weight))
        return (sums * weights).sum(1)


class Message(nn.Module):
    """Computes the scalars and vectors that atoms get from their neighbors.

    Source: Schuett et al. (2021), https://doi.org/10.48550/arXiv.2102.03150, equations 7 and 8. Scalars are
    normalized first, filters have no offset (the functions of the distance span it), and the envelope is theirs.

    Args:
        num_channels: channels of scalars and of vectors.
        num_radial: functions of the distance.
        has_vectors: whether atoms have vectors yet; in the first layer they get them.
    """

    def __init__(self, num_channels: int, num_radial: int, has_vectors: bool = True) -> None:
        super().__init__()
        num_gates = 3 if has_vectors else 2
        self.whole = Channels()
        self.norm = nn.LayerNorm(num_channels)
        self.hidden = nn.Linear(num_channels, num_channels)
        self.gates = Gates(num_gates, num_channels)
        self.filters = nn.ModuleList(RadialFilter(num_radial, num_channels) for _ in range(num_gates))

    def forward(self, states: NodeStates, pairs: Pairs) -> NodeStates:
        """Returns the new scalars and vectors."""
        scalars, vectors, _ = states
        own, pointing, *carrying = self.gates(F.silu(self.hidden(self.norm(self.whole(scalars)))))
        scalars = scalars + self.filters[0](pairs.radial_sums(own))
        change = self.filters[1](pairs.directional_sums(pointing))
        if vectors is not None:
            change = change + self.filters[2](pairs.radial_sums((vectors * carrying[0][:, None]).flatten(1)))
        change = change.unflatten(1, (3, -1))
        return NodeStates(scalars, change if vectors is None else vectors + change)


class Update(nn.Module):
    """Mixes the scalars and vectors of an atom with one another.

    Source: Schuett et al. (2021), https://doi.org/10.48550/arXiv.2102.03150, equations 9 and 10.

    Args:
        num_channels: channels of scalars and of vectors.
        makes_vectors: whether vectors are wanted behind it.
    """

    def __init__(self, num_channels: int, makes_vectors: bool = True) -> None:
        super().__init__()
        self.whole = Channels()
        self.norm = nn.LayerNorm(num_channels)
        self.projections = Gates(2, num_channels, bias=False)
        self.from_scalars = nn.Linear(num_channels, num_channels)
        self.from_norms = nn.Linear(num_channels, num_channels, bias=False)
        self.gates = Gates(3 if makes_vectors else 2, num_channels)

    def forward(self, states: NodeStates) -> NodeStates:
        """Returns the new scalars and, where wanted, vectors."""
        scalars, vectors, _ = states
        left, right = self.projections(self.whole(vectors))
        norms = (right.square().sum(1) + NORM_SOFTENING**2).sqrt()
        hidden = self.from_scalars(self.norm(self.whole(scalars))) + self.from_norms(norms)
        own, product, *turning = self.gates(F.silu(hidden))
        scalars = scalars + own + product * (left * right).sum(1)
        return NodeStates(scalars, vectors + turning[0][:, None] * left if turning else None)


class PaiNNLayer(nn.Module):
    """Passes messages, then updates each atom.

    Args:
        num_channels: channels of scalars and of vectors.
        num_radial: functions of the distance.
        has_vectors: whether atoms come with vectors.
        makes_vectors: whether they leave with some.
    """

    def __init__(
        self, num_channels: int, num_radial: int, has_vectors: bool = True, makes_vectors: bool = True
    ) -> None:
        super().__init__()
        self.message = Message(num_channels, num_radial, has_vectors)
        self.update = Update(num_channels, makes_vectors)

    def forward(self, states: NodeStates, pairs: Pairs) -> NodeStates:
        return self.update(self.message(states, pairs))
