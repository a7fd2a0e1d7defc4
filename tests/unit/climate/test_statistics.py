"""Streaming statistics against numpy over everything at once, in float64."""

import numpy as np
import pytest

from domains.climate.data.schema import cell_area_weights
from domains.climate.data.statistics import Moments, compute_statistics, increment_leads
from domains.climate.data.variables import find

LATITUDE = np.array([75.0, 45.0, 15.0, -15.0, -45.0, -75.0])
WEIGHTS = cell_area_weights(LATITUDE)


def fields_of(num_times: int, offset: float = 5.4e4) -> np.ndarray:
    generator = np.random.default_rng(0)
    walk = np.cumsum(generator.standard_normal((num_times, 3, 6, 8)), axis=0)
    return (offset + walk * np.array([1.0, 30.0, 300.0])[:, None, None]).astype(np.float32)


def moments_of(fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, weights = fields.astype(np.float64), np.broadcast_to(WEIGHTS[:, None], (6, 8))
    mean = np.array([np.average(values[:, c], weights=np.broadcast_to(weights, values[:, c].shape)) for c in range(3)])
    variance = [
        np.average((values[:, c] - mean[c]) ** 2, weights=np.broadcast_to(weights, values[:, c].shape))
        for c in range(3)
    ]
    return mean, np.sqrt(variance)


def stream(fields: np.ndarray, minutes: np.ndarray, max_bytes: float = 2**30):
    parts = list(compute_statistics(lambda t, c: fields[t, c], minutes, [find("t2m")] * 3, LATITUDE, 8, max_bytes))
    joined = {name: np.concatenate([getattr(p, name) for _, p in parts]) for name in ("mean", "std")}
    return (
        joined["mean"],
        joined["std"],
        parts[0][1].lead_hours,
        np.concatenate([p.increment_std for _, p in parts], 1),
        parts,
    )


@pytest.mark.parametrize("max_bytes", [2**30, 10])
def test_parity_with_numpy_over_everything(max_bytes):
    fields = fields_of(300)
    mean, std, leads, increments, parts = stream(fields, 360 * np.arange(300), max_bytes)
    assert len(parts) == (1 if max_bytes > 10 else 3)  # in groups of channels where memory is short
    expected_mean, expected_std = moments_of(fields)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-12)
    np.testing.assert_allclose(std, expected_std, rtol=1e-10)
    np.testing.assert_array_equal(leads, 6.0 * np.arange(1, 41))
    for steps in (1, 7, 12, 40):
        expected = moments_of(fields[steps:] - fields[:-steps])[1]
        np.testing.assert_allclose(increments[steps - 1], expected, rtol=1e-10)


def test_unevenly_spaced_times_pair_by_their_true_distance():
    hours = np.cumsum([7, 7, 7, 8] * 10)
    fields = fields_of(40)
    _, _, leads, increments, _ = stream(fields, 60 * hours)
    assert set(leads) <= {float(b - a) for a in hours for b in hours}
    lead = leads[3]
    pairs = [(i, j) for i, a in enumerate(hours) for j, b in enumerate(hours) if b - a == lead]
    differences = np.stack([fields[j] - fields[i] for i, j in pairs])
    np.testing.assert_allclose(increments[3], moments_of(differences)[1], rtol=1e-10)


def test_leads_are_thinned_and_end_with_the_period():
    assert increment_leads(60 * np.arange(10_000)).tolist() == [60, *(360 * np.arange(1, 41)).tolist()]
    assert increment_leads(720 * np.arange(6)).tolist() == [720, 1440, 2160, 2880]  # at least two pairs each
    assert increment_leads(720 * np.arange(300)).max() == 240 * 60


def test_merging_loses_no_digits_beside_a_large_mean():
    values = np.random.default_rng(1).standard_normal((1000, 1, 6, 8)) + 1e9
    whole, halves = Moments(1), Moments(1)
    whole.update(values, WEIGHTS)
    for part in np.split(values, 10):
        halves.update(part, WEIGHTS)
    np.testing.assert_allclose(halves.std, whole.std, rtol=1e-9)
    np.testing.assert_allclose(whole.std, 1.0, rtol=0.02)
