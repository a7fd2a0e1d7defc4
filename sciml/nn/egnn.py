"""EGNN's layer: messages made of both atoms' states and their distance."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from sciml.nn.channels import Channels, Gates
from sciml.nn.message import Edges, NodeStates


class EGNNLayer(nn.Module):
    """Adds messages over edges, passed through a network over atoms, to the state.

    As in the original's energies of molecules, coordinates stay as they are and messages are invariant. Each linear
    stands where it costs least: the message network's first one is a sum of linears of both atoms and of the
    distance; its last one commutes with the sum over neighbors and stands behind it, on atoms.

    Source: Satorras et al. (2021), https://doi.org/10.48550/arXiv.2102.09844, equations 3, 5 and 6.

    Args:
        num_channels: channels of an atom.
        num_radial: functions of the distance, in place of its square.
    """

    def __init__(self, num_channels: int, num_radial: int) -> None:
        super().__init__()
        self.whole = Channels()
        self.norm = nn.LayerNorm(num_channels)
        self.ends = Gates(2, num_channels)
        self.radial = nn.Linear(num_radial, num_channels, bias=False)
        self.received = nn.Linear(num_channels, num_channels, bias=False)
        self.own = nn.Linear(num_channels, num_channels)
        self.out = Gates(1, num_channels)

    def forward(self, states: NodeStates, edges: Edges) -> NodeStates:
        """Returns the new states."""
        normed = self.norm(self.whole(states.scalars))
        receiver, sender = self.ends(normed)
        messages = F.silu(
            receiver.index_select(0, edges.receivers) + sender.index_select(0, edges.senders) + self.radial(edges.basis)
        )
        (change,) = self.out(F.silu(self.own(normed) + self.received(edges.sum(messages))))
        return NodeStates(states.scalars + change)
