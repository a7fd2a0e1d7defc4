"""SchNet's layer against its equations, written edge by edge."""

from __future__ import annotations

import pytest
import torch

from sciml.nn.message import EdgeGeometry, NodeStates
from sciml.nn.radial import RadialBasis, envelope
from sciml.nn.schnet import SchNetLayer, shifted_softplus
from tests.atoms import crystal, drawn


def test_layer_equals_its_equations():
    layer, atoms, basis = drawn(SchNetLayer(4, 3)), crystal(), RadialBasis("gaussian", 3, 3.0)
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    edges = EdgeGeometry(basis, 5, 16.0)(atoms.edge_vectors(), atoms.senders, atoms.receivers, 6)
    received = torch.zeros_like(x)
    for vector, j, i in zip(atoms.edge_vectors(), atoms.senders, atoms.receivers, strict=True):
        r = vector.norm()
        filters = shifted_softplus(layer.filter_out(shifted_softplus(layer.filter_in(basis(r[None])[0]))))
        received[i] += (layer.sent[0].weight @ x[j]) * filters * envelope(r, 3.0) / 4
    expected = x + layer.out[0](shifted_softplus(layer.received(received)))
    torch.testing.assert_close(layer(NodeStates(x), edges).scalars, expected)


def test_softplus_is_shifted_to_zero():
    values = shifted_softplus(torch.tensor([0.0, 30.0]))
    assert values.tolist() == pytest.approx([0.0, 30 - 0.693147], abs=1e-5)
