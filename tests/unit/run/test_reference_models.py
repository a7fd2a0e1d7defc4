"""Companions: which models are trained beside a run's own, in which order, with which configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sciml.app.cli import main
from sciml.run.folder import RunFolder
from sciml.run.reference_models import companions_of

ROOT = Path(__file__).resolve().parents[3]
TOY = ["--config-dir", str(ROOT / "tests" / "conformance" / "toy" / "conf"), "domain=toy", "trainer.max_steps=4",
       "trainer.num_threads=1", "trainer.global_batch_size=4", "trainer.save_every=2"]  # fmt: skip
WIDE = "companions={wide: {model: {embed_dim: 64}}, short: {trainer: {max_steps: 2}}}"


def test_all_models_of_the_first_seed_come_first():
    config = {"seed": 5, "model": {"a": 1, "b": 2}, "companions": {"other": {"model": {"b": 3}}}, "repeats": 2}
    found = [(name, repeat, values["seed"], values["model"]) for name, repeat, values in companions_of(config)]
    assert found == [
        ("other", 0, 5, {"a": 1, "b": 3}),
        ("model", 1, 6, {"a": 1, "b": 2}),
        ("other", 1, 6, {"a": 1, "b": 3}),
    ]
    assert all(values["companions"] == {} and values["repeats"] == 1 for _, _, values in companions_of(config))


def test_companions_are_baselines_and_are_not_trained_twice(tmp_path, capsys):
    main("train", [*TOY, WIDE, f"runs_dir={tmp_path}", "output=json"])
    first = json.loads(capsys.readouterr().out)["scores"]
    assert all(set(row["baseline"]) == {"persistence", "wide", "short"} for row in first)
    folder = RunFolder.find("latest", str(tmp_path)).path
    checkpoints = {path: path.stat().st_mtime_ns for path in folder.glob("companions/*/checkpoints/step-*")}
    assert {path.parts[-3] for path in checkpoints} == {"wide-0", "short-0"}
    main("train", [*TOY, f"runs_dir={tmp_path}", f"resume={folder}", "output=json"])
    assert json.loads(capsys.readouterr().out)["scores"] == first
    assert {path: path.stat().st_mtime_ns for path in folder.glob("companions/*/checkpoints/step-*")} == checkpoints
    assert RunFolder.find("latest", str(tmp_path)).path == folder


def test_a_comparison_leaves_out_what_is_not_trained_yet(tmp_path, capsys):
    main("train", [*TOY, WIDE, f"runs_dir={tmp_path}", "output=json"])
    folder = RunFolder.find("latest", str(tmp_path)).path
    for path in (folder / "companions" / "wide-0" / "checkpoints").glob("step-*4"):
        path.rename(path.with_name("gone"))
    capsys.readouterr()
    main("compare", [f"runs_dir={tmp_path}", "rounds=1", "output=json"])
    assert {row["model"] for row in json.loads(capsys.readouterr().out)["scores"]} == {"model", "short"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("companions={wide: {modle: {embed_dim: 64}}}", "modle: unknown group of keys; did you mean 'model'"),
        ("companions={wide: {model: {embed_dm: 64}}}", "embed_dm"),
        ("repeats=0", "repeats: 0 is not positive"),
    ],
)
def test_bad_companions_are_refused_before_training(tmp_path, capsys, given, says):
    with pytest.raises(SystemExit) as ended:
        main("train", [*TOY, given, f"runs_dir={tmp_path}"])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.rglob("run.json"))
