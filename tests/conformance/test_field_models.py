"""Models from fields to fields train, score, forecast and go on in the domains that they serve."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from domains.fluids.solver.simulate import simulate
from domains.fluids.solver.simulate_config import SimulateConfig
from sciml.app.cli import main
from sciml.core.errors import ConfigError
from sciml.parallel.degrees import check_plan
from sciml.run.compose import compose
from sciml.run.loaded import load_run
from sciml.run.reference_models import build_reference_models, train_reference_models
from sciml.run.scoring import score_run
from sciml.run.session import TrainingSession
from sciml.run.spec import RunSpec, follow_data
from sciml.testing.ranks import ranks
from sciml.testing.sessions import ALONE, start_session

MODELS = {
    "unet": "{kind: unet, square: 2, widths: [8, 16]}",
    "convnext_unet": "{kind: convnext_unet, widths: [8, 16], kernel: 3}",
    "fno": "{kind: fno, width: 8, depth: 2, modes: [3, 4]}",
    "uvit": "{kind: uvit, square: 2, patch_size: 4, conv_width: 8, embed_dim: 16, depth: 1, num_heads: 2}",
}
SHORT = ("trainer.max_steps=12", "trainer.global_batch_size=4", "trainer.num_threads=1", "optim.warmup_steps=2",
         "optim.lr=1e-2", "trainer.valid_samples=8", "seed=7")  # fmt: skip


@pytest.fixture(scope="module")
def flows(tmp_path_factory):
    out = tmp_path_factory.mktemp("flows") / "flows.nc"
    config = SimulateConfig(
        str(out), count=8, cases=("collision",), nx=32, nz=16, frames=8, interval=40.0, compile=False
    )
    return simulate(config)


def arguments_of(domain, kind, folder, flows):
    own = {
        "climate": ["task.intervals=[24h]", "task.score_lead_times=[24h]", "reference_models=null"],
        "fluids": [f"data.path={flows}", "data.splits={train: 6, valid: 1, test: 1}", "task.score_frames=[1,2]",
                   "reference_models=null", "data.augment=roll_mirror", "task.baseline=none"],
    }  # fmt: skip
    return [f"domain={domain}", f"model={kind}", *SHORT, *own[domain], f"runs_dir={folder}"]


def configured(domain, kind, folder, flows, *more):
    """A composition in which the model's keys are those of its kind alone."""
    given = [argument for argument in arguments_of(domain, kind, folder, flows) if not argument.startswith("model=")]
    composition = compose("train", [*given, f"reference_models.other={{model: {MODELS[kind]}}}", *more])
    config = composition.config
    config["model"] = config["reference_models"].pop("other")["model"]
    return composition


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("domain", "kind"),
    [("climate", "uvit"), *(("fluids", kind) for kind in MODELS),
     *(pytest.param("climate", kind, marks=pytest.mark.slow) for kind in MODELS if kind != "uvit")],
)  # fmt: skip
def test_the_loss_falls_and_a_saved_model_predicts_the_same(domain, kind, tmp_path, flows):
    training = start_session(configured(domain, kind, tmp_path, flows))
    before = training.trainer.validation.run()["loss"]
    training.trainer.fit()
    assert training.trainer.validation.run()["loss"] < 0.98 * before
    loaded = load_run(training.folder, checkpoint="latest")
    source = training.trainer.splits.test
    batch = source.collate([source.sample(0, np.random.default_rng(0))])
    with training.trainer.validation.weights() as model:
        kept = training.trainer.task.predict(model, batch)
    with torch.no_grad():
        found = loaded.task.predict(loaded.model, batch)
    for name, value in kept.values.items():
        assert torch.equal(found.values[name], value)


@pytest.mark.parametrize("optimizer", [pytest.param("adamw", marks=pytest.mark.slow), "muon"])
def test_both_optimizers_train_convolutions(optimizer, tmp_path, flows):
    training = start_session(configured("climate", "unet", tmp_path, flows, f"optim={optimizer}"))
    before = training.trainer.validation.run()["loss"]
    training.trainer.fit()
    assert training.trainer.validation.run()["loss"] < 0.98 * before


