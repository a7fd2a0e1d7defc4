"""Functions of the distance against formulas, and where they end."""

from __future__ import annotations

import math

import pytest
import torch

from sciml.nn.radial import RadialBasis, envelope


def test_envelope_falls_from_one_to_zero():
    lengths = torch.linspace(0, 5, 200, dtype=torch.float64)
    values = envelope(lengths, 5.0)
    assert values[0] == 1
    assert values[-1] == 0
    assert (values.diff() <= 0).all()
    assert not envelope(torch.tensor([5.0, 5.1, 80.0]), 5.0).any()


@pytest.mark.parametrize("exponent", [3, 5, 8])
def test_envelope_has_two_derivatives_that_vanish_at_the_cutoff(exponent):
    r = torch.tensor(4.0 - 1e-9, dtype=torch.float64, requires_grad=True)
    derivatives = [envelope(r, 4.0, exponent)]
    for _ in range(3):
        derivatives.append(torch.autograd.grad(derivatives[-1], r, create_graph=True)[0])
    assert all(abs(d.item()) < 1e-6 for d in derivatives[:3])
    assert abs(derivatives[3].item()) > 0.1


def test_bessel_functions_are_orthonormal_in_a_sphere():
    r = (torch.arange(20000, dtype=torch.float64) + 0.5) * (3.0 / 20000)
    values = RadialBasis("bessel", 5, 3.0)(r)
    products = torch.einsum("ri,rj,r->ij", values, values, r.square()) * (3.0 / 20000)
    torch.testing.assert_close(products, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-6)


def test_gaussians_stand_a_width_apart_up_to_the_cutoff():
    values = RadialBasis("gaussian", 4, 3.0)(torch.tensor([0.0, 1.0, 2.0, 3.0]))
    distance = torch.arange(4.0)[:, None] - torch.arange(4.0)
    torch.testing.assert_close(values, torch.exp(-distance.square() / 2))
    assert values[1, 2].item() == pytest.approx(math.exp(-0.5))
