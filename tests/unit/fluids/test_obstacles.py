"""Obstacles that files do not name: told from fluid at rest by what passes them, and by what changes in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from domains.fluids.data.readers.obstacles import obstacles

NAMES = ("u", "v", "p")
ROWS, COLUMNS = 10, 24
BLOCK = np.zeros((ROWS, COLUMNS), dtype=bool)
BLOCK[3:7, 8:12] = True
INNER = np.zeros_like(BLOCK)
INNER[4:6, 9:11] = True


@dataclass(frozen=True)
class GivenFrames:
    """Frames in memory, (time, u v p, z, x)."""

    values: np.ndarray

    def read(self, times, variables):
        return self.values[times][:, [NAMES.index(name) for name in variables]]


def found(values, names=NAMES, winds=NAMES[:2]):
    return obstacles(GivenFrames(values), len(values), names, winds)


def stream(frames: int, front: float | None = None) -> np.ndarray:
    """A random flow, which comes from the left where there is a front: until then the air is at rest, its pressure 1.

    Args:
        front: cells by which it moves on in a frame.
    """
    values = np.random.default_rng(0).normal(size=(frames, 3, ROWS, COLUMNS)) + 3
    if front is not None:
        for frame in range(frames):
            ahead = np.arange(COLUMNS) >= 2 + front * frame
            values[frame, :2, :, ahead] = 0
            values[frame, 2, :, ahead] = 1
    return values


@pytest.mark.parametrize("frames", [2, 3, 5, 40])
def test_air_that_no_front_has_reached_is_no_obstacle(frames):
    assert found(stream(frames, front=15 / frames)) is None


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 40])
def test_what_the_flow_passes_is_one(frames):
    values = stream(frames)
    values[:, :, BLOCK] = 0
    np.testing.assert_array_equal(found(values), BLOCK)


def test_a_flow_that_begins_at_its_inlet_shows_its_obstacle():
    values = stream(9, front=6)
    values[:, :, BLOCK] = 0
    np.testing.assert_array_equal(found(values), BLOCK)


def test_pressure_on_the_side_of_an_obstacle_is_kept():
    values = stream(6)
    values[:, :2, BLOCK] = 0
    values[:, 2, INNER] = 1
    np.testing.assert_array_equal(found(values), INNER)
    np.testing.assert_array_equal(found(values, NAMES[:2]), BLOCK)


def test_heat_that_spreads_in_calm_air_is_kept():
    values = stream(6)
    values[:, :2, :4] = 0
    assert found(values) is None


def test_an_obstacle_and_a_front_elsewhere_are_told_apart():
    values = np.concatenate([stream(8), stream(8, front=1)], axis=3)
    values[:, :, :, :COLUMNS][:, :, BLOCK] = 0
    np.testing.assert_array_equal(found(values), np.pad(BLOCK, ((0, 0), (0, COLUMNS))))


def test_zeros_of_scalars_tell_nothing_and_missing_values_do():
    values = stream(3)
    values[:, :, 0] = 0
    values[:, :, 2, 3] = np.nan
    assert np.argwhere(found(values, winds=None)).tolist() == [[2, 3]]
