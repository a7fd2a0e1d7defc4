"""Diagnostic outputs: predicted and not fed back, precipitation by its logarithm."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

from domains.climate.data.prepare import PrepareConfig, prepare
from domains.climate.data.schema import ClimateStatistics
from domains.climate.data.store import ClimateStore
from domains.climate.data.synthetic import synthetic_source
from domains.climate.data.variable import Role
from domains.climate.data.variables import find
from domains.climate.data.vocabulary import VARIABLES
from domains.climate.model.diagnostics import DiagnosticOutputs
from sciml.app.cli import main
from sciml.run.compose import compose
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_run
from sciml.testing.sessions import start_session
from tests.unit.climate.weather_files import as_cds

CHANNELS = ["t2m", "tp", "u10", "tcc", "i10fg"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with weather whose rain, clouds and gusts follow from temperature and wind."""
    folder = tmp_path_factory.mktemp("diagnostics")
    cds = as_cds(synthetic_source(num_times=160, step_hours=12, channels=["t2m", "u10"]))
    warm = ((cds.t2m - cds.t2m.mean()) / cds.t2m.std()).astype("f8")
    cds["tp"] = (np.exp(2 * warm) * 1e-4).where(warm > 0, 0.0).assign_attrs(units="m")
    cds["tcc"] = (1 / (1 + np.exp(-2 * warm))).assign_attrs(units="(0 - 1)")
    cds["i10fg"] = (1.5 * np.abs(cds.u10) + 2).assign_attrs(units="m s**-1")
    cds.to_netcdf(folder / "wet.nc")
    return folder


@pytest.fixture(scope="module")
def store(folder):
    config = PrepareConfig(path=str(folder / "wet.nc"), out=str(folder / "s.zarr"), channels=CHANNELS)
    return ClimateStore.open(prepare(config))


def options(folder, runs, model="plain_vit_tiny"):
    sizes = ["model.embed_dim=32", "model.depth=1"] if "vit" in model else []
    return [
        f"data.path={folder / 's.zarr'}", f"model={model}", *sizes, "task.intervals=[12h,24h]", "reference_models=null",
        "task.score_lead_times=[24h]", "trainer.num_threads=1", "optim.lr=5e-3", "optim.warmup_steps=2",
        f"runs_dir={runs}",
    ]  # fmt: skip


def test_the_model_is_given_only_what_is_prognostic(store):
    assert store.schema.channels == tuple(CHANNELS)
    assert store.schema.inputs == ("t2m", "u10")


def test_statistics_of_what_is_learned_are_those_of_the_logarithm(store):
    states = store.read(store.indices("train")).astype(np.float64)
    area = np.cos(np.deg2rad(store.schema.latitude))[:, None] * np.ones((8, 16))
    area /= area.sum() * len(states)
    for number, name in enumerate(CHANNELS):
        values = np.log1p(states[:, number] / 1e-5) if name == "tp" else states[:, number]
        mean = (values * area).sum()
        std = np.sqrt((((values - mean) ** 2) * area).sum())
        assert float(store.statistics.target_mean[number]) == pytest.approx(mean, rel=1e-3)
        assert float(store.statistics.target_std[number]) == pytest.approx(std, rel=1e-2)
    assert float(store.statistics.mean[1]) == pytest.approx(float((states[:, 1] * area).sum()), rel=2e-3)


def test_standardizing_and_restoring_are_inverse_within_bounds(store):
    outputs = DiagnosticOutputs(store.schema, store.statistics)
    states = torch.from_numpy(store.read(np.arange(4)))
    which = outputs.which.flatten()
    assert which.tolist() == [False, True, False, True, True]
    restored = outputs.restore(outputs.standardize(states))
    torch.testing.assert_close(restored[:, which], states[:, which], rtol=1e-4, atol=1e-7)
    low = outputs.restore(torch.full_like(states, -50.0))[:, which]
    high = outputs.restore(torch.full_like(states, 5.0))[:, which]
    assert (low >= 0).all()
    assert (high[:, 1] <= 1).all()  # clouds


def test_statistics_of_older_runs_have_no_targets_of_their_own(store):
    tensors = {name: value for name, value in store.statistics.to_tensors().items() if "target" not in name}
    older = ClimateStatistics.from_tensors(tensors)
    assert torch.equal(older.target_mean, older.mean)


