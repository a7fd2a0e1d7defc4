"""The repulsion of nuclei against its formula, its derivatives, and where it ends."""

from __future__ import annotations

import math

import pytest
import torch
from ase.data import covalent_radii

from sciml.nn.repulsion import ScreenedRepulsion

PAIR = torch.tensor([0, 1]), torch.tensor([1, 0])


def pair_energy(distance: torch.Tensor, numbers: tuple[int, int] = (28, 74), cutoff: float = 5.0) -> torch.Tensor:
    """The energy of two atoms, eV."""
    along = distance * torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    vectors = torch.stack([along, -along])
    return ScreenedRepulsion(cutoff)(torch.tensor(numbers), vectors, *PAIR).sum()


@pytest.mark.parametrize("numbers", [(1, 1), (28, 28), (28, 74)])
def test_it_is_the_universal_formula_where_atoms_overlap(numbers):
    r = 0.05  # where the switch is one to 1e-6
    length = 0.8854 * 0.529177 / (numbers[0] ** 0.23 + numbers[1] ** 0.23)
    shares = ((0.18175, 3.1998), (0.50986, 0.94229), (0.28022, 0.4029), (0.02817, 0.20162))
    screening = sum(share * math.exp(-decay * r / length) for share, decay in shares)
    expected = 14.399645 * numbers[0] * numbers[1] / r * screening
    assert pair_energy(torch.tensor(r, dtype=torch.float64), numbers).item() == pytest.approx(expected, rel=1e-5)


def test_it_falls_and_ends_smoothly_at_the_sum_of_radii():
    end = covalent_radii[28] + 0.75**0.5 * 3.16 / 2  # W's bonds are shorter than its covalent radius says
    distances = torch.linspace(0.4, end + 0.2, 200, dtype=torch.float64).requires_grad_()
    energies = torch.stack([pair_energy(one) for one in distances])
    assert (energies.diff()[distances[1:] < end] < 0).all()
    assert not energies[distances > end].any()
    near = torch.tensor(end - 1e-3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(pair_energy(near), near, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, near)
    assert abs(slope.item()) < 1e-3
    assert abs(curvature.item()) < 1.0
    assert pair_energy(torch.tensor(1.9, dtype=torch.float64), cutoff=2.0) > 0
    assert pair_energy(torch.tensor(2.1, dtype=torch.float64), cutoff=2.0) == 0


def test_its_derivatives_are_exact():
    x = torch.tensor([1.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda r: pair_energy(r[0]), (x,))
