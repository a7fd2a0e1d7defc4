"""Layers of torch_geometric for properties: their aggregators (largest neighbor, attention) are not smooth."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sciml.nn.initialization import Constant, starts_as, xavier_uniform
from sciml.nn.message import Edges, NodeStates

AGGREGATORS = ["mean", "min", "max", "std"]
SCALERS = ["identity", "amplification", "attenuation"]


def degree_histogram(avg_num_neighbors: float) -> Int[Tensor, "degree"]:
    """Returns the numbers of neighbors as if all atoms had the average; on the CPU also where a model is built
    without values.
    """
    degree = max(1, round(avg_num_neighbors))
    return torch.tensor([0] * degree + [1], device="cpu")


class PNALayer(nn.Module):
    """Adds principal neighborhood aggregation to the state.

    Source: Corso et al. (2020), https://doi.org/10.48550/arXiv.2004.05718.

    Args:
        num_channels: channels of an atom.
        num_radial: functions of the distance.
        avg_num_neighbors: edges for an atom in the training data.
    """

    def __init__(self, num_channels: int, num_radial: int, avg_num_neighbors: float) -> None:
        super().__init__()
        from torch_geometric.nn import PNAConv  # takes seconds, and only these layers need it

        degrees = degree_histogram(avg_num_neighbors)
        self.norm = nn.LayerNorm(num_channels)
        self.conv = PNAConv(num_channels, num_channels, AGGREGATORS, SCALERS, degrees, edge_dim=num_radial)
        note_starts(self.conv)

    def forward(self, states: NodeStates, edges: Edges) -> NodeStates:
        """Returns the new states."""
        return NodeStates(states.scalars + self.conv(self.norm(states.scalars), *geometric_edges(edges)))


class GPSLayer(nn.Module):
    """Applies a local convolution (GINE) and attention over all atoms of a graph, side by side.

    Source: Rampasek et al. (2022), https://doi.org/10.48550/arXiv.2205.12454.

    Args:
        num_channels: channels of an atom.
        num_radial: functions of the distance.
        num_heads: attention heads.
    """

    def __init__(self, num_channels: int, num_radial: int, num_heads: int) -> None:
        super().__init__()
        from torch_geometric.nn import GINEConv, GPSConv

        hidden = nn.Linear(num_channels, num_channels)
        network = nn.Sequential(hidden, nn.SiLU(), nn.Linear(num_channels, num_channels))
        local = GINEConv(network, edge_dim=num_radial)
        # Norms of single atoms: those over a batch would make a prediction depend on its company.
        self.conv = GPSConv(num_channels, local, num_heads, norm="layer_norm", norm_kwargs={"mode": "node"})
        note_starts(self.conv)

    def forward(self, states: NodeStates, edges: Edges) -> NodeStates:
        """Returns the new states; atoms without a graph are taken as one."""
        edge_index, features = geometric_edges(edges)
        return NodeStates(self.conv(states.scalars, edge_index, edges.graph_index, edge_attr=features))


def geometric_edges(edges: Edges) -> tuple[Int[Tensor, "2 edge"], Float[Tensor, "edge radial"]]:
    """Returns edges in torch_geometric's form."""
    return torch.stack([edges.senders, edges.receivers]), edges.basis * edges.weights


def note_starts(model: nn.Module) -> None:
    """Notes how parameters of torch_geometric's modules start: matrices, biases, and gains of norms."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name.endswith("bias"):
                starts_as(module, **{name: Constant(0.0)})
            else:
                starts_as(module, **{name: xavier_uniform if parameter.ndim == 2 else Constant(1.0)})
