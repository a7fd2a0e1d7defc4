"""Edges laid out in places, and sums over them, against loops over edges."""

from __future__ import annotations

import pytest
import torch

from sciml.nn import neighbor_sums as module
from sciml.nn.message import EdgeGeometry, PairGeometry, place_pairs
from sciml.nn.neighbor_sums import neighbor_sums
from sciml.nn.radial import RadialBasis, envelope
from tests.atoms import crystal

BASIS = RadialBasis("bessel", 3, 3.0)


@pytest.fixture(params=[1, 2**18], ids=["atom by atom", "at once"])
def _blocks(request, monkeypatch):
    monkeypatch.setattr(module, "CACHED_NUMBERS", request.param)


def test_edges_between_the_same_atoms_share_a_place():
    senders, receivers = torch.tensor([2, 0, 2, 1, 2, 0]), torch.tensor([0, 1, 0, 0, 2, 1])
    places, table, width = place_pairs(senders, receivers, 4)
    assert width == 2
    assert places.tolist() == [1, 2, 1, 0, 4, 2]
    assert table.tolist() == [1, 2, 0, 1, 2, 2, 3, 3]  # empty ones name the atom itself


def test_without_edges_every_atom_has_one_empty_place():
    none = torch.zeros(0, dtype=torch.long)
    places, table, width = place_pairs(none, none, 3)
    assert (len(places), table.tolist(), width) == (0, [0, 1, 2], 1)


@pytest.mark.usefixtures("_blocks")
def test_sums_over_places_are_sums_over_edges():
    atoms, generator = crystal(), torch.Generator().manual_seed(1)
    states = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    vectors = atoms.edge_vectors()
    pairs = PairGeometry(BASIS, 5, 9.0)(vectors, atoms.senders, atoms.receivers, 6)
    assert len(pairs.senders) < len(atoms.senders)
    radial, directional = torch.zeros(6, 3, 5).double(), torch.zeros(6, 3, 3, 5).double()
    for vector, sender, receiver in zip(vectors, atoms.senders, atoms.receivers, strict=True):
        length = vector.norm()
        weight = BASIS(length[None])[0] * envelope(length, 3.0) / 3
        radial[receiver] += weight[:, None] * states[sender]
        directional[receiver] += weight[:, None, None] * (vector / length)[:, None] * states[sender]
    torch.testing.assert_close(pairs.radial_sums(states), radial)
    torch.testing.assert_close(pairs.directional_sums(states), directional.flatten(2))


def test_edge_sums_are_weighted_by_the_envelope():
    atoms = crystal()
    lengths = atoms.edge_vectors().norm(dim=-1)
    edges = EdgeGeometry(BASIS, 5, 4.0)(atoms.edge_vectors(), atoms.senders, atoms.receivers, 6)
    messages = torch.randn(len(lengths), 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.stack(
        [(messages * envelope(lengths, 3.0)[:, None] / 2)[atoms.receivers == i].sum(0) for i in range(6)]
    )
    torch.testing.assert_close(edges.sum(messages), expected)


@pytest.mark.usefixtures("_blocks")
def test_products_are_exact_to_the_third_derivative():
    generator = torch.Generator().manual_seed(3)
    senders = torch.randint(0, 3, (6,), generator=generator)
    weights, states = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((3, 2, 2), (3, 2))
    )

    def gradients(weights: torch.Tensor, states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        value = neighbor_sums(weights, states, senders).sin().sum()
        return torch.autograd.grad(value, (weights, states), create_graph=True)

    assert torch.autograd.gradcheck(lambda w, s: neighbor_sums(w, s, senders), (weights, states))
    assert torch.autograd.gradcheck(gradients, (weights, states))
    assert torch.autograd.gradgradcheck(gradients, (weights, states))


def test_states_of_lower_precision_are_summed_in_it():
    atoms = crystal()
    pairs = PairGeometry(BASIS, 5, 9.0)(atoms.edge_vectors().float(), atoms.senders, atoms.receivers, 6)
    states = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        sums = pairs.radial_sums(states.bfloat16())
        full = pairs.radial_sums(states)
    sums.float().square().sum().backward()
    assert sums.dtype == torch.bfloat16
    assert full.dtype == torch.float32
    torch.testing.assert_close(sums.float(), full, rtol=0.03, atol=0.03)
    assert torch.isfinite(states.grad).all()
