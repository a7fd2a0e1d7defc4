from dataclasses import replace

import numpy as np
import pytest
import torch

from domains.climate.data.batch import FieldSample, collate
from domains.climate.data.schema import ClimateSchema, ClimateStatistics
from domains.climate.domain import _is_as_scored
from domains.climate.forecast.calibration import EnsembleCalibration, EnsembleMoments, Octaves
from domains.climate.forecast.ensemble import EnsembleTask
from domains.climate.model.loss import LossConfig
from domains.climate.model.task import ClimateTaskConfig
from sciml.domain.forecasting import ForecastRequest
from sciml.domain.protocol import Prediction
from sciml.forecast.members import balanced_crps

ROWS, COLUMNS, MEMBERS = 6, 16, 4
GLOBE = ClimateSchema(
    channels=("t2m", "sst"), statics=(), latitude=tuple(np.linspace(75, -75, ROWS)),
    longitude=tuple(np.arange(COLUMNS) * 360 / COLUMNS), step_hours=12.0, gaps=("sst",),
)  # fmt: skip
REGION = replace(GLOBE, longitude=tuple(np.arange(COLUMNS) * 2.0))
COSINE = torch.cos(torch.deg2rad(torch.tensor(GLOBE.latitude)))[:, None]
AREA = COSINE / COSINE.mean()


