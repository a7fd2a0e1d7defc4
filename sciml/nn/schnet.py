"""SchNet's layer: neighbors' states, filtered channel by channel by their distance."""

from __future__ import annotations

import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciml.nn.channels import Channels, Gates
from sciml.nn.message import Edges, NodeStates


class SchNetLayer(nn.Module):
    """Adds a continuous-filter convolution, passed through a small network, to the state.

    Distances are those of edge vectors, so that it is periodic where the edges are. Unlike in the original the
    message ends smoothly at the cutoff.

    Source: Schuett et al. (2017), https://doi.org/10.48550/arXiv.1706.08566, figure 2.

    Args:
        num_channels: channels of an atom.
        num_radial: functions of the distance.
    """

    def __init__(self, num_channels: int, num_radial: int) -> None:
        super().__init__()
        self.whole = Channels()
        self.sent = Gates(1, num_channels, bias=False)
        self.filter_in = nn.Linear(num_radial, num_channels)
        self.filter_out = nn.Linear(num_channels, num_channels)
        self.received = nn.Linear(num_channels, num_channels)
        self.out = Gates(1, num_channels)

    def forward(self, states: NodeStates, edges: Edges) -> NodeStates:
        """Returns the new states."""
        (sent,) = self.sent(self.whole(states.scalars))
        filters = shifted_softplus(self.filter_out(shifted_softplus(self.filter_in(edges.basis))))
        received = self.received(edges.sum(filters * sent.index_select(0, edges.senders)))
        (change,) = self.out(shifted_softplus(received))
        return NodeStates(states.scalars + change)


def shifted_softplus(x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Computes the smooth ramp of SchNet, zero at zero."""
    return F.softplus(x) - math.log(2)
