"""Reference models: which are trained beside a run's own, in which order, with which configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sciml.app.cli import main
from sciml.run.compose import compose
from sciml.run.folder import RunFolder
from sciml.run.reference_models import build_reference_models
from sciml.run.spec import RunSpec

ROOT = Path(__file__).resolve().parents[3]
TOY = ["--config-dir", str(ROOT / "tests" / "conformance" / "toy" / "conf"), "domain=toy", "trainer.max_steps=4",
       "trainer.num_threads=1", "trainer.global_batch_size=4", "trainer.save_every=2"]  # fmt: skip
WIDE = "reference_models={wide: {model: {embed_dim: 64}}, short: {trainer: {max_steps: 2}}}"


def test_all_models_of_the_first_seed_come_first():
    toy = compose("train", [*TOY[2:], "seed=5", WIDE, "seeds=2"], TOY[1])
    models = build_reference_models(RunSpec.build(toy.config))
    assert [(m.name, m.number, m.spec.seed, m.spec.model.embed_dim, m.spec.trainer.max_steps) for m in models] == [
        ("wide", 0, 5, 64, 4),
        ("short", 0, 5, 32, 2),
        ("model", 1, 6, 32, 4),
        ("wide", 1, 6, 64, 4),
        ("short", 1, 6, 32, 2),
    ]
    assert all(not m.spec.options.reference_models and m.spec.options.seeds == 1 for m in models)


def test_keys_of_a_model_of_another_kind_stand_alone():
    given = "reference_models={window: {model: {kind: window}}, same: {model: {kind: vit, depth: 1}}}"
    toy = compose("train", [*TOY[2:], given, "init_from=runs/toy/earlier"], TOY[1])
    window, same = (model.spec for model in build_reference_models(RunSpec.build(toy.config)))
    assert window.config["model"] == {"kind": "window"}
    assert window.model.width == 3
    assert window.options.init_from is None
    assert (same.model.depth, same.model.embed_dim) == (1, 32)
    assert same.options.init_from == "runs/toy/earlier"


def test_null_leaves_one_out():
    given = "reference_models={wide: null, short: {trainer: {max_steps: 2}}}"
    toy = compose("train", [*TOY[2:], given], TOY[1])
    assert [model.name for model in build_reference_models(RunSpec.build(toy.config))] == ["short"]


def test_null_leaves_all_out():
    for domain in ("climate", "fluids"):
        assert build_reference_models(RunSpec.build(compose("train", [f"domain={domain}"]).config))
        alone = compose("train", [f"domain={domain}", "reference_models=null"])
        assert not build_reference_models(RunSpec.build(alone.config))


@pytest.mark.usefixtures("no_reports")
def test_reference_models_are_baselines_and_are_not_trained_twice(tmp_path, capsys):
    main("train", [*TOY, WIDE, f"runs_dir={tmp_path}", "output=json"])
    first = json.loads(capsys.readouterr().out)["scores"]
    assert all(set(row["baseline"]) == {"standing_still", "wide", "short"} for row in first)
    folder = RunFolder.find("latest", str(tmp_path)).path
    checkpoints = {path: path.stat().st_mtime_ns for path in folder.glob("reference_models/*/checkpoints/step-*")}
    assert {path.parts[-3] for path in checkpoints} == {"wide-0", "short-0"}
    main("train", [*TOY, f"runs_dir={tmp_path}", f"resume={folder}", "output=json"])
    assert json.loads(capsys.readouterr().out)["scores"] == first
    assert {
        path: path.stat().st_mtime_ns for path in folder.glob("reference_models/*/checkpoints/step-*")
    } == checkpoints
    assert RunFolder.find("latest", str(tmp_path)).path == folder


@pytest.mark.usefixtures("no_reports")
def test_a_comparison_leaves_out_what_is_not_trained_yet(tmp_path, capsys):
    main("train", [*TOY, WIDE, f"runs_dir={tmp_path}", "output=json"])
    folder = RunFolder.find("latest", str(tmp_path)).path
    for path in (folder / "reference_models" / "wide-0" / "checkpoints").glob("step-*4"):
        path.rename(path.with_name("gone"))
    capsys.readouterr()
    main("compare", [f"runs_dir={tmp_path}", "rounds=1", "output=json"])
    assert {row["model"] for row in json.loads(capsys.readouterr().out)["scores"]} == {
        "model",
        "short",
        "standing_still",
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("reference_models={wide: {modle: {embed_dim: 64}}}", "modle: unknown group of keys; did you mean 'model'"),
        ("reference_models={wide: {model: {embed_dm: 64}}}", "reference_models.wide.model.embed_dm: unknown key"),
        (
            "reference_models={w: {model: {kind: window, depth: 2}}}",
            "w.model.depth: unknown key; did you mean 'reference_models.w.model.width'?",
        ),
        ("reference_models={w: {model: {kind: abacus}}}", "a model of kind 'abacus' cannot serve domain=toy"),
        ("seeds=0", "seeds must be at least 1, got 0; try seeds=1"),
        ("companions={wide: {model: {embed_dim: 64}}}", "companions: unknown key; did you mean 'reference_models'?"),
        ("repeats=2", "repeats: unknown key; did you mean 'seeds'?"),
    ],
)
def test_bad_reference_models_are_refused_before_training(tmp_path, capsys, given, says):
    with pytest.raises(SystemExit) as ended:
        main("train", [*TOY, given, f"runs_dir={tmp_path}"])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.rglob("run.json"))