@pytest.mark.parametrize("model", ["vit_tiny", "plain_vit_tiny", "climax_tiny", "unet_tiny"])
def test_the_forecast_does_not_depend_on_diagnostic_fields(folder, store, model, tmp_path):
    run = start_session(compose("train", options(folder, tmp_path, model)))
    task, net, source = run.trainer.task, run.trainer.engine.model.module, run.trainer.splits.test
    batch = source.collate([source.sample(n, np.random.default_rng(0)) for n in range(2)])
    blind = batch.state.clone()
    blind[:, [1, 3, 4]] = torch.nan
    with torch.no_grad():
        before = task.predict(net, batch).values["fields"]
        task.loss(net, batch)
        for parameter in net.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
        forecast = task.predict(net, batch).values["fields"]
        other = task.predict(net, type(batch)(**{**batch.__dict__, "state": blind, "initial": blind})).values["fields"]
    assert torch.equal(forecast, other)
    assert not torch.equal(forecast, before)
    assert (forecast[:, 1] >= 0).all()
    assert torch.equal(before[:, [0, 2]], batch.state[:, [0, 2]])  # a new model is persistence of what goes on
    middle = task.diagnostics.restore(torch.zeros_like(batch.state))
    torch.testing.assert_close(before[:, [1, 3, 4]], middle[:, [1, 3, 4]])  # and the usual of what does not


def test_the_loss_by_hand(folder, store, tmp_path):
    run = start_session(compose("train", options(folder, tmp_path)))
    task, net, source = run.trainer.task, run.trainer.engine.model.module, run.trainer.splits.valid
    batch = source.collate([source.sample(n, np.random.default_rng(n)) for n in range(3)])
    scale = run.trainer.splits.statistics.increment_std_at(batch.intervals[:, 0])[:, :, None, None]
    expected = (batch.targets[:, 0] - batch.state) / scale
    statistics = run.trainer.splits.statistics
    for number, name in enumerate(CHANNELS):
        if find(name).role is Role.DIAGNOSTIC:
            values = batch.targets[:, 0, number]
            values = torch.log1p(values / 1e-5) if name == "tp" else values
            expected[:, number] = (values - statistics.target_mean[number]) / statistics.target_std[number]
    area = torch.as_tensor(task.area)
    with torch.no_grad():
        torch.testing.assert_close(task.loss(net, batch).loss, (expected.square() * area).mean(), rtol=1e-4, atol=0)


@pytest.mark.usefixtures("no_reports")
def test_rain_is_learned_scored_and_forecast_from_an_analysis_without_it(folder, store, tmp_path, capsys):
    main("train", [*options(folder, tmp_path), "trainer.max_steps=60", "run=wet", "output=json"])
    rows = json.loads(capsys.readouterr().out)["scores"]
    rain = next(row for row in rows if row["variable"] == "tp" and row["metric"] == "rmse")
    assert rain["value"] < rain["baseline"]["persistence"]
    analysis = xr.open_dataset(folder / "wet.nc").isel(time=[-3, -2, -1])
    analysis.drop_vars(["tp", "tcc", "i10fg"]).to_netcdf(tmp_path / "dry.nc")
    out = tmp_path / "forecast.nc"
    main("forecast", [f"runs_dir={tmp_path}", f"data.path={tmp_path / 'dry.nc'}", f"out={out}", "lead_time=24h"])
    with xr.open_dataset(out) as forecast:
        assert np.isfinite(forecast.total_precipitation.values).all()
        assert (forecast.total_precipitation.values >= 0).all()
    other = load_run(RunFolder.find("wet", str(tmp_path)), overrides={"data.path": str(tmp_path / "dry.nc")})
    batch = other.splits.test.collate([other.splits.test.sample(0, np.random.default_rng(0))])
    metrics = other.task.metrics()
    metrics.update(other.task.predict(other.model, batch), batch)
    assert {score.variable for score in metrics.compute()} == {"t2m", "u10"}  # nothing is known of the others


def test_only_diagnostic_variables_have_logarithms_and_bounds():
    for variable in VARIABLES:
        bounded = variable.log_scale is not None or np.isfinite(variable.bounds).any()
        assert not bounded or variable.role is Role.DIAGNOSTIC
