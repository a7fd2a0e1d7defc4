"""Scores of extremes and of cyclones, against values computed by hand and case by case."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from domains.climate.data.schema import ClimateSchema, cell_area_weights
from domains.climate.data.states import States
from domains.climate.forecast.cases import ScoredCases
from domains.climate.forecast.cyclones import Cyclones, minima
from domains.climate.forecast.extremes import Extremes, roc_area, thresholds_of
from sciml.domain.score import Score

LATITUDE = tuple(np.linspace(87.5, -87.5, 36))
LONGITUDE = tuple(np.arange(0, 360, 5.0))
SCHEMA = ClimateSchema(("msl", "t2m", "u10", "v10"), (), LATITUDE, LONGITUDE, 12.0)
AREA = torch.from_numpy(cell_area_weights(LATITUDE))[:, None]


def table(scores: list[Score]) -> dict:
    return {(score.variable, score.metric.name, score.lead_time_h): score.value for score in scores}


@pytest.fixture
def cases():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(6, 4, 36, 72))
    ensemble = 0.7 * truth[:, None] + rng.normal(size=(6, 5, 4, 36, 72))
    known = np.ones(truth.shape, dtype=bool)
    known[2, 1, :9] = False
    as_tensors = [torch.from_numpy(array) for array in (truth, ensemble.mean(1), ensemble, known)]
    return ScoredCases(torch.tensor([0, 1, 0, 1, 0, 1]), *as_tensors)


def test_probabilities_of_events_are_judged_cell_by_cell(cases):
    thresholds = {"t2m": torch.full((36, 72), 1.2), "wind10": torch.full((36, 72), 2.0)}
    extremes = Extremes(SCHEMA.channels, thresholds, 5, AREA, [24.0, 48.0])
    for part in (slice(0, 4), slice(4, 6)):
        extremes.update(
            ScoredCases(*(getattr(cases, n)[part] for n in ("lead", "truth", "fields", "ensemble", "known")))
        )
    found = table(extremes.scores())
    truth, ensemble, known = cases.truth.numpy(), cases.ensemble.numpy(), cases.known.numpy()
    winds = np.hypot(truth[:, 2], truth[:, 3]), np.hypot(ensemble[:, :, 2], ensemble[:, :, 3])
    values = {
        "t2m": (truth[:, 1], ensemble[:, :, 1], known[:, 1], 1.2),
        "wind10": (*winds, known[:, 0], 2.0),
    }
    for name, (observed, members, is_known, threshold) in values.items():
        at = slice(0, 6, 2)
        weights = (np.broadcast_to(AREA.numpy(), observed.shape) * is_known)[at].ravel()
        event, share = (observed > threshold)[at].ravel(), (members > threshold).mean(1)[at].ravel()
        assert found[name, "brier_p95", 24.0] == pytest.approx(np.average((share - event) ** 2, weights=weights))
        quantile = np.quantile(members, 0.95, axis=1)[at].ravel()
        error = observed[at].ravel() - quantile
        pinball = np.where(error > 0, 0.95 * error, -0.05 * error)
        assert found[name, "quantile_score_p95", 24.0] == pytest.approx(np.average(pinball, weights=weights))
        # the area below the curve of hit rate against false alarm rate, threshold by threshold
        rates = [
            (np.average(share >= p, weights=weights * ~event), np.average(share >= p, weights=weights * event))
            for p in (1.1, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
        ]
        area = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(rates))
        assert found[name, "roc_area_p95", 24.0] == pytest.approx(area)
        assert 0.6 < area < 1


def test_a_forecast_that_says_yes_or_no_has_a_curve_of_one_point():
    none, event = torch.tensor([80.0, 0, 20.0]), torch.tensor([3.0, 0, 7.0])
    assert roc_area(none, event) == pytest.approx((1 + 0.7 - 0.2) / 2)


class Training(States):
    """Stands for a store: states that count up."""

    schema = SCHEMA
    statistics = None

    def indices(self, split):
        return np.arange(101)

    def read(self, positions):
        counts = np.asarray(positions, dtype=np.float32)[:, None, None, None]
        return (
            counts * np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32)[:, None, None] * np.ones((4, 36, 72), np.float32)
        )


def test_thresholds_are_percentiles_of_the_training():
    found = thresholds_of(Training())
    assert found["t2m"].shape == (36, 72)
    assert found["t2m"].unique().tolist() == [190.0]
    assert found["wind10"].numpy() == pytest.approx(475.0)


def low(latitude: float, longitude: float, depth: float = 3000.0, width_km: float = 800.0) -> np.ndarray:
    phi, lam = np.deg2rad(np.array(LATITUDE))[:, None], np.deg2rad(np.array(LONGITUDE))[None]
    p, q = np.deg2rad(latitude), np.deg2rad(longitude)
    cosine = np.sin(phi) * np.sin(p) + np.cos(phi) * np.cos(p) * np.cos(lam - q)
    return -depth * np.exp(-((6371 * np.arccos(np.clip(cosine, -1, 1)) / width_km) ** 2))


def test_minima_are_found_across_the_meridian_and_shallow_or_polar_ones_are_not():
    field = 1e5 + low(52.5, 0.0) + low(-42.5, 180.0) + low(47.5, 90.0, depth=100.0) + low(2.5, 60.0) + low(87.5, 0.0)
    found = minima(torch.from_numpy(field)[None], np.array(LATITUDE), np.array(LONGITUDE), 300.0)[0].numpy()
    places = {(round(LATITUDE[row], 1), LONGITUDE[column]) for row, column in zip(*np.nonzero(found), strict=True)}
    assert places == {(52.5, 0.0), (-42.5, 180.0)}


def test_a_flat_minimum_of_packed_data_is_one():
    """In steps of 500 Pa several cells around each minimum are equally low; each was counted."""
    field = 500 * np.round((1e5 + low(52.5, 2.5) + low(-42.5, 357.5) + low(-42.5, 180.0)) / 500)
    assert (field[np.array(LATITUDE) > 0] == field[np.array(LATITUDE) > 0].min()).sum() > 1
    found = minima(torch.from_numpy(field)[None], np.array(LATITUDE), np.array(LONGITUDE), 300.0)[0].numpy()
    rows, _ = np.nonzero(found)
    assert [LATITUDE[row] > 0 for row in rows] == [True, False, False]


def test_cyclones_are_hit_missed_and_made_up():
    truth = 1e5 + low(52.5, 0.0) + low(-42.5, 180.0) + low(42.5, 200.0)
    near = 1e5 + low(52.5, 10.0) + low(-42.5, 180.0) + low(-52.5, 40.0)  # one 10 degrees off, one missed, one false
    members = torch.zeros(1, 2, 4, 36, 72, dtype=torch.float64)
    members[0, 0, 0], members[0, 1, 0] = torch.from_numpy(near), torch.from_numpy(truth)
    whole = torch.zeros(1, 4, 36, 72, dtype=torch.float64)
    whole[0, 0] = torch.from_numpy(truth)
    cyclones = Cyclones(SCHEMA, torch.full((4,), 1000.0), [24.0])
    cyclones.update(ScoredCases(torch.tensor([0]), whole, members.mean(1), members))
    found = table(cyclones.scores())
    off = np.rad2deg(np.arccos(np.sin(np.deg2rad(52.5)) ** 2 + np.cos(np.deg2rad(52.5)) ** 2 * np.cos(np.deg2rad(10))))
    assert found["msl", "cyclone_hit_rate", 24.0] == pytest.approx(5 / 6)
    assert found["msl", "cyclone_false_alarms", 24.0] == pytest.approx(1 / 6)
    assert found["msl", "cyclone_position_error", 24.0] == pytest.approx(off * 111.195 / 5, rel=1e-6)
    whole[0, 0, LATITUDE.index(42.5), LONGITUDE.index(200.0)] = torch.nan
    gaps = Cyclones(SCHEMA, torch.full((4,), 1000.0), [24.0])  # near what is not known there are none in either
    gaps.update(ScoredCases(torch.tensor([0]), whole, members.mean(1), members))
    found = table(gaps.scores())
    assert found["msl", "cyclone_hit_rate", 24.0] == 1
    assert found["msl", "cyclone_false_alarms", 24.0] == pytest.approx(1 / 5)
    assert Cyclones.fits(replace(SCHEMA, gaps=SCHEMA.channels))  # as all other data that are scored have them
    assert not Cyclones.fits(ClimateSchema(("t2m",), (), LATITUDE, LONGITUDE, 12.0))
    assert not Cyclones.fits(ClimateSchema(("msl",), (), LATITUDE[:9], LONGITUDE[:9], 12.0))
