"""Spectra in the plane: each wave where it belongs, and the sum of all the mean square."""

from __future__ import annotations

import numpy as np
import pytest

from domains.fluids.data.boundary import Boundary
from domains.fluids.figures.spectra import power_by_wavenumber

ROWS, COLUMNS, DX, DZ = 32, 64, 50.0, 100.0
PERIODIC = Boundary.of("periodic", "periodic")
KINDS = [PERIODIC, Boundary.of("periodic", "wall"), Boundary.of("open", "wall")]
Z, X = np.meshgrid((np.arange(ROWS) + 0.5) * DZ, (np.arange(COLUMNS) + 0.5) * DX, indexing="ij")


def spectrum(field, boundary=PERIODIC, dx=DX, dz=DZ):
    return power_by_wavenumber(field, dx, dz, boundary)


@pytest.mark.parametrize("boundary", KINDS, ids=["periodic", "channel", "box"])
def test_powers_add_up_to_the_mean_square(boundary):
    """Of smooth fields: what the whole annuli leave out is nothing."""
    rng = np.random.default_rng(0)
    field = 3.0 + sum(
        rng.normal() * np.cos(np.pi * m * Z / (ROWS * DZ)) * np.cos(np.pi * n * X / (COLUMNS * DX))
        for m in (0, 2, 4)
        for n in (0, 2, 4)
    )
    _, power = spectrum(field, boundary)
    assert power.sum() == pytest.approx(np.mean(field**2), rel=1e-12)


@pytest.mark.parametrize("boundary", KINDS, ids=["periodic", "channel", "box"])
def test_only_corners_are_missing_from_noise(boundary):
    noise = np.random.default_rng(0).standard_normal((16, ROWS, COLUMNS))
    wavenumber, power = spectrum(noise, boundary)
    disk = np.pi * (wavenumber[-1] + wavenumber[1] / 2) ** 2
    assert power.sum(-1).mean() / np.mean(noise**2) == pytest.approx(disk * DX * DZ, abs=0.03)


def test_a_wave_stands_at_its_wavenumber_in_any_direction():
    for m, n in ((0, 6), (6, 0), (3, 4)):
        wave = np.cos(2 * np.pi * (m * Z / (ROWS * DZ) + n * X / (COLUMNS * DX)))
        wavenumber, power = spectrum(wave)
        expected = np.hypot(m, n) / (ROWS * DZ)  # both axes are 3.2 km long
        assert wavenumber[power.argmax()] == pytest.approx(expected, abs=0.51 * wavenumber[1])
        assert power.max() == pytest.approx(0.5)


def test_annuli_end_at_the_smaller_nyquist_wavenumber():
    wavenumber, power = spectrum(np.zeros((2, ROWS, COLUMNS)))
    assert power.shape == (2, len(wavenumber))
    assert wavenumber[-1] + wavenumber[1] / 2 <= 0.5 / max(DX, DZ)
    assert wavenumber[-1] + 1.5 * wavenumber[1] > 0.5 / max(DX, DZ)


def test_a_slope_between_walls_has_no_power_at_small_scales():
    """Taken for periodic, it would jump."""
    slope = Z / Z.max()
    smallest = {name: spectrum(slope, Boundary.of("periodic", name))[1][-1] for name in ("periodic", "wall")}
    assert smallest["wall"] < 0.01 * smallest["periodic"]


def test_a_coarse_axis_leaves_no_annulus():
    wavenumber, power = spectrum(np.zeros((4, 64)), dx=1.0, dz=1e4)
    assert len(wavenumber) == power.shape[-1] == 0
