import numpy as np
import pytest

from domains.climate.data.regrid import LatLonGrid, Regridder, latitude_weights, longitude_weights
from domains.climate.data.schema import cell_area_weights
from sciml.core.errors import ConfigError


def global_mean(values: np.ndarray, grid: LatLonGrid) -> np.ndarray:
    return (values.mean(-1) * cell_area_weights(grid.latitude)).mean(-1)


def test_a_grid_is_longitudes_by_latitudes():
    grid = LatLonGrid.parse("64x32")
    assert grid.shape == (32, 64)
    np.testing.assert_allclose(grid.latitude[[0, 1, -1]], [87.1875, 81.5625, -87.1875])
    poles = LatLonGrid.parse("360x181")
    np.testing.assert_allclose(poles.latitude[[0, 1, -1]], [90, 89, -90])
    assert LatLonGrid.parse(grid.text).same_as(grid)


@pytest.mark.parametrize("text", ["64", "32x64", "64x32x2", "ax32"])
def test_another_form_is_refused(text):
    with pytest.raises(ConfigError, match=r"e\.g\. "):
        LatLonGrid.parse(text)


def test_equal_grids_are_left_alone_bit_for_bit():
    values = np.random.default_rng(0).standard_normal((3, 32, 64)).astype(np.float32)
    same = Regridder(LatLonGrid.parse("64x32"), LatLonGrid.parse("64x32"))
    assert same(values) is values


@pytest.mark.parametrize(
    ("source", "target"), [("360x181", "64x32"), ("240x121", "64x32"), ("64x32", "48x25"), ("16x8", "64x32")]
)
def test_the_integral_over_the_globe_is_conserved(source, target):
    old, new = LatLonGrid.parse(source), LatLonGrid.parse(target)
    values = np.random.default_rng(1).standard_normal((2, *old.shape)) + 5.0
    regridded = Regridder(old, new)(values)
    np.testing.assert_allclose(global_mean(regridded, new), global_mean(values, old), rtol=1e-13)
    np.testing.assert_allclose(Regridder(old, new)(np.full(old.shape, 3.25)), 3.25, rtol=1e-14)


@pytest.mark.parametrize("target", ["128x65", "360x181", "720x360"])
def test_a_finer_grid_has_no_steps_no_new_extremes_and_the_same_mean(target):
    old, new = LatLonGrid.parse("64x33"), LatLonGrid.parse(target)

    def smooth(grid: LatLonGrid) -> np.ndarray:
        latitude, longitude = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)
        return np.sin(latitude) + np.cos(latitude) * np.cos(2 * longitude + 1)

    regrid, inside = Regridder(old, new), np.abs(new.latitude) < 84  # the cells on the poles are flat
    found, true = regrid(smooth(old)), smooth(new)
    assert np.abs(found - true)[inside].max() < 0.02  # flat cells: 0.12 on the finer two
    assert np.abs(np.diff(found - true, axis=1))[inside].max() < 0.004  # flat cells: 0.14
    rough = np.random.default_rng(1).random(old.shape) ** 8  # like rain: mostly next to nothing
    fine = regrid(rough)
    assert rough.min() <= fine.min()
    assert fine.max() <= rough.max()
    np.testing.assert_allclose(global_mean(fine, new), global_mean(rough, old), rtol=1e-13)
    turned = regrid(np.roll(rough, 16, axis=-1))
    np.testing.assert_allclose(turned, np.roll(fine, new.shape[1] // 4, axis=-1), atol=1e-12)


def test_weights_are_the_exact_overlaps():
    # two latitude rows onto one half each of four: sin(45), worked by hand
    rows = latitude_weights(np.array([67.5, 22.5, -22.5, -67.5]), np.array([45.0, -45.0]))
    polar = 1 - np.sin(np.pi / 4)
    np.testing.assert_allclose(rows, [[polar, 1 - polar, 0, 0], [0, 0, 1 - polar, polar]], atol=1e-15)
    # cells centered at 0, 90, ... onto cells of 45 degrees centered at 0, 45, ...
    columns = longitude_weights(np.arange(0, 360, 90.0), np.arange(0, 360, 45.0))
    np.testing.assert_allclose(columns[0], [1, 0, 0, 0])
    np.testing.assert_allclose(columns[1], [0.5, 0.5, 0, 0])
    np.testing.assert_allclose(columns[7], [0.5, 0, 0, 0.5])


def test_parity_with_counting_fine_points():
    """Overlaps measured by brute force: many points in each target cell, each taking its source cell's value."""
    source, target = LatLonGrid.parse("24x13"), LatLonGrid.parse("10x6")
    values = np.random.default_rng(2).standard_normal(source.shape)
    points = 2000
    edges = np.sin(np.deg2rad(np.linspace(90, -90, 7)))
    source_edges = np.sin(np.deg2rad(np.concatenate([[90], (source.latitude[1:] + source.latitude[:-1]) / 2, [-90]])))
    offset = (np.arange(points) + 0.5) / points
    expected = np.empty(target.shape)
    for row in range(6):
        height = edges[row] + (edges[row + 1] - edges[row]) * offset
        rows = np.searchsorted(-source_edges, -height) - 1
        for column in range(10):
            degrees = target.longitude[column] - 18 + 36 * offset
            columns = np.round(degrees / 15).astype(int) % 24
            expected[row, column] = values[rows].mean(0)[columns].mean()
    np.testing.assert_allclose(Regridder(source, target)(values), expected, atol=2e-3)
