"""EGNN's layer against its equations, written edge by edge."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sciml.nn.egnn import EGNNLayer
from sciml.nn.message import EdgeGeometry, NodeStates
from sciml.nn.radial import RadialBasis, envelope
from tests.atoms import crystal, drawn


def test_layer_equals_its_equations():
    layer, atoms, basis = drawn(EGNNLayer(4, 3)), crystal(), RadialBasis("gaussian", 3, 3.0)
    h = torch.randn(6, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    edges = EdgeGeometry(basis, 5, 16.0)(atoms.edge_vectors(), atoms.senders, atoms.receivers, 6)
    x = F.layer_norm(h, (4,), layer.norm.weight, layer.norm.bias)
    weight = torch.cat([*(end.weight for end in layer.ends), layer.radial.weight], dim=1)
    bias = layer.ends[0].bias + layer.ends[1].bias
    received = torch.zeros_like(h)
    for vector, j, i in zip(atoms.edge_vectors(), atoms.senders, atoms.receivers, strict=True):
        r = vector.norm()
        hidden = F.silu(weight @ torch.cat([x[i], x[j], basis(r[None])[0]]) + bias)
        received[i] += layer.received.weight @ hidden * envelope(r, 3.0) / 4
    expected = h + layer.out[0](F.silu(layer.own(x) + received))
    torch.testing.assert_close(layer(NodeStates(h), edges).scalars, expected)