def fields(*shape, seed=0):
    return torch.randn(*shape, ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch_of(truth, hours=24.0):
    samples = [FieldSample(0 * one, 0.0, (hours,), one[None]) for one in truth]
    return collate(samples)


@pytest.mark.parametrize("schema", [GLOBE, REGION], ids=["globe", "region"])
def test_octaves_add_up_to_the_mean_product_and_scale_fields_apart(schema):
    octaves, x, y = Octaves(schema, AREA), fields(3), fields(3, seed=1)
    product = octaves.product(x, y)
    torch.testing.assert_close(product.sum(-1), (x * y * AREA).mean((-2, -1)))
    ones = torch.ones(3, len(octaves.first), dtype=torch.float64)
    torch.testing.assert_close(octaves.scaled(x, ones), x)
    torch.testing.assert_close(octaves.product(octaves.scaled(x, 2 * ones), y), 2 * product)


def test_an_octave_has_its_own_waves_alone():
    octaves = Octaves(GLOBE, AREA)
    assert octaves.first == [0, 1, 2, 4, 8]
    angle = torch.arange(COLUMNS, dtype=torch.float64) * 2 * torch.pi / COLUMNS
    for wave, octave in ((0, 0), (1, 1), (3, 2), (5, 3), (7, 3), (8, 4)):
        power = octaves.product(torch.cos(wave * angle).expand(ROWS, -1), torch.cos(wave * angle).expand(ROWS, -1))
        assert power.argmax() == octave
        assert power[octave] == pytest.approx(1.0 if wave in (0, 8) else 0.5)
        assert power.sum() == pytest.approx(power[octave])


def forecasts(octaves, cases=400):
    """Ensembles whose means are too strong by other factors in each octave, with spreads that are too small."""
    shares = torch.tensor([[1.0, 0.9, 0.6, 0.3, 0.1]], dtype=torch.float64)
    mean = fields(cases, 2)
    truth = octaves.scaled(mean, shares.expand(cases, 2, -1)) + 0.5 * fields(cases, 2, seed=1)
    noise = 0.2 * fields(cases, MEMBERS, 2, seed=2)
    return shares, truth, mean[:, None] + noise - noise.mean(1, keepdim=True)


def test_spread_becomes_error_and_power_the_truths_in_every_octave():
    octaves = Octaves(GLOBE, AREA)
    shares, truth, ensemble = forecasts(octaves)
    moments = EnsembleMoments(octaves, GLOBE.channels, (24.0,), (True, False))
    for part in range(4):  # as ranks and batches would
        rows = slice(100 * part, 100 * part + 100)
        moments.update(Prediction({"ensemble": ensemble[rows]}), batch_of(truth[rows]))
    factors = moments.factors()
    assert {key.split()[1] for key in factors} == {"t2m"}  # what has gaps is left alone
    for first, share in zip(octaves.first, shares[0].tolist(), strict=True):
        assert factors[f"mean t2m 24 {first}"] == pytest.approx(share, abs=0.06)
        assert factors[f"spread t2m 24 {first}"] == pytest.approx(2.5, rel=0.1)
    calibrated = EnsembleCalibration(octaves, GLOBE.channels, factors)(ensemble, torch.full((400,), 24.0))
    assert torch.equal(calibrated[:, :, 1], ensemble[:, :, 1])
    after, truth = calibrated[:, :, 0], truth[:, 0]
    mean = after.mean(1)
    variance = octaves.product(after - mean[:, None], after - mean[:, None]).sum(1).mean(0) / (MEMBERS - 1)
    error = octaves.product(mean - truth, mean - truth).mean(0)
    torch.testing.assert_close(variance, error, rtol=0.01, atol=0)
    power = octaves.product(mean, mean).mean(0) + variance
    torch.testing.assert_close(power, octaves.product(truth, truth).mean(0), rtol=0.03, atol=0)
    before = octaves.product(ensemble[:, :, 0].mean(1) - truth, ensemble[:, :, 0].mean(1) - truth).mean()
    assert error.mean() < 0.7 * before


def test_a_region_keeps_its_mean_and_gets_its_spread():
    octaves = Octaves(REGION, AREA)
    truth, noise = fields(50, 2), 0.1 * fields(50, MEMBERS, 2, seed=2)
    ensemble = truth[:, None] + fields(50, 2, seed=3)[:, None] + noise - noise.mean(1, keepdim=True)
    moments = EnsembleMoments(octaves, REGION.channels, (24.0,), (True, True))
    moments.update(Prediction({"ensemble": ensemble}), batch_of(truth))
    factors = moments.factors()
    assert factors["mean t2m 24 0"] == 1.0
    assert factors["spread t2m 24 0"] == 5.0  # ten times, were there no bound
    after = EnsembleCalibration(octaves, REGION.channels, factors)(ensemble, torch.full((50,), 24.0))
    torch.testing.assert_close(after.mean(1), ensemble.mean(1))
    torch.testing.assert_close(after - after.mean(1, keepdim=True), 5 * (ensemble - ensemble.mean(1, keepdim=True)))


def test_lead_times_between_are_interpolated_and_those_beyond_have_the_nearest_factors():
    octaves = Octaves(REGION, AREA)
    factors = {"mean t2m 24 0": 1.0, "spread t2m 24 0": 1.0, "mean t2m 72 0": 1.0, "spread t2m 72 0": 3.0}
    calibrated = EnsembleCalibration(octaves, REGION.channels, factors)
    ensemble = fields(4, MEMBERS, 2)
    after = calibrated(ensemble, torch.tensor([12.0, 24.0, 48.0, 240.0]))
    ratio = (after - after.mean(1, keepdim=True)).std((1, 3, 4)) / (ensemble - ensemble.mean(1, keepdim=True)).std(
        (1, 3, 4)
    )
    torch.testing.assert_close(ratio[:, 0], torch.tensor([1.0, 1.0, 2.0, 3.0], dtype=torch.float64))
    torch.testing.assert_close(ratio[:, 1], torch.ones(4, dtype=torch.float64))


def test_the_model_goes_on_from_its_own_members_and_not_from_calibrated_ones():
    one = torch.ones(2)
    statistics = ClimateStatistics(
        mean=0 * one, std=one, lead_hours=torch.tensor([12.0]), increment_std=one[None],
        statics=torch.zeros(0, ROWS, COLUMNS),
    )  # fmt: skip
    loss = LossConfig(loss="crps", noise_dim=4)
    task = EnsembleTask(
        REGION, statistics, score_lead_times=(12.0,), loss=loss, members=MEMBERS, perturbation=0.3, seed=0
    )
    still = torch.nn.Module()
    still.forward = lambda given, *_, **__: torch.zeros_like(given)
    state = fields(1, 2).float()
    batch = collate([FieldSample(state[0], 0.0, (12.0, 12.0), state.repeat(2, 1, 1, 1))])
    plain = task.predict(still, batch)
    task.calibration = {"mean t2m 12 0": 1.0, "spread t2m 12 0": 2.0}
    wide = task.predict(still, batch)
    spreads = [found.values["ensemble"].std(1)[:, 0].mean() for found in (wide, plain)]
    assert (spreads[0] / spreads[1]).item() == pytest.approx(2.0, rel=1e-4)
    following = task.advance(batch, wide)
    assert torch.equal(following.members, plain.values["ensemble"])
    assert task.has_spread
    # and the score is that of members whose noise adds up to zero
    errors = wide.values["ensemble"].double() - batch.targets[:, :1].double()
    metrics = task.metrics()
    metrics.update(wide, batch)
    found = next(score.value for score in metrics.compute() if (score.variable, score.metric.name) == ("t2m", "crps"))
    expected = (balanced_crps(errors)[:, 0] * task.area).mean().item()
    assert found == pytest.approx(expected, rel=1e-6)
    assert not EnsembleTask(
        REGION, statistics, score_lead_times=(12.0,), members=MEMBERS, perturbation=0.3, seed=0
    ).has_spread


@pytest.mark.parametrize(
    ("asked", "intervals", "expected"),
    [
        ({}, (12.0, 24.0), True),
        ({"members": 3, "seed": 4, "perturbation": 0.0}, (12.0, 24.0), True),
        ({"every_hours": 12.0}, (12.0, 24.0), False),
        ({"every_hours": 12.0}, (12.0,), True),  # as it was scored
        ({"combine_intervals": True}, (12.0, 24.0), False),
        ({"perturbation": 0.1}, (12.0, 24.0), False),
    ],
)
def test_factors_are_for_ensembles_like_those_that_they_were_found_of(asked, intervals, expected):
    request = ForecastRequest(init_time=None, lead_hours=72.0, **asked)
    assert _is_as_scored(ClimateTaskConfig(loss="crps"), request, intervals) is expected
