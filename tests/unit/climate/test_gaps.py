"""Fields with gaps: the sea's surface, known on the sea alone, and dates without any value."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from domains.climate.data.prepare import PrepareConfig, prepare
from domains.climate.data.regrid import LatLonGrid, Regridder
from domains.climate.data.run_data import states_of
from domains.climate.data.samples import ClimateDataConfig
from domains.climate.data.schema import ClimateStatistics
from domains.climate.data.statistics import Moments
from domains.climate.data.store import ClimateStore
from domains.climate.data.synthetic import synthetic_source
from sciml.app.cli import main
from sciml.core.errors import DataError
from sciml.domain.protocol import FittedData
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_run
from tests.unit.climate.weather_files import as_cds

LAND = np.zeros((8, 16), dtype=bool)
LAND[2:5, 3:9] = True


def sea_and_air(num_times=120):
    """Returns waves of air temperature and, on the sea, of the surface temperature; both have land and sea."""
    cds = as_cds(synthetic_source(num_times=num_times, step_hours=12, channels=["t2m", "u10"]))
    sea = (cds.t2m.astype("f8") * 0.2 + 230).where(~xr.DataArray(LAND, dims=("latitude", "longitude")))
    cds["sst"] = sea.assign_attrs(units="K")
    return cds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gaps")
    sea_and_air().to_netcdf(folder / "sea.nc")
    return folder


@pytest.fixture(scope="module")
def store(folder):
    return ClimateStore.open(prepare(PrepareConfig(path=str(folder / "sea.nc"), out=str(folder / "s.zarr"))))


def test_the_sea_is_stored_with_statistics_of_the_sea_alone(store):
    assert store.schema.channels == ("t2m", "u10", "sst")
    states = store.read(np.arange(len(store.times)))
    assert (np.isnan(states[:, 2]) == LAND).all()
    assert np.isfinite(states[:, :2]).all()
    train = store.indices("train")
    area = np.cos(np.deg2rad(store.schema.latitude))[:, None] * ~LAND
    sea = states[train, 2].astype(np.float64)
    mean = np.nansum(sea * area) / (len(train) * area.sum())
    assert float(store.statistics.mean[2]) == pytest.approx(mean, rel=1e-5)
    for fields in (store.climatology(store.hours[:2]), store.weekly_climatology(store.hours[:2])):
        assert (np.isnan(fields[:, 2]) == LAND).all()


def test_moments_of_what_is_known_are_those_of_a_mask():
    generator = np.random.default_rng(0)
    fields = generator.standard_normal((5, 3, 4, 6)) + 100
    fields[:, 1, :2, 1:4] = np.nan
    fields[2, 2] = np.nan
    weights = np.array([0.5, 1.5, 1.5, 0.5])
    moments = Moments(3)
    for part in (fields[:2], fields[2:]):
        moments.update(part, weights)
    known = np.isfinite(fields) * weights[:, None]
    mean = np.nansum(fields * known, axis=(0, 2, 3)) / known.sum((0, 2, 3))
    variance = np.nansum((fields - mean[:, None, None]) ** 2 * known, axis=(0, 2, 3)) / known.sum((0, 2, 3))
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-13)
    np.testing.assert_allclose(moments.std, np.sqrt(variance), rtol=1e-12)


def test_regridding_averages_what_is_known_of_a_cell():
    fine, coarse = LatLonGrid.parse("8x4"), LatLonGrid.parse("4x2")
    field = np.ones((4, 8))
    field[0, :3] = np.nan
    field[:, 1] = 3.0
    out = Regridder(fine, coarse)(field)
    assert out.shape == (2, 4)
    assert np.isfinite(out[0, 1:]).all()
    assert not np.isnan(out[1]).any()


def test_a_run_learns_and_scores_the_sea_alone(folder, store, tmp_path, capsys):
    options = [
        f"data.path={folder / 's.zarr'}", "model=plain_vit_tiny", "model.embed_dim=32", "model.depth=1",
        "task.intervals=[24h]", "task.score_lead_times=[24h]", "reference_models=null", "trainer.num_threads=1",
        "trainer.max_steps=10", "optim.lr=5e-3", "optim.warmup_steps=2", f"runs_dir={tmp_path}", "run=sea",
        "output=json",
    ]  # fmt: skip
    main("train", options)
    scores = json.loads(capsys.readouterr().out)["scores"]
    found = {(row["variable"], row["metric"]): row for row in scores}
    assert all(np.isfinite(row["value"]) and np.isfinite(list(row["baseline"].values())).all() for row in scores)
    run = load_run(RunFolder.find("sea", str(tmp_path)))
    source = run.splits.test
    batch = source.collate([source.sample(n, np.random.default_rng(0)) for n in range(len(source))])
    with torch.no_grad():
        forecast = run.task.predict(run.model, batch).values["fields"]
    assert (forecast[:, 2].isnan().numpy() == LAND).all()
    area = np.cos(np.deg2rad(np.asarray(run.splits.schema.latitude)))
    area = torch.from_numpy(np.broadcast_to(area[:, None], LAND.shape).copy())
    area[torch.from_numpy(LAND)] = 0
    error = (forecast - batch.targets[:, 0])[:, 2].nan_to_num(0.0).double()
    by_hand = ((error**2 * area).sum((-2, -1)) / area.sum()).mean().sqrt()
    assert found["sst", "rmse"]["value"] == pytest.approx(float(by_hand), rel=1e-3)  # cosines for exact areas


def test_values_on_land_do_not_count_where_the_training_knew_the_sea_alone(folder, store, tmp_path):
    filled = sea_and_air()
    filled["sst"] = filled.sst.fillna(300.0)  # as some centers deliver it
    filled.to_netcdf(tmp_path / "filled.nc")
    data = ClimateDataConfig(path=str(tmp_path / "filled.nc"))
    states = states_of(data, FittedData(store.schema, store.statistics, data=ClimateDataConfig(path="elsewhere")))
    np.testing.assert_array_equal(states.read(np.arange(5)), store.read(np.arange(5)))
    kept = ClimateStatistics.from_tensors(store.statistics.to_tensors()).known
    assert (kept.numpy()[0] == ~LAND).all()
    older = replace(store.statistics, known=None)  # a run that did not keep it takes what it is given
    states = states_of(data, FittedData(store.schema, older, data=ClimateDataConfig(path="elsewhere")))
    assert np.isfinite(states.read(np.arange(5))).all()


def test_a_diverged_forecast_is_not_scored_as_a_gap(folder, store):
    from domains.climate.data.batch import FieldBatch
    from domains.climate.forecast.metrics import ClimateMetrics
    from sciml.domain.protocol import Prediction

    state = torch.from_numpy(store.read(np.arange(2)))
    zero = torch.zeros(2, dtype=torch.float64)
    batch = FieldBatch(state, state, zero, zero, zero[:, None] + 24, state[:, None])
    metrics = ClimateMetrics(store.schema, [24.0])
    metrics.update(Prediction({"fields": torch.full_like(state, torch.nan)}), batch)
    assert all(np.isnan(score.value) for score in metrics.compute() if score.metric.name == "rmse")


def without(dates, folder, name):
    cds = sea_and_air(80)
    cds["t2m"] = cds.t2m.where(~cds.time.isin(cds.time[dates]))
    cds.to_netcdf(folder / name)
    return str(folder / name)


def test_dates_without_any_value_are_gaps(folder, tmp_path):
    path = without([3, 30, 75], folder, "holes.nc")
    with pytest.raises(
        DataError, match=r"2m_temperature \(t2m\) at 2001-01-02T12:00 is not a number anywhere; .*allow_g"
    ):
        prepare(PrepareConfig(path=path, out=str(tmp_path / "s.zarr")))
    store = ClimateStore.open(prepare(PrepareConfig(path=path, out=str(tmp_path / "s.zarr"), allow_gaps=True)))
    assert len(store.times) == 77
    assert not store.is_even
    whole = sea_and_air(80).t2m.values
    kept = np.setdiff1d(np.arange(80), [3, 30, 75])
    np.testing.assert_array_equal(store.read(np.arange(77))[:, 0], whole[kept])
    np.testing.assert_array_equal(store.read(slice(2, 5))[:, 0], whole[kept[2:5]])
    train = store.indices("train")
    assert np.isfinite(store.statistics.increment_std.numpy()).all()
    area = np.cos(np.deg2rad(store.schema.latitude))[:, None]
    values = store.read(train)[:, 0].astype(np.float64)
    assert float(store.statistics.mean[0]) == pytest.approx(float((values * area).mean() / area.mean()), rel=1e-4)


def test_a_channel_that_must_be_whole_is_refused_with_holes(folder, tmp_path):
    cds = sea_and_air(80)
    cds["t2m"] = cds.t2m.where(~xr.DataArray(LAND, dims=("latitude", "longitude")))
    cds.to_netcdf(folder / "partly.nc")
    with pytest.raises(DataError, match=r"t2m\) at 2001-01-01T00:00 is not a number in 14\.1% of the grid"):
        prepare(PrepareConfig(path=str(folder / "partly.nc"), out=str(tmp_path / "s.zarr")))


def on_levels(num_times=60):
    cds = as_cds(synthetic_source(num_times=num_times, step_hours=12, channels=["t500", "t850", "u10"]))
    ground = xr.DataArray(LAND, dims=("latitude", "longitude"))
    return cds.assign(t=cds.t.where(~(ground & (cds.level == 850))))


def test_levels_below_the_ground_are_masked_as_models_leave_them_out(tmp_path, capsys):
    on_levels().to_netcdf(tmp_path / "cmip.nc")
    store = ClimateStore.open(prepare(PrepareConfig(path=str(tmp_path / "cmip.nc"), out=str(tmp_path / "s.zarr"))))
    assert store.schema.gaps == ("t850",)
    assert "unknown in places and masked there: t850" in capsys.readouterr().err
    states = store.read(np.arange(5))
    assert (np.isnan(states[:, store.schema.channels.index("t850")]) == LAND).all()


def test_a_hole_at_one_time_is_no_ground(tmp_path):
    cds = as_cds(synthetic_source(num_times=60, step_hours=12, channels=["t500", "t850", "u10"]))
    hole = xr.DataArray(LAND, dims=("latitude", "longitude")) & (cds.level == 850) & (cds.time == cds.time[7])
    cds.assign(t=cds.t.where(~hole)).to_netcdf(tmp_path / "hole.nc")
    with pytest.raises(DataError, match=r"temperature \(t850\) at 2001-01-04T12:00 is not a number in 14\.1%"):
        prepare(PrepareConfig(path=str(tmp_path / "hole.nc"), out=str(tmp_path / "s.zarr")))
