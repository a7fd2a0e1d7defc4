"""Scores against an independent computation with xarray in float64, written from WeatherBench 2's formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from domains.climate.data.batch import FieldBatch
from domains.climate.data.schema import ClimateSchema
from domains.climate.forecast.metrics import ClimateMetrics
from domains.climate.forecast.power import zonal_power_spectrum
from sciml.domain.protocol import Prediction

LATITUDE = tuple(np.linspace(84.375, -84.375, 16))
LONGITUDE = tuple(np.arange(0, 360, 22.5))
SCHEMA = ClimateSchema(("z500", "t2m"), (), LATITUDE, LONGITUDE, 6.0)
SHAPE = (2, 16, 16)
OFFSET = np.array([54_000.0, 280.0])[:, None, None]
SCALE = np.array([900.0, 8.0])[:, None, None]
DIMS = ("time", "channel", "latitude", "longitude")


def normal_fields(hours: np.ndarray) -> np.ndarray:
    """A climatology that depends on the day of year, on the hour and on the place."""
    pattern = np.cos(np.deg2rad(LATITUDE))[:, None] * np.sin(2 * np.deg2rad(LONGITUDE))[None]
    phase = 2 * np.pi * (np.asarray(hours) / 24 % 365.25) / 365.25
    return (OFFSET + SCALE * (pattern + np.sin(phase)[:, None, None, None])).astype(np.float32)


def weather(rng: np.random.Generator, hours: np.ndarray) -> np.ndarray:
    return (normal_fields(hours) + SCALE * rng.standard_normal((len(hours), *SHAPE))).astype(np.float32)


def batch_of(truth: np.ndarray, init: np.ndarray, lead: np.ndarray) -> FieldBatch:
    state = torch.zeros(len(truth), *SHAPE)
    return FieldBatch(
        state=state,
        initial=state,
        init_time=torch.from_numpy(init),
        lead_time=torch.zeros(len(init), dtype=torch.float64),
        intervals=torch.from_numpy(lead)[:, None],
        targets=torch.from_numpy(truth)[:, None],
    )


def area_mean(array: xr.DataArray) -> xr.DataArray:
    """WeatherBench 2: weights sin(upper edge) - sin(lower edge), edges midway and at the poles."""
    south_to_north = np.deg2rad(np.sort(np.array(LATITUDE)))
    edges = np.concatenate([[-np.pi / 2], (south_to_north[1:] + south_to_north[:-1]) / 2, [np.pi / 2]])
    weights = xr.DataArray(np.diff(np.sin(edges)), dims="latitude", coords={"latitude": np.sort(np.array(LATITUDE))})
    return array.weighted(weights.sel(latitude=array.latitude)).mean(["latitude", "longitude"])


def data_array(values: np.ndarray) -> xr.DataArray:
    coords = {"channel": list(SCHEMA.channels), "latitude": list(LATITUDE), "longitude": list(LONGITUDE)}
    return xr.DataArray(values.astype(np.float64), dims=DIMS, coords=coords)


@pytest.fixture
def case() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    init = 300_000.0 + 24.0 * np.arange(12)
    lead = np.array([24.0, 72.0] * 6)
    truth = weather(rng, init + lead)
    forecast = (0.6 * truth + 0.4 * weather(rng, init + lead)).astype(np.float32)
    return {"init": init, "lead": lead, "truth": truth, "forecast": forecast}


def scored(case: dict[str, np.ndarray], **options) -> dict[tuple[str, str, float | None], float]:
    metrics = ClimateMetrics(SCHEMA, (24.0, 72.0), normal_fields, **options)
    for part in np.array_split(np.arange(len(case["init"])), 3):
        batch = batch_of(case["truth"][part], case["init"][part], case["lead"][part])
        metrics.update(Prediction({"fields": torch.from_numpy(case["forecast"][part])}), batch)
    return {score.key: score.value for score in metrics.compute()}


def test_deterministic_scores_agree_with_xarray(case):
    scores = scored(case)
    for lead in (24.0, 72.0):
        chosen = case["lead"] == lead
        truth, forecast = data_array(case["truth"][chosen]), data_array(case["forecast"][chosen])
        normal = data_array(normal_fields((case["init"] + case["lead"])[chosen]))
        f, o = forecast - normal, truth - normal
        expected = {
            "rmse": np.sqrt(area_mean((forecast - truth) ** 2).mean("time")),
            "mae": area_mean(abs(forecast - truth)).mean("time"),
            "bias": area_mean(forecast - truth).mean("time"),
            "acc": (area_mean(f * o) / np.sqrt(area_mean(f**2) * area_mean(o**2))).mean("time"),
        }
        cosine = np.cos(np.deg2rad(truth.latitude))
        by_sample = np.sqrt(((forecast - truth) ** 2 * cosine / cosine.mean()).mean(["latitude", "longitude"]))
        expected["wrmse_climax"] = by_sample.mean("time")
        for metric, values in expected.items():
            for channel in SCHEMA.channels:
                value = float(values.sel(channel=channel))
                assert scores[channel, metric, lead] == pytest.approx(value, rel=1e-10, abs=1e-10), (metric, channel)


def test_acc_uses_the_climatology_and_not_the_test_mean(case):
    """Weather that differs from climatology by a constant correlates fully, though it never differs from its mean."""
    normal = normal_fields(case["init"] + case["lead"])
    case["truth"] = normal + np.float32(4.0)
    case["forecast"] = normal + np.float32(2.0)
    scores = scored(case)
    assert scores["t2m", "acc", 72.0] == pytest.approx(1.0, abs=1e-6)


def test_acc_of_climatology_itself_is_zero_and_not_nan(case):
    case["forecast"] = normal_fields(case["init"] + case["lead"])
    assert scored(case)["z500", "acc", 24.0] == 0.0


def test_a_constant_bias_is_found(case):
    case["forecast"] = case["truth"] + np.float32(2.0)
    scores = scored(case)
    assert scores["t2m", "bias", 24.0] == pytest.approx(2.0, abs=1e-4)
    assert scores["t2m", "rmse", 24.0] == pytest.approx(2.0, abs=1e-4)
    assert scores["t2m", "mae", 24.0] == pytest.approx(2.0, abs=1e-4)


def test_climax_score_is_lower_than_rmse_where_errors_vary_from_sample_to_sample(case):
    growth = np.linspace(0.1, 3, 12)[:, None, None, None]
    case["forecast"] = (case["truth"] + growth * SCALE * np.ones(SHAPE)).astype(np.float32)
    scores = scored(case)
    assert scores["z500", "wrmse_climax", 72.0] < 0.95 * scores["z500", "rmse", 72.0]


def test_leads_that_are_not_listed_and_batches_without_truth_are_passed_over(case):
    case["lead"][::2] = 30.0
    scores = scored(case)
    assert {key[2] for key in scores} == {72.0}
    metrics = ClimateMetrics(SCHEMA, (72.0,))
    state = torch.zeros(1, *SHAPE)
    hours = torch.zeros(1, dtype=torch.float64)
    blind = FieldBatch(state, state, hours, hours, torch.full((1, 1), 72.0, dtype=torch.float64))
    metrics.update(Prediction({"fields": state}), blind)
    assert metrics.compute() == []


def test_sums_of_ranks_that_met_different_leads_add_up(case):
    ranks = []
    for lead in (24.0, 72.0):  # rank 0 meets one lead time only, rank 1 the other
        part = case["lead"] == lead
        metrics = ClimateMetrics(SCHEMA, (24.0, 72.0), normal_fields)
        metrics.update(
            Prediction({"fields": torch.from_numpy(case["forecast"][part])}),
            batch_of(case["truth"][part], case["init"][part], case["lead"][part]),
        )
        ranks.append(metrics)
    for mine, other in zip(ranks[0].sums(), ranks[1].sums(), strict=True):
        mine += other
    together = {score.key: score.value for score in ranks[0].compute()}
    assert together == pytest.approx(scored(case), rel=1e-12)


def test_half_precision_does_not_enter_the_sums():
    """An error of one m2/s2 on a field of 54000 is found although float32 resolves only 0.004 there."""
    truth = np.full((1, *SHAPE), 54_000.0, dtype=np.float32)
    hours = np.array([0.0])
    metrics = ClimateMetrics(SCHEMA, (72.0,))
    metrics.update(Prediction({"fields": torch.from_numpy(truth + 1)}), batch_of(truth, hours, np.array([72.0])))
    assert all(total.dtype == torch.float64 for total in metrics.sums())
    assert metrics.compute()[0].value == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("members", [2, 5])
def test_ensemble_scores_agree_with_pairwise_sums(case, members):
    rng = np.random.default_rng(5)
    truth = case["truth"]
    noise = SCALE * rng.standard_normal((12, members, *SHAPE))
    ensemble = (truth[:, None] + noise).astype(np.float32)
    metrics = ClimateMetrics(SCHEMA, (24.0, 72.0))
    prediction = Prediction({"fields": torch.from_numpy(ensemble.mean(1)), "ensemble": torch.from_numpy(ensemble)})
    metrics.update(prediction, batch_of(truth, case["init"], case["lead"]))
    scores = {score.key: score.value for score in metrics.compute()}
    chosen = case["lead"] == 72.0
    x, y = ensemble[chosen].astype(np.float64), truth[chosen].astype(np.float64)
    pairs = sum(abs(x[:, i] - x[:, j]) for i in range(members) for j in range(members))
    crps = abs(x - y[:, None]).mean(1) - pairs / (2 * members * (members - 1))
    variance = x.var(axis=1, ddof=1)
    skill = (x.mean(1) - y) ** 2
    for index, channel in enumerate(SCHEMA.channels):
        mean = {
            name: float(area_mean(data_array(values)).mean("time")[index])
            for name, values in (("crps", crps), ("variance", variance), ("skill", skill))
        }
        assert scores[channel, "crps", 72.0] == pytest.approx(mean["crps"], rel=1e-9)
        assert scores[channel, "spread", 72.0] == pytest.approx(mean["variance"] ** 0.5, rel=1e-9)
        expected = (mean["variance"] / mean["skill"]) ** 0.5
        assert scores[channel, "spread_skill", 72.0] == pytest.approx(expected, rel=1e-9)


def test_one_member_has_the_mean_absolute_error_as_crps_and_no_spread(case):
    metrics = ClimateMetrics(SCHEMA, (24.0, 72.0))
    fields = torch.from_numpy(case["forecast"])
    batch = batch_of(case["truth"], case["init"], case["lead"])
    metrics.update(Prediction({"fields": fields, "ensemble": fields[:, None]}), batch)
    scores = {score.key: score.value for score in metrics.compute()}
    assert scores["t2m", "crps", 24.0] == pytest.approx(scores["t2m", "mae", 24.0], rel=1e-12)
    assert scores["t2m", "spread", 24.0] == 0.0


def test_units_come_from_the_vocabulary(case):
    metrics = ClimateMetrics(SCHEMA, (24.0, 72.0), normal_fields)
    metrics.update(
        Prediction({"fields": torch.from_numpy(case["forecast"])}), batch_of(case["truth"], case["init"], case["lead"])
    )
    units = {(score.variable, score.metric.name): score.unit for score in metrics.compute()}
    assert units["z500", "rmse"] == "m2 s-2"
    assert units["t2m", "bias"] == "K"
    assert units["t2m", "acc"] == "1"


class TestSpectrum:
    @pytest.mark.parametrize("num_longitudes", [31, 32])
    def test_parseval(self, num_longitudes):
        fields = np.random.default_rng(0).standard_normal((3, 16, num_longitudes))
        latitude = np.array(LATITUDE)
        power = zonal_power_spectrum(torch.from_numpy(fields), latitude).numpy()
        edges = np.deg2rad(np.concatenate([[90], (latitude[1:] + latitude[:-1]) / 2, [-90]]))
        area = np.sin(edges[:-1]) - np.sin(edges[1:])
        mean_square = ((fields**2).mean(-1) * area).sum(-1) / area.sum()
        np.testing.assert_allclose(power.sum(-1), mean_square, rtol=1e-12)

    def test_a_wave_stands_at_its_wavenumber_with_half_its_amplitude_squared(self):
        wave = 3.0 * np.cos(5 * np.deg2rad(LONGITUDE) + 0.7)[None] * np.ones((16, 1))
        power = zonal_power_spectrum(torch.from_numpy(wave), LATITUDE).numpy()
        assert power[5] == pytest.approx(4.5)
        assert np.delete(power, 5) == pytest.approx(0.0, abs=1e-12)

    def test_a_band_sees_its_own_latitudes_only(self):
        field = torch.from_numpy(np.where(np.array(LATITUDE)[:, None] > 0, 1.0, 0.0) * np.ones((1, 16)))
        assert zonal_power_spectrum(field, LATITUDE, [(-60, -30)]).sum() == 0
        assert zonal_power_spectrum(field, LATITUDE, [(30, 60)])[0].item() == pytest.approx(1.0)
        assert zonal_power_spectrum(field, LATITUDE, [(30, 60), (-60, -30)])[0].item() == pytest.approx(0.5)
        with pytest.raises(ValueError, match="no latitude"):
            zonal_power_spectrum(field, LATITUDE, [(88, 89)])


def scores_of(case: dict[str, np.ndarray], ensemble: np.ndarray, members: int) -> list:
    metrics = ClimateMetrics(SCHEMA, (24.0, 72.0), members=members)
    values = {"fields": torch.from_numpy(ensemble.mean(1)), "ensemble": torch.from_numpy(ensemble)}
    metrics.update(Prediction(values), batch_of(case["truth"], case["init"], case["lead"]))
    return metrics.compute()


def test_power_is_a_mean_over_cases_and_members(case):
    """Not that of their mean, and by plain sums over the rows between 30 and 60 degrees."""
    rng = np.random.default_rng(5)
    ensemble = np.stack([weather(rng, case["init"] + case["lead"]) for _ in range(3)], axis=1)
    found = {(s.variable, s.lead_time_h): s for s in scores_of(case, ensemble, 3) if s.metric.name == "power"}
    degrees = np.abs(LATITUDE)
    rows = (degrees > 30) & (degrees < 60)
    edges = np.deg2rad(np.concatenate([[90], (np.array(LATITUDE)[1:] + np.array(LATITUDE)[:-1]) / 2, [-90]]))
    area = (np.sin(edges[:-1]) - np.sin(edges[1:]))[rows]
    at, ratios = case["lead"] == 72.0, []
    for wave in range(1, 9):
        turn = np.exp(-1j * wave * np.deg2rad(LONGITUDE))
        powers = [
            ((2 if wave < 8 else 1) * np.abs((fields[..., rows, :] * turn).mean(-1)) ** 2 * area).sum(-1) / area.sum()
            for fields in (ensemble[at, :, 1].astype(np.float64), case["truth"][at, 1].astype(np.float64))
        ]
        curve = found["t2m", 72.0].curve
        assert curve["wavenumber"][wave - 1] == wave
        assert curve["forecast"][wave - 1] == pytest.approx(powers[0].mean(), rel=1e-6)
        assert curve["truth"][wave - 1] == pytest.approx(powers[1].mean(), rel=1e-6)
        ratios.append(powers[0].mean() / powers[1].mean())
    assert found["t2m", 72.0].value == pytest.approx(np.exp(np.log(ratios[:5]).mean()), rel=1e-6)


def test_ranks_are_those_of_each_cell_and_ties_are_shared(case):
    rng = np.random.default_rng(6)
    ensemble = np.stack([weather(rng, case["init"] + case["lead"]) for _ in range(4)], axis=1)
    ensemble[:, 1, 1] = case["truth"][:, 1]  # a tie in every cell of t2m
    found = {(s.variable, s.lead_time_h): s for s in scores_of(case, ensemble, 4) if s.metric.name == "rank_histogram"}
    south_to_north = area_mean(data_array(np.ones((1, *SHAPE))))
    assert south_to_north.values == pytest.approx(1)
    for channel, name in enumerate(SCHEMA.channels):
        at = case["lead"] == 24.0
        truth, members = case["truth"][at, channel], ensemble[at][:, :, channel]
        shares = np.zeros(5)
        edges = np.deg2rad(np.concatenate([[90], (np.array(LATITUDE)[1:] + np.array(LATITUDE)[:-1]) / 2, [-90]]))
        area = np.sin(edges[:-1]) - np.sin(edges[1:])
        for time, row, column in np.ndindex(truth.shape):
            own = members[time, :, row, column]
            below, equal = (own < truth[time, row, column]).sum(), (own == truth[time, row, column]).sum()
            shares[below : below + equal + 1] += area[row] / (equal + 1)
        shares /= shares.sum()
        score = found[name, 24.0]
        np.testing.assert_allclose(score.curve["share"], shares, rtol=1e-9)
        assert score.value == pytest.approx(np.abs(shares - 0.2).sum())
    assert found["z500", 24.0].value < 0.3  # drawn from the same distribution as the truth
