"""The climate domain, small, through the suite that every domain inherits; and what only climate promises."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import sciml
from domains.climate.data.synthetic import synthetic_source
from sciml.app.cli import main
from sciml.core.errors import ConfigError
from sciml.forecast.rollout import rollout
from sciml.run.compose import compose
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_run
from sciml.testing.conformance import SMALL as QUICK
from sciml.testing.conformance import DomainConformance
from sciml.testing.sessions import start_session
from tests.unit.climate.climax_files import tensors, write


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    synthetic_source(num_times=160, step_hours=12).to_zarr(folder / "waves.zarr", zarr_format=2)
    return folder


SMALL = (
    "domain=climate", "reference_models=null",
    "data.augment=none", "model.patch_size=4", "model.embed_dim=32", "model.depth=2",
    "model.num_heads=2", "task.intervals=[24h]", "task.score_lead_times=[24h,48h]", "data.splits.valid=0.2",
    "data.splits.train=0.6", "data.splits.test=0.2",
)  # fmt: skip


@pytest.fixture(scope="module")
def small(archive):
    return (*SMALL, f"data.path={archive / 'waves.zarr'}", f"data.cache={archive / 'cache'}")


@pytest.fixture(scope="module")
def runs(small, tmp_path_factory):
    """A folder with one trained run."""
    folder = tmp_path_factory.mktemp("runs")
    main("train", [*small, f"runs_dir={folder}", "trainer.max_steps=4", "trainer.num_threads=1"])
    return folder


class TestClimate(DomainConformance):
    falling = ("trainer.max_steps=60", "optim.lr=5e-3")
    meshes = ("parallel.dp=2", "parallel.tp=2", "parallel.pp=2 trainer.micro_batch_size=2")

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _small(cls, small):
        cls.overrides = small

    @pytest.fixture(scope="class")
    @classmethod
    def commanded(cls, runs):
        return runs

    def arguments_of(self, verb, folder):
        if verb == "simulate":
            pytest.importorskip("dinosaur")
        path = next(override for override in self.overrides if override.startswith("data.path="))
        own = {
            "forecast": ("lead_time=24h", "members=3", f"out={folder / 'forecast.nc'}"),
            "import": (f"climax={write(folder / 'climax.pt', tensors(48, dim=64))}", f"out={folder / 'run'}"),
            "prepare": (path.removeprefix("data."), f"out={folder / 'store.zarr'}"),
            "simulate": ("days=1", "spinup_days=0", f"out={folder / 'weather.zarr'}"),
        }
        return own.get(verb) or super().arguments_of(verb, folder)

    def test_an_untrained_model_is_persistence(self, tmp_path):
        training = self.training(tmp_path)
        splits, task, model = training.trainer.splits, training.trainer.task, training.trainer.engine.model.module
        batch = splits.test.collate([splits.test.sample(n, np.random.default_rng(0)) for n in range(3)])
        for _, prediction in rollout(task, model, batch):
            assert torch.equal(prediction.values["fields"], batch.initial)

    def test_a_perfect_increment_is_denormalized_to_the_truth(self, tmp_path):
        training = self.training(tmp_path)
        splits, task = training.trainer.splits, training.trainer.task
        batch = splits.test.collate([splits.test.sample(n, np.random.default_rng(0)) for n in range(3)])
        scale = splits.statistics.increment_std_at(batch.intervals[:, 0])[:, :, None, None]
        truth = batch.targets[:, 0]

        def oracle(*arguments, **options):
            return (truth - batch.state) / scale

        torch.testing.assert_close(task.predict(oracle, batch).values["fields"], truth, rtol=1e-6, atol=1e-3)

    def test_weights_move_to_other_variables(self, runs, tmp_path):
        source = RunFolder.find("latest", str(runs))
        fine = self.training(tmp_path, f"init_from={source.path}", "data.channels=[u10,t2m,v850]")
        model, older = fine.trainer.engine.model.module, load_run(source).model
        shared = older.channels.index("t2m")
        assert torch.equal(model.net.stem.weight[1], older.net.stem.weight[shared])
        assert torch.equal(model.net.head.weight[1], older.net.head.weight[shared])
        assert torch.equal(model.net.trunk.blocks[1].mlp.up.weight, older.net.trunk.blocks[1].mlp.up.weight)


CLIMAX = ("model=climax_tiny", "trainer.valid_every=1000", "trainer.max_steps=40", "optim.lr=5e-3")


@pytest.mark.parametrize("predicts", ["increment", pytest.param("state", marks=pytest.mark.slow)])
def test_a_climax_trains_is_saved_and_starts_another(small, predicts, tmp_path):
    """What it predicts changes nothing for those who use it."""
    overrides = [*QUICK, *small, *CLIMAX, f"model.predicts={predicts}", f"runs_dir={tmp_path}"]
    run = start_session(compose("train", overrides))
    trainer = run.trainer
    before = trainer.validation.run()["loss"]
    trainer.fit()
    loaded = load_run(run.folder, checkpoint="latest")
    assert trainer.validation.run()["loss"] < 0.9 * before
    batch = trainer.splits.test.collate([trainer.splits.test.sample(0, np.random.default_rng(0))])
    with trainer.validation.weights() as model, torch.no_grad():
        kept = trainer.task.predict(model, batch).values["fields"]
        assert torch.equal(loaded.task.predict(loaded.model, batch).values["fields"], kept)
    fine = start_session(compose("train", [*overrides, f"init_from={run.folder.path}", "data.channels=[t2m,u10]"]))
    rows = loaded.model.tokenizer.embedding.weight
    found = fine.trainer.engine.model.module
    assert torch.equal(found.tokenizer.embedding.weight[0], rows[loaded.model.channels.index("t2m")])
    assert torch.equal(found.position.weight, loaded.model.position.weight)


def test_a_state_is_predicted_as_its_increment(small, tmp_path):
    """A model that returns the standardized truth forecasts the truth, and its loss is zero."""
    run = start_session(compose("train", [*QUICK, *small, *CLIMAX, "model.predicts=state", f"runs_dir={tmp_path}"]))
    splits, task = run.trainer.splits, run.trainer.task
    batch = splits.valid.collate([splits.valid.sample(n, np.random.default_rng(0)) for n in range(3)])
    mean, std = (value[:, None, None] for value in (splits.statistics.mean, splits.statistics.std))

    def oracle(*arguments, **options):
        return (batch.targets[:, 0] - mean) / std

    torch.testing.assert_close(task.predict(oracle, batch).values["fields"], batch.targets[:, 0], rtol=1e-5, atol=1e-2)
    assert task.loss(oracle, batch).loss < 1e-6


@pytest.mark.parametrize("suffix", ["zarr", "nc"])
def test_a_forecast_file_reopens_in_weatherbenchs_layout(runs, suffix, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("domains.climate.domain.forecast_figures", lambda *_: [])  # another test draws them
    out = tmp_path / f"forecast.{suffix}"
    main("forecast", [f"runs_dir={runs}", f"out={out}", "lead_time=72h", "members=3", "output=json"])
    said = json.loads(capsys.readouterr().out)
    assert said["lead_times_h"] == [24, 48, 72]
    with xr.open_dataset(out, engine="zarr" if suffix == "zarr" else "netcdf4") as forecast:
        assert forecast["geopotential"].dims[:3] == ("time", "prediction_timedelta", "number")
        assert forecast.sizes["prediction_timedelta"] == 3
        assert forecast.sizes["number"] == 3
        lead = forecast["valid_time"].values[0] - forecast["time"].values[0]
        assert (lead == forecast["prediction_timedelta"].values).all()
        assert (lead == np.array([24, 48, 72], "timedelta64[h]")).all()
        assert np.isfinite(forecast["temperature"].values).all()
        assert (forecast["2m_temperature"].std("number").mean(("time", "latitude", "longitude")) > 0).all()


def test_a_forecast_is_its_own_first_part(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("domains.climate.domain.forecast_figures", lambda *_: [])  # another test draws them
    for lead in (24, 72):
        main("forecast", [f"runs_dir={runs}", f"out={tmp_path / f'{lead}.nc'}", f"lead_time={lead}h"])
    with xr.open_dataset(tmp_path / "24.nc") as short, xr.open_dataset(tmp_path / "72.nc") as long:
        xr.testing.assert_equal(short, long.isel(prediction_timedelta=slice(0, 1)))


def test_python_forecasts_what_the_command_writes(runs, archive, tmp_path, monkeypatch):
    monkeypatch.setattr("domains.climate.domain.forecast_figures", lambda *_: [])  # another test draws them
    monkeypatch.chdir(tmp_path)
    main("forecast", [f"runs_dir={runs}", "out=48.nc", "lead_time=48h", "members=2"])
    model = sciml.load("climate/latest", runs_dir=str(runs))
    forecast = model.forecast(lead_time="48h", members=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["48.nc"]
    with xr.open_dataset("48.nc") as written:
        for name in written.data_vars:
            np.testing.assert_array_equal(forecast[name].values, written[name].values)
    with xr.open_zarr(archive / "waves.zarr") as waves:
        state = waves.isel(time=[-1]).load()
    from_file = model.forecast(state, 24)
    assert from_file["time"].values == state["time"].values
    assert np.isfinite(from_file["geopotential"].values).all()
    with pytest.raises(ConfigError, match=r"model\.depth: cannot be changed"):
        model.forecast(**{"model.depth": 3})
    scores = model.score(**{"task.score_lead_times": ["24h"]})
    assert {"t2m", "z500"} <= set(scores["variable"])
    assert set(scores["lead_time_h"]) == {24.0}


@pytest.mark.usefixtures("no_reports")
def test_an_ensemble_is_scored_with_crps_and_spread(runs, capsys):
    folder = RunFolder.find("latest", str(runs))
    before = folder.scores()
    main("evaluate", [f"runs_dir={runs}", "task.members=4", "task.perturbation=0.1", "output=json"])
    said = json.loads(capsys.readouterr().out)
    assert Path(said["report"]).parent == folder.path / "evaluations" / "001"
    assert folder.scores() == before
    rows = said["scores"]
    found = {(row["metric"], row["lead_time_h"]): row["value"] for row in rows if row["variable"] == "t2m"}
    for lead in (24.0, 48.0):
        assert 0 < found["crps", lead] < 1.5 * found["mae", lead]
        assert found["spread", lead] > 0


@pytest.mark.usefixtures("no_reports")
def test_an_ensemble_by_noise_starts_from_a_deterministic_run(runs, small, tmp_path, capsys):
    source = RunFolder.find("latest", str(runs))
    keys = ["task.loss=crps", "task.members=3", "task.train_members=2", f"init_from={source.path}"]
    overrides = [*QUICK, *small, *keys, f"runs_dir={tmp_path}", "trainer.valid_every=1000", "trainer.valid_samples=2"]
    run = start_session(compose("train", overrides))
    trainer = run.trainer
    batch = trainer.splits.test.collate([trainer.splits.test.sample(0, np.random.default_rng(0))])
    older = load_run(source)
    noise = {name: p for name, p in trainer.engine.whole().named_parameters() if "condition.noise" in name}
    assert noise
    assert not any(parameter.any() for parameter in noise.values())  # though it is drawn for a new model
    with torch.no_grad():
        members = trainer.task.predict(trainer.engine.whole(), batch).values["ensemble"]
        expected = older.task.predict(older.model, batch).values["fields"]
    for number in range(3):
        torch.testing.assert_close(members[:, number], expected, rtol=1e-6, atol=1e-3)
    trainer.fit()
    capsys.readouterr()
    for name, more in (("a", []), ("b", []), ("c", ["seed=9"])):
        main("forecast", [f"run={run.folder.path}", "lead_time=48h", f"out={tmp_path / name}.nc", *more])
    capsys.readouterr()
    three, same, other = (xr.open_dataset(tmp_path / f"{name}.nc")["2m_temperature"] for name in "abc")
    assert (three.std("number") > 0).all()  # without perturbed starts
    np.testing.assert_array_equal(same, three)
    assert abs(other - three).max() > 1e-3
    factors = {
        f"{kind} t2m {hours} 0": factor for kind, factor in (("mean", 1.0), ("spread", 3.0)) for hours in (24, 48)
    }
    (run.folder.path / "calibration.json").write_text(json.dumps(factors))
    for name, more, told in (("d", [], False), ("e", ["perturbation=0.01"], True)):
        main("forecast", [f"run={run.folder.path}", "lead_time=48h", f"out={tmp_path / name}.nc", *more])
        assert ("members are written as they are forecast" in capsys.readouterr().err) == told
    spreads = [
        one.mean("longitude").std("number") for one in (three, xr.open_dataset(tmp_path / "d.nc")["2m_temperature"])
    ]
    np.testing.assert_allclose(spreads[1], 3 * spreads[0], rtol=1e-2)
    with pytest.raises(ConfigError, match=r"task.loss: noise enters a model where the lead time does"):
        start_session(compose("train", [*overrides, "model=climax_tiny"]))


@pytest.mark.usefixtures("no_reports")
def test_a_rollout_is_trained_and_a_long_forecast_says_how_it_drifts(runs, small, tmp_path, capsys):
    source = RunFolder.find("latest", str(runs))
    steps = ["task.rollout_steps=2", "task.pushforward=1", "task.horizon=grow", "task.score_lead_times=[24h]"]
    overrides = [*QUICK, *small, *steps, f"init_from={source.path}", f"runs_dir={tmp_path}", "trainer.valid_samples=2"]
    run = start_session(compose("train", overrides))
    run.fit()
    rows = [row for row in run.folder.history() if "grad_norm" in row]
    assert [set(row) & {"loss_step_1", "loss_step_2"} for row in rows if row["step"] in (1, 6)] == [
        set(), {"loss_step_1", "loss_step_2"},
    ]  # fmt: skip
    capsys.readouterr()
    main("forecast", [f"run={run.folder.path}", "lead_time=20d", f"out={tmp_path / 'long.zarr'}", "output=json"])
    said = json.loads(capsys.readouterr().out)
    assert {row["channel"] for row in said["drift"]} == set(run.trainer.splits.schema.channels)
    assert all(np.isfinite(row["mean"]) and row["variance"] > 0 for row in said["drift"])
    with pytest.raises(ConfigError, match=r"task.rollout_steps: a pipeline takes one step"):
        start_session(compose("train", [*overrides, "parallel.pp=2"]))