@pytest.mark.parametrize("kind", ["unet", "fno"])
def test_what_cannot_be_cut_is_refused(kind, tmp_path, flows):
    config = configured("climate", kind, tmp_path, flows).config
    spec = RunSpec.build(config)
    with torch.device("meta"):
        model = spec.domain.model(spec, spec.domain.splits(spec).schema)
    with pytest.raises(ConfigError, match="which has no sharding plan"):
        check_plan(model, matrices=2, tokens=1, ring=1, stages=1)


def _trained_beside(world, config):
    """Trains a run and its reference models on the ranks of a group; returns the scores."""
    spec = RunSpec.build(config)
    training = TrainingSession.start(spec, world)
    training.fit()
    assert train_reference_models(build_reference_models(spec), training.folder, world)
    evaluation = score_run(training.folder, training.trainer.mesh, spec.parallel)
    world.barrier()
    return None if evaluation is None else list(evaluation.scores)


def test_a_rival_that_cannot_be_cut_stands_beside_a_pipelined_model(tmp_path, flows):
    rival = f"reference_models={{unet: {{model: {MODELS['unet']}}}}}"
    few = ("trainer.max_steps=2", "task.pushforward=0", "trainer.micro_batch_size=2", rival)
    alone, cut = (
        configured("fluids", "uvit", tmp_path / name, flows, *few, *more).config
        for name, more in (("alone", ()), ("cut", ("parallel.pp=2",)))
    )
    for config in (alone, cut):
        config["model"]["depth"] = 2
    one = _trained_beside(ALONE, alone)
    two, _ = ranks(2).run(_trained_beside, cut)
    assert [set(row["baseline"]) for row in two] == [set(row["baseline"]) for row in one]
    for row, other in zip(one, two, strict=True):
        assert row["baseline"]["unet"] == pytest.approx(other["baseline"]["unet"], rel=1e-3, abs=1e-9)
        assert row["value"] == pytest.approx(other["value"], rel=1e-3, abs=1e-9)


@pytest.mark.slow
def test_a_run_is_planned_trained_and_forecasts(tmp_path, capsys):
    main("plan", ["domain=climate", "model=vit_tiny", "devices=2", "pictures=false", f"out={tmp_path}", "output=json"])
    assert json.loads(capsys.readouterr().out)
    main("train", ["domain=climate", "model=vit_tiny", "optim=muon", *SHORT[:3], f"runs_dir={tmp_path}",
                   "task.score_lead_times=[24h]", "output=json"])  # fmt: skip
    assert json.loads(capsys.readouterr().out)["scores"]
    main("forecast", [f"runs_dir={tmp_path}", "lead_time=24h", f"out={tmp_path / 'forecast.nc'}", "output=json"])
    assert (tmp_path / "forecast.nc").stat().st_size > 1000


@pytest.mark.parametrize("model", ["unet_tiny", "fno_flow_tiny"])
@pytest.mark.parametrize(("domain", "told"), [("climate", ("latitude",)), ("fluids", ("z",))])
def test_one_preset_serves_both_domains(domain, told, model, flows):
    given = [f"data.path={flows}", "data.splits={train: 6, valid: 1, test: 1}"] if domain == "fluids" else []
    spec, _ = follow_data(RunSpec.build(compose("train", [f"domain={domain}", f"model={model}", *given]).config))
    assert spec.model.position_features == told
    assert spec.model.condition_on == ("lead_time",)


@pytest.mark.parametrize("domain", ["climate", "fluids"])
def test_a_schedule_that_features_beside_the_blocks_cannot_go_through_is_refused(domain):
    overrides = [f"domain={domain}", "parallel.pp=2", "parallel.schedule=zero_bubble"]
    overrides += ["task.pushforward=0"] if domain == "fluids" else []
    with pytest.raises(ConfigError, match=r"parallel\.schedule: features that pass by the blocks"):
        RunSpec.build(compose("train", overrides).config)
