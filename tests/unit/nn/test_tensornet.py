"""Matrices of atoms: what they are made of, how they multiply, and what only products can tell apart."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sciml.models.gnn import GNNConfig
from sciml.nn.tensornet import bounded, components, matrices, symmetrized
from tests.atoms import EnergyModel, connect, drawn


def parts(seed=0):
    generator = torch.Generator().manual_seed(seed)
    scalars, vectors, tensors = (torch.randn(5, n, 2, generator=generator, dtype=torch.float64) for n in (1, 3, 6))
    tensors[:, :3] -= tensors[:, :3].mean(1, keepdim=True)
    return scalars, vectors, tensors


def test_a_matrix_holds_its_parts():
    given = parts()
    for found, expected in zip(components(matrices(*given)), given, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_vector_is_that_of_the_cross_product():
    zero = torch.zeros(1, 1, 1), torch.zeros(1, 6, 1)
    x, y = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([1.0, 0.5, -0.2])
    matrix = matrices(zero[0], x[None, :, None], zero[1])[0, :, :, 0]
    torch.testing.assert_close(matrix @ y, torch.linalg.cross(x, y))


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["rotation", "reflection"])
def test_products_turn_as_their_factors(sign):
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64))
    turn = turn * torch.linalg.det(turn) * sign

    def turned(matrix):
        together = torch.einsum("ai,nijc,bj->nabc", turn, matrix, turn)
        return together if sign > 0 else together.transpose(1, 2)

    first, second = matrices(*parts(0)), matrices(*parts(1))
    expected = turned(symmetrized(bounded(first), second))
    torch.testing.assert_close(symmetrized(bounded(turned(first)), turned(second)), expected)


def fan(angles):
    """An atom with neighbors at 2 A in a plane, in some directions (degrees); neighbors do not see one another."""
    around = [[2 * math.cos(math.radians(a)), 2 * math.sin(math.radians(a)), 0.0] for a in angles]
    positions = torch.tensor([[0.0, 0.0, 0.0], *around], dtype=torch.float64)
    atoms = connect(positions, torch.zeros(len(positions), dtype=torch.long), torch.zeros(3, 3).double(), 4.0)
    central = (atoms.receivers == 0) | (atoms.senders == 0)
    return replace(
        atoms,
        senders=atoms.senders[central],
        receivers=atoms.receivers[central],
        shifts=atoms.shifts[central],
        cells=atoms.cells[central],
    )


def test_one_layer_tells_angles_apart_that_vectors_do_not():
    """Squares and lines of neighbors have no vector; their matrices differ."""
    config = GNNConfig(num_channels=8, num_layers=1, cutoff=4.0, num_radial=4)
    square, lines = fan((0, 90, 180, 270)), fan((0, 60, 180, 240))
    for layer, differ in (("painn", False), ("tensornet", True)):
        model = drawn(EnergyModel(replace(config, layer=layer)))
        one, other = (model(atoms, atoms.edge_vectors())[0].item() for atoms in (square, lines))
        assert (abs(one - other) > 1e-6 * abs(one)) == differ
