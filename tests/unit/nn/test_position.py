"""Positions are functions on the sphere: periodic, and dependent on differences where they should be."""

from __future__ import annotations

import math

import pytest
import torch

from sciml.nn.position import coordinate_rotary, fourier_features, patch_centers, rotary_harmonics, rotate

LATITUDE = torch.tensor([67.5, 22.5, -22.5, -67.5])
LONGITUDE = torch.arange(0, 360, 30.0)


def test_patch_centers():
    centers = patch_centers(LATITUDE, LONGITUDE, 2)
    assert torch.rad2deg(centers["latitude"]).tolist() == pytest.approx([45.0] * 6 + [-45.0] * 6)
    degrees = torch.rad2deg(centers["longitude"]) % 360
    assert degrees.tolist() == pytest.approx([15.0, 75.0, 135.0, 195.0, 255.0, 315.0] * 2)


def test_patch_across_the_meridian():
    centers = patch_centers(LATITUDE, torch.tensor([350.0, 358.0, 6.0, 14.0]), 4)
    assert (torch.rad2deg(centers["longitude"]) % 360).item() == pytest.approx(2.0)


@pytest.mark.parametrize("axes", [("latitude",), ("longitude", "latitude")])
def test_fourier_features(axes):
    centers = patch_centers(LATITUDE, LONGITUDE, 2)
    features = fourier_features(centers, axes, 3)
    assert features.shape == (12, 6 * len(axes))
    assert features[4, 1].item() == pytest.approx(math.sin(2 * centers[axes[0]][4].item()), abs=1e-6)
    around = {name: angle + 2 * math.pi for name, angle in centers.items()}
    torch.testing.assert_close(fourier_features(around, axes, 3), features)


def test_rotary_harmonics_are_integers_from_one_to_the_largest():
    harmonics = rotary_harmonics(8, 32)
    assert harmonics[0] == 1
    assert harmonics[-1] == 32
    assert harmonics == sorted(harmonics)
    assert all(isinstance(h, int) for h in harmonics)
    assert rotary_harmonics(1, 32) == [1]


@pytest.mark.parametrize("turns", [1.0, 0.3])
def test_attention_depends_on_longitude_differences_alone_and_is_periodic(turns):
    torch.manual_seed(0)
    coordinates = {"longitude": torch.rand(6, dtype=torch.float64) * 6, "latitude": torch.randn(6, dtype=torch.float64)}
    turned = {**coordinates, "longitude": coordinates["longitude"] + 2 * math.pi * turns}
    query, key = torch.randn(2, 1, 6, 2, 8, dtype=torch.float64)

    def logits(at_query, at_key):
        rotaries = [coordinate_rotary(at, ("longitude", "latitude"), 8, 16) for at in (at_query, at_key)]
        return torch.einsum("bihc,bjhc->bhij", rotate(query, rotaries[0]), rotate(key, rotaries[1]))

    here = logits(coordinates, coordinates)
    torch.testing.assert_close(logits(turned, turned), here, rtol=1e-5, atol=1e-5)
    apart = (logits(turned, coordinates) - here).abs().max()
    assert apart < 1e-5 if turns == 1.0 else apart > 0.1


@pytest.mark.parametrize(("axes", "head_dim"), [(("longitude",), 8), (("longitude", "latitude"), 10)])
def test_every_pair_of_a_head_is_turned(axes, head_dim):
    rotary = coordinate_rotary(patch_centers(LATITUDE, LONGITUDE, 2), axes, head_dim, 3)
    assert rotary.cos.shape == (12, 1, head_dim // 2)
    torch.testing.assert_close(rotary.cos.square() + rotary.sin.square(), torch.ones(12, 1, head_dim // 2))
    assert (rotary.sin.std(0) > 0.01).all()
