"""A trained run takes states from any source: another time, file, layout, grid or selection of levels."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import sciml
from domains.climate.data.prepare import PrepareConfig, prepare
from domains.climate.data.readers import Source
from domains.climate.data.regrid import LatLonGrid, Regridder
from domains.climate.data.run_data import is_own, states_of
from domains.climate.data.samples import ClimateDataConfig, ForecastSource
from domains.climate.data.states import OtherStates
from domains.climate.data.store import ClimateStore
from domains.climate.data.synthetic import synthetic_source
from sciml.app.cli import main
from sciml.core.errors import ConfigError, DataError
from sciml.domain.protocol import FittedData
from sciml.run.compose import compose
from sciml.run.loaded import load_run
from sciml.testing.sessions import start_session
from tests.unit.climate.weather_files import as_cds, canonical, write_cds_new, write_cds_old

CHANNELS = ["z500", "t850", "t2m", "u10"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("states")


@pytest.fixture(scope="module")
def fitted(folder):
    """Returns what a run on 16x8 cells has kept of its data."""
    path = write_cds_new(synthetic_source(num_times=120, step_hours=12), folder / "training.nc")
    store = ClimateStore.open(prepare(PrepareConfig(path=str(path), out=str(folder / "s.zarr"), channels=CHANNELS)))
    return FittedData(store.schema, store.statistics, data=ClimateDataConfig(path=str(path), channels=CHANNELS))


@pytest.fixture(scope="module")
def analysis():
    """Returns one time of the same weather that the training never saw, on twice as fine a grid."""
    return synthetic_source(num_times=121, step_hours=12, grid="32x16").isel(time=[-1])


def on_the_run(dataset, schema):
    """Returns the channels of a schema on its grid, computed from the dataset by hand."""
    ordered = canonical(dataset)
    source = LatLonGrid(ordered.latitude.values, ordered.longitude.values)
    regrid = Regridder(source, LatLonGrid(np.asarray(schema.latitude), np.asarray(schema.longitude)))
    fields = [ordered.geopotential.sel(level=500), ordered.temperature.sel(level=850), ordered["2m_temperature"],
              ordered["10m_u_component_of_wind"]]  # fmt: skip
    return regrid(np.stack([field.values for field in fields], axis=1))


@pytest.mark.parametrize("layout", ["new", "old", "zarr"])
def test_one_time_of_any_layout_is_brought_to_the_channels_and_the_grid_of_the_run(folder, fitted, analysis, layout):
    path = folder / f"one-{layout}.{'zarr' if layout == 'zarr' else 'nc'}"
    if layout == "zarr":
        analysis.to_zarr(path, zarr_format=2)
    else:
        (write_cds_new if layout == "new" else write_cds_old)(analysis, path)
    states = states_of(ClimateDataConfig(path=str(path)), fitted)
    assert len(states.times) == 1
    expected = on_the_run(analysis, fitted.schema)
    packed = (np.ptp(expected, axis=(2, 3), keepdims=True) if layout == "old" else 1) * 1e-4
    assert (np.abs(states.read(np.array([0])) - expected) <= np.maximum(packed, 1e-6 * np.abs(expected))).all()
    assert not list(folder.glob("**/*.partial"))


@pytest.mark.parametrize("days", [350, 500, 1000, 1460])
def test_times_are_spread_over_seasons_and_hours_alike(fitted, days):
    """500 of 2000 times of 6 h would else be those of one hour in each season."""
    count = 4 * days
    times = np.datetime64("2001-01-01", "m") + 360 * np.arange(count).astype("timedelta64[m]")
    states = OtherStates("a", "b", lambda at: at, times, fitted.schema, fitted.statistics)
    chosen = states.spread("test", 500)
    assert 480 <= len(chosen) <= 500
    assert (np.diff(chosen) > 0).all()
    for quarter in np.array_split(np.arange(count), 4):
        hours = np.bincount(chosen[np.isin(chosen, quarter)] % 4, minlength=4)
        assert hours.min() >= 0.2 * hours.sum()
    position = np.arange(count)
    heat = 285 + 10 * np.cos(2 * np.pi * position / 1461) + 6 * np.cos(np.pi / 2 * (position % 4))
    assert (heat > np.quantile(heat[chosen], 0.95)).mean() == pytest.approx(0.05, abs=0.004)
    assert len(states.spread("test", count)) == count


def test_a_channel_that_is_missing_is_named_with_those_of_the_run(folder, fitted, analysis):
    path = write_cds_new(analysis.drop_vars("geopotential"), folder / "no-z.nc")
    with pytest.raises(
        DataError, match=r"no-z\.nc: the run needs z500, t850, t2m, u10, and z500 is not there; did you mean"
    ):
        states_of(ClimateDataConfig(path=str(path)), fitted)
    path = write_cds_new(analysis.sel(level=[850]), folder / "no-500.nc")
    with pytest.raises(DataError, match=r"z500 is not there; did you mean 'z850'"):
        states_of(ClimateDataConfig(path=str(path)), fitted)
    levels = analysis.assign_coords(level=("level", [60, 137], {"long_name": "model_level_number"}))
    as_cds(levels).to_netcdf(folder / "ml.nc")
    with pytest.raises(DataError, match=r"z500 is not there; z is there, but model levels"):
        states_of(ClimateDataConfig(path=str(folder / "ml.nc")), fitted)


def test_one_time_and_one_field_are_told_what_they_lack(folder, fitted, analysis):
    path = write_cds_new(analysis[["2m_temperature"]], folder / "t2m.nc")
    with pytest.raises(DataError, match=r"z500 is not there; take it from the same center as the others"):
        states_of(ClimateDataConfig(path=str(path)), fitted)
    states = states_of(ClimateDataConfig(path=str(write_cds_new(analysis, folder / "single.nc"))), fitted)
    with pytest.raises(ConfigError, match=r"24 h apart; make it longer: one time has nothing to be compared with"):
        ForecastSource(states, "test", [(24.0,)])


def test_a_time_without_any_value_is_told_with_keys_that_other_data_have(folder, fitted, analysis):
    """Allowing gaps is a key of preparing: other data are not prepared."""
    empty = analysis.assign({"2m_temperature": np.nan * analysis["2m_temperature"]})
    empty["2m_temperature"].attrs["units"] = "K"
    path = write_cds_new(empty, folder / "empty.nc")
    states = states_of(ClimateDataConfig(path=str(path), allow_gaps=True), fitted)
    with pytest.raises(
        DataError,
        match=r"\(t2m\) at 2001-03-02T00:00 is not a number anywhere; choose other dates with init_time, or to score "
        r"on with data\.splits\.test=\[FIRST,LAST\]$",
    ):
        states.read(np.array([0]))


def test_units_of_another_planet_are_refused(folder, fitted, analysis):
    heights = analysis.assign(geopotential=analysis.geopotential / 2)  # on Earth possible, and not in the training
    path = write_cds_new(
        heights.assign(geopotential=heights.geopotential.assign_attrs(units="m2 s-2")), folder / "m.nc"
    )
    states = states_of(ClimateDataConfig(path=str(path)), fitted)
    with pytest.raises(DataError, match=r"m\.nc: z500 at 2001-03-02T00:00 has the mean .* m2 s-2, \d+ standard dev.*"):
        states.read(np.array([0]))


def test_the_same_source_with_the_same_selection_is_the_runs_own(fitted):
    own = fitted.data
    assert is_own(replace(own, preload_gb=0), fitted)
    assert not is_own(replace(own, path="other.nc"), fitted)
    assert not is_own(replace(own, splits={"train": 0.5, "valid": 0.2, "test": 0.3}), fitted)
    assert is_own(replace(own, path="other.nc"), replace(fitted, data=None))


def test_dates_of_the_test_split_choose_what_is_scored(fitted):
    path = fitted.data.path
    splits = {"train": ["2001-01-01", "2001-01-20"], "valid": ["2001-01-21", "2001-01-25"],
              "test": ["2001-02-01", "2001-02-05"]}  # fmt: skip
    states = states_of(ClimateDataConfig(path=path, splits=splits), fitted)
    assert len(states.indices("test")) == 10
    assert states.period("test") == ("2001-02-01T00:00", "2001-02-05T12:00")
    assert len(states_of(ClimateDataConfig(path=path), fitted).indices("test")) == 120


def test_another_store_is_selected_and_regridded(folder, fitted, analysis):
    more = synthetic_source(num_times=60, step_hours=12, grid="32x16")
    path = write_cds_new(more, folder / "more.nc")
    store = prepare(PrepareConfig(path=str(path), out=str(folder / "more.zarr")))
    states = states_of(ClimateDataConfig(path=str(store)), fitted)
    at = states.indices("test")[:2]
    np.testing.assert_allclose(states.read(at), on_the_run(more.isel(time=at), fitted.schema), rtol=1e-5, atol=1e-3)
    assert isinstance(states, OtherStates)
    assert Source.open(str(path)).channel_names() != list(fitted.schema.channels)


@pytest.fixture(scope="module")
def run(folder, fitted):
    """Returns the folder of a run, trained for a moment."""
    arguments = [
        f"data.path={fitted.data.path}", f"data.cache={folder / 'cache'}", f"data.channels={CHANNELS}",
        "model=plain_vit_tiny", "model.embed_dim=32", "model.depth=1", "task.intervals=[12h..48h]",
        "reference_models=null", "trainer.max_steps=2", "trainer.num_threads=1", f"runs_dir={folder / 'runs'}",
    ]  # fmt: skip
    session = start_session(compose("train", arguments))
    session.fit()
    return session.folder


@pytest.mark.usefixtures("no_reports")
def test_a_forecast_from_one_time_needs_no_training_data(run, folder, analysis, fitted, capsys):
    path = write_cds_new(analysis, folder / "one.nc")
    out = folder / "forecast.nc"
    options = [f"data.path={path}", f"out={out}", "lead_time=72h", "members=2", "seed=3", "output=json"]
    main("forecast", [f"run={run.path}", f"data.cache={folder / 'empty'}", *options])
    assert json.loads(capsys.readouterr().out)["lead_times_h"] == [12, 24, 36, 48, 60, 72]
    assert not (folder / "empty").exists()
    with xr.open_dataset(out) as forecast:
        assert forecast["time"].values == analysis.time.values
        assert forecast.sizes["number"] == 2
        assert np.isfinite(forecast["2m_temperature"].values).all()
    with pytest.raises(SystemExit) as ended:
        main("forecast", [f"run={run.path}", f"data.path={folder / 'no-z.nc'}", f"out={folder / 'bad.nc'}"])
    assert ended.value.code == 2
    assert not (folder / "bad.nc").exists()


@pytest.mark.usefixtures("no_reports")
def test_an_evaluation_on_other_data_keeps_the_runs_climatology_and_ridge(run, folder):
    later = synthetic_source(num_times=40, step_hours=12, seed=5, start="2003-01-01")
    path = write_cds_new(later, folder / "later.nc")
    own = load_run(run)
    other = load_run(run, overrides={"data.path": str(path)})
    when = np.array([float(later.time.values[3].astype("datetime64[h]").astype(int))])
    np.testing.assert_array_equal(other.task.climatology(when), own.task.climatology(when))
    batch = other.splits.test.collate([other.splits.test.sample(0, np.random.default_rng(0))])
    for baseline, predict in other.task.baselines().items():
        expected = {b.name: p for b, p in own.task.baselines().items()}[baseline.name](batch).values["fields"]
        assert torch.equal(predict(batch).values["fields"], expected), baseline.name
    assert {"ridge", "climatology"} <= {baseline.name for baseline in other.task.baselines()}
    assert len(other.splits.test.starts()) == 40 - 4  # all of the other data are scored


def test_an_evaluation_on_other_data_has_its_own_report(run, folder, capsys):
    later = synthetic_source(num_times=16, step_hours=12, seed=6, start="2004-01-01")
    path = write_cds_new(later, folder / "report.nc")
    main("evaluate", [f"run={run.path}", f"data.path={path}", "output=json"])
    report = json.loads(capsys.readouterr().out)["report"]
    assert "Which scales survive" in Path(report).read_text()


@pytest.mark.usefixtures("no_reports")
def test_python_forecasts_as_the_command_does(run, analysis, tmp_path):
    """Bit by bit, and with a member for each interval of 12 h, 24 h and 48 h that fits into 48 h."""
    path = write_cds_new(analysis, tmp_path / "analysis.nc")
    keys = ["lead_time=48h", "combine_intervals=true", "members=2", "seed=4"]
    main("forecast", [f"run={run.path}", f"data.path={path}", f"out={tmp_path / 'f.nc'}", *keys])
    here = sciml.load(run.path).forecast(path, "48h", combine_intervals=True, members=2, seed=4)
    with xr.open_dataset(tmp_path / "f.nc", decode_timedelta=True) as there:
        assert there.sizes["number"] > 2
        xr.testing.assert_identical(here.drop_attrs(), there.drop_attrs())


@pytest.mark.usefixtures("no_reports")
def test_an_ensemble_of_one_is_the_forecast_itself(run, folder, analysis, tmp_path):
    path = write_cds_new(analysis, tmp_path / "analysis.nc")
    for name, more in (("one", ["members=1", "perturbation=0.5", "seed=9"]), ("plain", [])):
        main("forecast", [f"run={run.path}", f"data.path={path}", f"out={tmp_path / name}.nc", "lead_time=24h", *more])
    with xr.open_dataset(tmp_path / "one.nc") as one, xr.open_dataset(tmp_path / "plain.nc") as plain:
        assert "number" not in one.dims
        xr.testing.assert_equal(one, plain)


@pytest.mark.usefixtures("no_reports")
def test_size_seed_and_perturbation_are_the_runs_unless_they_are_typed(run, analysis, tmp_path):
    path = write_cds_new(analysis, tmp_path / "analysis.nc")
    forecasts = {}
    for name, more in {
        "run": ["task.members=3"],
        "typed": ["members=3", "perturbation=0.05", "seed=0"],
        "seed": ["members=3", "seed=1"],
        "size": ["members=3", "perturbation=0.1"],
    }.items():
        out = tmp_path / f"{name}.nc"
        main("forecast", [f"run={run.path}", f"data.path={path}", f"out={out}", "lead_time=12h", *more])
        with xr.open_dataset(out) as forecast:
            forecasts[name] = forecast["2m_temperature"].load()
    assert forecasts["run"].sizes["number"] == 3
    xr.testing.assert_equal(forecasts["run"], forecasts["typed"])
    assert not forecasts["run"].equals(forecasts["seed"])
    spread = {name: float(field.std("number").mean()) for name, field in forecasts.items()}
    assert spread["size"] == pytest.approx(2 * spread["run"], rel=0.2)
