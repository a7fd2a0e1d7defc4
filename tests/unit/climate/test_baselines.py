"""Baselines: the trivial ones are exact, and ridge regression is as strong as theory says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from domains.climate.data.batch import FieldBatch
from domains.climate.data.schema import ClimateSchema, ClimateStatistics, cell_area_weights
from domains.climate.forecast.baselines import RidgeBaseline, climatology, persistence
from sciml.core.errors import DataError

SCHEMA = ClimateSchema(("z500", "t2m"), (), tuple(np.linspace(78.75, -78.75, 8)), tuple(np.arange(0, 360, 22.5)), 6.0)
SHAPE = (2, 8, 16)
OFFSET = np.array([54_000.0, 280.0], dtype=np.float32)[:, None, None]
SCALE = np.array([900.0, 8.0], dtype=np.float32)[:, None, None]
STEP = 6.0


def statistics_of(states: np.ndarray) -> ClimateStatistics:
    return ClimateStatistics(
        mean=torch.from_numpy(states.mean((0, 2, 3))),
        std=torch.from_numpy(states.std((0, 2, 3))),
        lead_hours=torch.tensor([72.0]),
        increment_std=torch.ones(1, 2),
        statics=torch.zeros(0, *SHAPE[1:]),
    )


def linear_world(num_times: int, modes: int = 6, noise: float = 0.0) -> np.ndarray:
    """Rotating, slowly exchanging patterns: x(t + 1) is a fixed linear map of x(t), plus noise."""
    rng = np.random.default_rng(11)
    patterns = rng.standard_normal((modes, *SHAPE))
    rotation = np.linalg.qr(rng.standard_normal((modes, modes)))[0]
    state = rng.standard_normal(modes)
    states = []
    for _ in range(num_times):
        states.append(np.tensordot(state, patterns, 1))
        state = rotation @ state + noise * rng.standard_normal(modes)
        state /= np.sqrt((state**2).mean())
    return (OFFSET + SCALE * np.array(states)).astype(np.float32)


def ridge_on(states: np.ndarray, times: np.ndarray | None = None, **options) -> RidgeBaseline:
    times = STEP * np.arange(len(states)) if times is None else times
    return RidgeBaseline(lambda positions: states[positions], times, SCHEMA, statistics_of(states), **options)


def batch_from(states: np.ndarray, lead: float | list[float]) -> FieldBatch:
    initial = torch.from_numpy(states)
    hours = torch.as_tensor(lead, dtype=torch.float64).expand(len(states))
    zero = torch.zeros(len(states), dtype=torch.float64)
    return FieldBatch(initial, initial, zero, zero, hours[:, None])


def relative_error(forecast: torch.Tensor, truth: np.ndarray) -> float:
    weights = np.sqrt(cell_area_weights(SCHEMA.latitude))[:, None] / SCALE
    return float(np.linalg.norm((forecast.numpy() - truth) * weights) / np.linalg.norm((truth - OFFSET) * weights))


def test_persistence_starts_from_the_initial_state_however_far_the_rollout_is():
    states = linear_world(3)
    batch = dataclasses.replace(batch_from(states, 12.0), state=torch.zeros(3, *SHAPE))
    assert torch.equal(persistence(batch).values["fields"], torch.from_numpy(states))


def test_climatology_is_asked_for_the_valid_time():
    asked = []

    def normal(hours: np.ndarray) -> np.ndarray:
        asked.append(hours)
        return np.ones((len(hours), *SHAPE), dtype=np.float64) * hours[:, None, None, None]

    batch = dataclasses.replace(batch_from(linear_world(2), 24.0), init_time=torch.tensor([1000.0, 2000.0]).double())
    fields = climatology(normal)(batch).values["fields"]
    assert fields.dtype == torch.float32
    np.testing.assert_array_equal(asked[0], [1024.0, 2024.0])
    assert fields[1, 0, 0, 0] == 2024.0


def test_ridge_is_near_exact_on_a_linear_system():
    states = linear_world(260)
    ridge = ridge_on(states[:200])
    forecast = ridge(batch_from(states[210:240], 72.0)).values["fields"]
    assert relative_error(forecast, states[222:252]) < 1e-4
    # As many components as the states have and none of rounding noise; the intercept lies below them.
    assert ridge.operator(72.0).shape == (7, 6)


def test_samples_of_different_leads_are_forecast_each_at_its_own():
    states = linear_world(260)
    forecast = ridge_on(states[:200])(batch_from(states[[210, 211]], [12.0, 72.0])).values["fields"]
    assert relative_error(forecast, states[[212, 223]]) < 1e-4


def test_noise_is_shrunk_and_not_learned_by_heart():
    """With few pairs and pure noise the best forecast is the mean; least squares would be far worse."""
    rng = np.random.default_rng(2)
    states = (OFFSET + SCALE * rng.standard_normal((200, *SHAPE))).astype(np.float32)
    forecast = ridge_on(states[:120])(batch_from(states[130:150], 24.0)).values["fields"]
    assert relative_error(forecast, states[134:154]) < 1.03


def test_it_beats_persistence_and_the_mean_on_a_noisy_linear_system():
    states = linear_world(700, noise=0.35)
    batch, truth = batch_from(states[610:680], 12.0), states[612:682]
    error = relative_error(ridge_on(states[:600])(batch).values["fields"], truth)
    assert error < relative_error(batch.initial, truth)
    assert error < relative_error(torch.from_numpy(states[:600].mean(0)), truth)


def test_memory_is_bounded_by_the_number_of_states():
    states, most = linear_world(300), []

    def read(positions: np.ndarray) -> np.ndarray:
        most.append(len(positions))
        return states[positions]

    ridge = RidgeBaseline(read, STEP * np.arange(300), SCHEMA, statistics_of(states), max_states=40)
    forecast = ridge(batch_from(states[100:110], 12.0)).values["fields"]
    assert max(most) <= 64
    assert sum(most) == 40 + 300  # once for the components, once to project every training state
    assert relative_error(forecast, states[102:112]) < 1e-4


def test_a_gap_in_time_makes_no_pairs_across_it():
    states = linear_world(200)
    kept = np.r_[0:80, 100:200]
    ridge = ridge_on(states[kept], STEP * kept)
    assert ridge.num_pairs(72.0) == (80 - 12) + (100 - 12)
    forecast = ridge(batch_from(states[150:160], 72.0)).values["fields"]
    assert relative_error(forecast, states[162:172]) < 1e-4


def test_a_lead_without_pairs_is_refused_in_a_sentence():
    with pytest.raises(DataError, match="72 h apart; there are 8"):
        ridge_on(linear_world(20)).operator(72.0)


def test_the_cache_is_used_and_not_trusted_for_other_data(tmp_path):
    states = linear_world(120)
    cache = tmp_path / "ridge.safetensors"
    first = ridge_on(states, cache=cache)
    operator = first.operator(24.0)

    def refuse(positions: np.ndarray) -> np.ndarray:
        raise AssertionError("the cache should have been enough")

    again = RidgeBaseline(refuse, first.times, SCHEMA, statistics_of(states), cache=cache)
    assert torch.equal(again.operator(24.0), operator)
    assert again.operator(12.0).shape == operator.shape  # a new lead needs the kept scores only
    batch = batch_from(states[50:52], 24.0)
    assert torch.equal(again(batch).values["fields"], first(batch).values["fields"])
    other = RidgeBaseline(refuse, first.times + 6, SCHEMA, statistics_of(states), cache=cache)
    with pytest.raises(AssertionError, match="enough"):
        other.operator(24.0)
    cache.write_bytes(cache.read_bytes()[:100])
    assert ridge_on(states, cache=cache).operator(24.0).shape == operator.shape


def test_ridge_knows_cells_that_have_no_value_at_some_times():
    """The mean map is that of the values that are there, so one that lacks leaves no hole in every forecast."""
    whole = linear_world(200)
    states = whole.copy()
    states[::7, 1, 3, 5] = np.nan
    states[:, 1, 0, 0] = np.nan
    ridge = RidgeBaseline(lambda at: states[at], STEP * np.arange(200), SCHEMA, statistics_of(whole))
    forecast = ridge(batch_from(states[150:151], 6.0)).values["fields"].numpy()[0]
    assert np.isnan(forecast).sum() == 1  # the cell that never has one
    reference = ridge_on(whole)(batch_from(whole[150:151], 6.0)).values["fields"].numpy()[0]
    assert np.nanmax(np.abs(forecast - reference) / SCALE) < 0.1
