"""Paths of minima: what moves is followed, what jumps is not, and tracks cross the meridian."""

from dataclasses import replace

import numpy as np
import pytest

from domains.climate.data.schema import ClimateSchema
from domains.climate.figures.projection import EqualEarth
from domains.climate.figures.tracks import _pieces, draw_tracks, tracks_in_words
from domains.climate.forecast.example import WeatherExample
from domains.climate.forecast.tracks import ComparedTracks, distance_km, find_tracks

LATITUDE = tuple(np.arange(87.5, -90, -5.0))
LONGITUDE = tuple(np.arange(0.0, 360, 5.0))
HOURS = (0.0, 12.0, 24.0, 36.0)


def low(latitude, longitude, depth=3000.0, width_km=800.0):
    phi, lam = np.deg2rad(np.array(LATITUDE))[:, None], np.deg2rad(np.array(LONGITUDE))[None]
    p, q = np.deg2rad(latitude), np.deg2rad(longitude)
    cosine = np.sin(phi) * np.sin(p) + np.cos(phi) * np.cos(p) * np.cos(lam - q)
    return -depth * np.exp(-((6371 * np.arccos(np.clip(cosine, -1, 1)) / width_km) ** 2))


def states(*places):
    """Fields of several times, each with minima at the given places."""
    return np.array([1e5 + sum(low(*place) for place in at) for at in places])


EASTWARD = [(52.5, 350.0), (52.5, 355.0), (52.5, 0.0), (47.5, 5.0)]
STILL = [(-42.5, 180.0)] * 4


def test_minima_that_move_are_followed_over_the_meridian():
    tracks = find_tracks(states(*zip(EASTWARD, STILL, strict=True)), HOURS, LATITUDE, LONGITUDE, 300.0)
    places = [list(zip(track.latitude, track.longitude, strict=True)) for track in tracks]
    assert places == [EASTWARD, STILL]
    assert tracks[0].hours == list(HOURS)
    assert tracks[0].value[0] == pytest.approx(97_000, abs=1)


@pytest.mark.parametrize("step", [1.0, 3.0, 6.0])
def test_one_that_moves_by_cells_is_followed_whatever_the_step(step):
    """40 km/h along 52.5 N are 0.59 degrees an hour: the lowest cell of 5 degrees changes every few hours, at once."""
    hours = np.arange(0.0, 48.0, step)
    east = 40 * hours / (111.195 * np.cos(np.deg2rad(52.5)))
    (track,) = find_tracks(states(*([(52.5, lon)] for lon in east)), hours, LATITUDE, LONGITUDE, 300.0)
    assert track.hours == list(hours)
    assert np.abs(np.array(track.longitude) - east).max() <= 2.5


def test_one_that_is_faster_than_any_cyclone_is_not_followed_cell_by_cell():
    racing = states(*([(52.5, 5.0 * number)] for number in range(8)))  # 340 km/h
    tracks = find_tracks(racing, np.arange(8.0), LATITUDE, LONGITUDE, 300.0)
    assert max(len(track.hours) for track in tracks) == 3  # 677 km in 2 h are 120 km and less than a cell's 650


def test_one_that_jumps_is_another():
    jumping = states([(52.5, 0.0)], [(52.5, 0.0)], [(52.5, 60.0)], [(52.5, 60.0)])
    tracks = find_tracks(jumping, HOURS, LATITUDE, LONGITUDE, 300.0)
    assert [track.hours for track in tracks] == [[0.0, 12.0], [24.0, 36.0]]


def test_two_that_are_near_one_another_do_not_share_a_place():
    two = states([(52.5, 0.0), (52.5, 25.0)], [(52.5, 5.0), (52.5, 30.0)])
    tracks = find_tracks(two, HOURS[:2], LATITUDE, LONGITUDE, 300.0)
    assert [track.longitude for track in tracks] == [[0.0, 5.0], [25.0, 30.0]]


def test_distances():
    assert distance_km((0.0, 359.0), (0.0, 1.0)) == pytest.approx(2 * 111.195)
    assert distance_km((60.0, 10.0), (61.0, 10.0)) == pytest.approx(111.195)


@pytest.fixture
def example():
    """The forecast lets the first minimum lag behind by 5 degrees at the end, and has lost the second by then."""
    schema = ClimateSchema(("msl", "t2m"), (), LATITUDE, LONGITUDE, 12.0)
    truth = states(*zip(EASTWARD, STILL, strict=True))
    forecast = states([EASTWARD[0], STILL[0]], [EASTWARD[1], STILL[1]], [EASTWARD[2]], [(47.5, 0.0)])
    both = [np.stack([fields, fields], axis=1) for fields in (truth, forecast)]
    return WeatherExample(
        schema=schema, init_time=412_010.0, lead_times=np.array(HOURS[1:]), initial=both[0][0], truth=both[0][1:],
        forecast=both[1][1:],
    )  # fmt: skip


def test_a_forecast_is_compared_with_the_truth(example, tmp_path):
    compared = ComparedTracks.of(example)
    assert [track.hours for track in compared.forecast] == [[0.0, 12.0, 24.0, 36.0], [0.0, 12.0]]
    assert len(compared.pairs) == 2
    distances = compared.distances()
    assert [len(distances[lead]) for lead in HOURS[1:]] == [2, 1, 1]
    assert distances[36.0] == [pytest.approx(distance_km((47.5, 0.0), (47.5, 5.0)))]
    assert tracks_in_words(compared) == (
        "2 are followed through the forecast and 2 through the truth. 2 begin together; 36 h ahead one of them is "
        "376 km apart."
    )
    assert draw_tracks(example, compared, tmp_path / "tracks").stat().st_size > 10_000


def test_minima_are_as_deep_as_scores_want_them(example):
    """The first field alone has a spread of 390 Pa; in the training it was 12,000, and 3,000 Pa are no depth."""
    assert ComparedTracks.of(replace(example, std=np.array([12_000.0, 1.0]))).forecast == []
    assert len(ComparedTracks.of(replace(example, std=np.array([390.0, 1.0]))).forecast) == 2


def test_a_map_is_not_crossed_by_a_line():
    pieces = _pieces(np.array([50.0, 50.0, 50.0]), np.array([175.0, 179.0, -178.0]), EqualEarth())
    assert [len(latitude) for latitude, _ in pieces] == [2, 1]


def test_without_pressure_there_are_none(example):
    schema = ClimateSchema(("t2m",), (), LATITUDE, LONGITUDE, 12.0)
    without = WeatherExample(
        schema=schema, init_time=0.0, lead_times=example.lead_times, initial=example.initial[1:],
        forecast=example.forecast[:, 1:], truth=None,
    )  # fmt: skip
    assert ComparedTracks.of(without) is None
