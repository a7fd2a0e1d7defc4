"""Convolutions on the sphere: each spherical harmonic is multiplied by the weight of its degree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y

from sciml.core.errors import ConfigError
from sciml.models.fno import FNOConfig
from sciml.nn.spherical import SphericalConv, harmonics
from sciml.nn.topology import Sphere
from tests.unit.models.test_field_models import ON_Z, PLANES, drawn, fields_of, inputs_of

GRIDS = {"between poles": (24, 48, (False, False)), "on both poles": (25, 48, (True, True)),
         "on one pole": (24, 47, (True, False)), "coarse along rows": (12, 64, (False, False))}  # fmt: skip


def field(rows, columns, on_poles, degree, order):
    first, last = (0.0 if on_pole else 0.5 for on_pole in on_poles)
    theta = np.pi * (np.arange(rows) + first) / (rows - 1 + first + last)
    phi = 2 * np.pi * np.arange(columns) / columns
    return torch.from_numpy(sph_harm_y(degree, order, theta[:, None], phi).real)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_harmonic_is_multiplied_by_the_weight_of_its_degree(grid):
    rows, columns, on_poles = grid
    conv = SphericalConv(1, 6).double()
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, :, 0] = torch.arange(1.0, 7.0)
    for degree in range(min(8, rows - 5)):  # higher ones look like lower ones on so few rows
        for order in range(degree + 1):
            wave = field(rows, columns, on_poles, degree, order)[None, None]
            expected = (degree + 1) * wave if degree < 6 and degree < (rows + 1) // 2 else 0 * wave
            torch.testing.assert_close(conv(wave, Sphere(on_poles)), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rows", [16, 181, 721])
def test_rows_weigh_what_they_cover(rows):
    basis = harmonics(rows, 32, 4, (rows % 2 == 1,) * 2, torch.float64)
    weights = (basis.weights[0, 0] / basis.values[0, 0]) / (2 * np.pi)
    assert weights.min() > 0
    assert weights.sum().item() == pytest.approx(2.0, rel=1e-10)


def test_an_operator_of_harmonics_serves_any_globe_and_no_plane():
    config = FNOConfig(width=8, depth=2, degrees=5, **ON_Z)
    model, fields = drawn(config), fields_of(16, 32)
    found = model(inputs_of(fields, Sphere()))
    turned = model(inputs_of(fields.roll(5, -1), Sphere()))
    torch.testing.assert_close(turned, found.roll(5, -1), rtol=1e-6, atol=1e-6)
    assert model(inputs_of(fields_of(9, 20), Sphere((True, True)))).isfinite().all()
    with pytest.raises(ConfigError, match=r"model.degrees: the grid covers no sphere"):
        model(inputs_of(fields, PLANES["channel"]))
    with pytest.raises(ConfigError, match=r"model.square: spherical harmonics are those of single cells"):
        FNOConfig(square=2, degrees=5)
