"""PaiNN's layer against its equations, written edge by edge."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sciml.nn.message import NodeStates, PairGeometry
from sciml.nn.painn import NORM_SOFTENING, Message, PaiNNLayer, Update
from sciml.nn.radial import RadialBasis, envelope
from tests.atoms import crystal, drawn

C, R = 4, 3
BASIS = RadialBasis("bessel", R, 3.0)


def states(seed: int = 5) -> NodeStates:
    generator = torch.Generator().manual_seed(seed)
    return NodeStates(*(torch.randn(s, generator=generator, dtype=torch.float64) for s in ((6, C), (6, 3, C))))


@pytest.mark.parametrize("has_vectors", [True, False])
def test_message_equals_its_equations(has_vectors):
    message, atoms, (s, v, _) = drawn(Message(C, R, has_vectors)), crystal(), states()
    geometry = PairGeometry(BASIS, 5, 16.0)(atoms.edge_vectors(), atoms.senders, atoms.receivers, 6)
    found = message(NodeStates(s, v if has_vectors else None), geometry)
    phi = F.silu(message.hidden(F.layer_norm(s, (C,), message.norm.weight, message.norm.bias)))
    gates = [phi @ gate.weight.T + gate.bias for gate in message.gates]
    scalars, vectors = s.clone(), v.clone() if has_vectors else torch.zeros_like(v)
    for vector, j, i in zip(atoms.edge_vectors(), atoms.senders, atoms.receivers, strict=True):
        r = vector.norm()
        filters = [f.weight @ BASIS(r[None])[0] * envelope(r, 3.0) / 4 for f in message.filters]
        scalars[i] += gates[0][j] * filters[0]
        vectors[i] += (gates[1][j] * filters[1]) * (vector / r)[:, None]
        if has_vectors:
            vectors[i] += v[j] * (gates[2][j] * filters[2])
    torch.testing.assert_close(found.scalars, scalars)
    torch.testing.assert_close(found.vectors, vectors)


@pytest.mark.parametrize("makes_vectors", [True, False])
def test_update_equals_its_equations(makes_vectors):
    update, (s, v, _) = drawn(Update(C, makes_vectors)), states()
    found = update(NodeStates(s, v))
    left, right = (v @ p.weight.T for p in update.projections)
    norms = (right.square().sum(1) + NORM_SOFTENING**2).sqrt()
    both = torch.cat([F.layer_norm(s, (C,), update.norm.weight, update.norm.bias), norms], dim=-1)
    weight = torch.cat([update.from_scalars.weight, update.from_norms.weight], dim=1)
    a = [F.silu(both @ weight.T + update.from_scalars.bias) @ gate.weight.T + gate.bias for gate in update.gates]
    torch.testing.assert_close(found.scalars, s + a[0] + a[1] * (left * right).sum(1))
    if makes_vectors:
        torch.testing.assert_close(found.vectors, v + a[2][:, None] * left)
    else:
        assert found.vectors is None


def test_layers_have_only_the_parts_that_they_use():
    names = {name for name, _ in PaiNNLayer(C, R, has_vectors=False, makes_vectors=False).named_parameters()}
    assert not {name for name in names if ".2." in name}
