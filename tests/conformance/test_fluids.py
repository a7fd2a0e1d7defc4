"""The fluids domain, small, through the suite that every domain inherits; and what only fluids promise."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from domains.fluids.data.readers import open_sources
from domains.fluids.forecast.baselines import PERSISTENCE, PROPAGATOR
from domains.fluids.solver.simulate import simulate
from domains.fluids.solver.simulate_config import SimulateConfig
from sciml.app.cli import main
from sciml.forecast.rollout import rollout
from sciml.run.folder import RunFolder
from sciml.testing.conformance import DomainConformance

SMALL = (
    "domain=fluids", "model=amr_tiny", "optim=adamw",
    "model.patch_size=8", "model.embed_dim=24", "model.depth=2", "model.num_heads=2",
    "model.rotary_max_harmonic=4", "task.score_frames=[1,2]", "task.noise=0", "task.pushforward=0",
    "data.splits={train: 20, valid: 2, test: 2}", "data.augment=roll_mirror", "reference_models=null",
)  # fmt: skip


@pytest.fixture(scope="module")
def flows(tmp_path_factory):
    out = tmp_path_factory.mktemp("flows") / "flows.nc"
    config = SimulateConfig(str(out), count=24, cases=("collision", "density", "thermal"), nx=32, nz=16, frames=8)
    return simulate(replace(config, interval=40.0, compile=False))


@pytest.fixture(scope="module")
def small(flows):
    return (*SMALL, f"data.path={flows}")


@pytest.fixture(scope="module")
def runs(small, tmp_path_factory):
    """A folder with one trained run."""
    folder = tmp_path_factory.mktemp("runs")
    main("train", [*small, f"runs_dir={folder}", "trainer.max_steps=4", "trainer.num_threads=1"])
    return folder


class TestFluids(DomainConformance):
    falling = ("trainer.max_steps=120", "optim.lr=1e-2", "trainer.global_batch_size=8", "task.baseline=none")
    meshes = ("parallel.dp=2", "parallel.tp=2", "parallel.pp=2 trainer.micro_batch_size=2")
    waiting = ("of_numbers",)  # how many tokens there are

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _small(cls, small):
        cls.overrides = small

    @pytest.fixture(scope="class")
    @classmethod
    def commanded(cls, runs):
        return runs

    def arguments_of(self, verb, folder):
        own = {
            "forecast": ("lead_time=80s", "members=3", f"out={folder / 'forecast.nc'}"),
            "simulate": ("count=2", "nx=32", "nz=16", "frames=2", "compile=false", f"out={folder / 'flows.nc'}"),
        }
        return own.get(verb) or super().arguments_of(verb, folder)

    @pytest.mark.parametrize(("baseline", "judge"), [("none", PERSISTENCE), ("propagator", PROPAGATOR)])
    def test_an_untrained_model_is_what_it_corrects(self, tmp_path, baseline, judge):
        training = self.training(tmp_path, f"task.baseline={baseline}", "task.conserve=[]")
        splits, task, model = training.trainer.splits, training.trainer.task, training.trainer.engine.model.module
        batch = splits.test.collate([splits.test.sample(n, np.random.default_rng(0)) for n in range(2)])
        for step, prediction in rollout(task, model, batch):
            expected = task.baselines()[judge](step).values["flow"]
            torch.testing.assert_close(prediction.values["flow"], expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("indicator", ["oracle", "learned", "increment", "random"])
    def test_patches_are_refined_behind_a_fitted_step(self, tmp_path, indicator):
        training = self.training(tmp_path, f"model.indicator={indicator}", "trainer.max_steps=1")
        training.trainer.fit()
        source, task = training.trainer.splits.test, training.trainer.task
        prediction = task.predict(
            training.trainer.engine.model.module, source.collate([source.sample(0, np.random.default_rng(0))])
        )
        assert prediction.forests["flow"].is_refined(0).any()

    def test_what_is_conserved_stays_while_the_model_learns(self, tmp_path):
        training = self.training(tmp_path, "trainer.max_steps=20", "optim.lr=5e-3")
        training.trainer.fit()
        source, task = training.trainer.splits.test, training.trainer.task
        batch = source.collate([source.sample(0, np.random.default_rng(0))])
        with training.trainer.validation.weights() as model:
            for step, prediction in rollout(task, model, batch):
                moved = (prediction.values["flow"] - step.parts["flow"].state).double()
                assert moved[:, 0].abs().max() > 1e-6
                assert moved[:, 0].mean().abs() < 1e-5 * moved[:, 0].abs().max()


def test_a_forecast_is_read_as_a_flow(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("domains.fluids.domain.forecast_figures", lambda *_: [])  # another test draws them
    out = tmp_path / "forecast.nc"
    asked = ["lead_time=120s", "members=3", "init_time=1@40s"]
    main("forecast", [f"runs_dir={runs}", f"out={out}", *asked, "output=json"])
    said = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(said["lead_times_h"], [40 / 3600, 80 / 3600, 120 / 3600])
    members = open_sources(str(out))
    assert [len(member) for member in members] == [4, 4, 4]
    assert members[0].boundary.names == {"x": ("periodic", "periodic"), "z": ("wall", "wall")}
    states = np.stack([member.read() for member in members])
    assert np.isfinite(states).all()
    assert (states[0, 0] != states[1, 0]).any()


@pytest.mark.slow
def test_a_forecast_is_its_own_first_part(runs, tmp_path):
    for lead in (40, 120):
        main("forecast", [f"runs_dir={runs}", f"out={tmp_path / f'{lead}.nc'}", f"lead_time={lead}s"])
    short, long = (open_sources(str(tmp_path / f"{lead}.nc"))[0] for lead in (40, 120))
    np.testing.assert_array_equal(short.read(), long.read(slice(0, 2)))


@pytest.mark.usefixtures("no_reports")
def test_reference_models_are_trained_scored_and_compared(small, tmp_path, capsys):
    arguments = [f"runs_dir={tmp_path}", "trainer.max_steps=3", "trainer.num_threads=1", "seeds=2"]
    coarse = "reference_models={uniform_coarse: {model: {ratios: [], budgets: []}}}"
    main("train", [*small, coarse, *arguments, "output=json"])
    rows = json.loads(capsys.readouterr().out)["scores"]
    expected = {"persistence", "uniform_coarse", "solver_coarser_by_2", "solver_coarser_by_4", "propagator"}
    assert all(set(row["baseline"]) == expected for row in rows if row["metric"] == "vrmse")
    folder = RunFolder.find("latest", str(tmp_path))
    assert {path.name for path in (folder.path / "reference_models").iterdir()} == {
        "uniform_coarse-0", "uniform_coarse-1", "model-1",
    }  # fmt: skip
    main("compare", [f"runs_dir={tmp_path}", f"run={folder.path}", "rounds=2", "output=json"])
    said = json.loads(capsys.readouterr().out)
    assert {(row["model"], row["seeds"]) for row in said["scores"]} == {
        ("model", 2), ("uniform_coarse", 2), ("persistence", 1), ("solver_coarser_by_2", 1), ("solver_coarser_by_4", 1),
        ("propagator", 1),
    }  # fmt: skip
    assert said["groups"] == 2
    for row in said["scores"]:
        value, low, high = row["value"]
        assert low <= value <= high
    assert said["costs"]["model"]["train_step_s"] > 0
    assert (folder.path / "comparison" / "pareto.png").stat().st_size > 1000


@pytest.mark.usefixtures("no_reports")
def test_simulated_flows_can_be_trained_on(tmp_path, capsys):
    out = tmp_path / "mine.nc"
    asked = ["count=6", "nx=32", "nz=16", "frames=5", "interval=40", "compile=false", "output=json"]
    main("simulate", ["domain=fluids", f"out={out}", *asked])
    assert json.loads(capsys.readouterr().out) == {"path": str(out)}
    small = [value for value in SMALL if not value.startswith("data.splits")]
    main("train", [*small, f"data.path={out}", f"runs_dir={tmp_path}", "trainer.max_steps=2", "trainer.num_threads=1"])
    assert RunFolder.find("latest", str(tmp_path)).scores()
