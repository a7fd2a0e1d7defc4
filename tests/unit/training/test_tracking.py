"""Views in other programs show everything, resume in the run that they began, and can never kill a training."""

import importlib.util
import json
import sqlite3
from types import SimpleNamespace

import pytest

from sciml.core.errors import MissingExtraError
from sciml.training import tracking
from sciml.training.tracking import Tracker, TrackingConfig, build_tracker, check_tracking

RECORD = {"loss": 0.5, "samples_per_s": 10.0}
ROWS = [
    {"metric": "rmse", "variable": "z500", "lead_time_h": 72.0, "value": 216.0},
    {"metric": "bits", "variable": "byte", "lead_time_h": None, "value": 2.0},
]


def needs(name):
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")


def test_a_view_that_fails_is_told_once_and_left_out(capsys):
    calls = []

    def broken(name, value, step):
        calls.append(name)
        raise ConnectionError("no route to host")

    tracker = Tracker(lambda: SimpleNamespace(metric=broken, close=lambda: None), "mlflow")
    for step in range(1, 4):
        tracker.on_step(step, RECORD)
    tracker.close()
    assert len(calls) == 1
    assert capsys.readouterr().err.count("mlflow does not answer") == 1


def test_a_view_that_cannot_be_opened_is_left_out(capsys):
    def refused():
        raise RuntimeError("the file store is in maintenance mode")

    tracker = Tracker(refused, "mlflow")
    tracker.parameters({"a": {"b": 1}})
    tracker.on_validation(1, RECORD)
    tracker.scores(ROWS, 1)
    tracker.close()
    assert capsys.readouterr().err.splitlines() == [
        "mlflow does not answer and is left out from here on: the file store is in maintenance mode"
    ]


def test_scores_and_parameters_are_shown_by_name():
    shown = {}
    view = SimpleNamespace(
        metric=lambda name, value, step: shown.update({name: (value, step)}), parameters=shown.update
    )
    tracker = Tracker(lambda: view, "any")
    tracker.scores(ROWS, 9)
    tracker.parameters({"optim": {"lr": 0.1, "momentum": None}, "reference_models": {}})
    assert shown == {"test/rmse/z500/72h": (216.0, 9), "test/bits/byte": (2.0, 9), "optim.lr": 0.1}


def test_a_missing_tracker_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    for kind in ("tensorboard", "mlflow", "wandb"):
        with pytest.raises(MissingExtraError, match=r"pip install -e '\.\[tracking\]'"):
            check_tracking(TrackingConfig(kind))
    check_tracking(TrackingConfig())
    assert build_tracker(TrackingConfig(), tmp_path, 1) is None


def shown_twice(kind, folder):
    """A training, and what follows when it was scored."""
    tracker = build_tracker(TrackingConfig(kind), folder, 1)
    tracker.parameters({"optim": {"lr": 0.1}})
    tracker.on_step(1, RECORD)
    tracker.on_validation(1, {"loss": 0.25})
    tracker.close()
    report = folder / "report.html"
    report.write_text("scored")
    again = build_tracker(TrackingConfig(kind), folder)
    again.parameters({"optim": {"lr": 0.1}})
    again.scores(ROWS, 1)
    again.file(report)
    again.close()
    assert tracker.view is not None
    assert again.view is not None


@needs("mlflow")
@needs("sqlalchemy")
@pytest.mark.filterwarnings("ignore")  # of MLflow's own packages
def test_mlflow_keeps_one_run_in_the_runs_folder(tmp_path, capsys):
    shown_twice("mlflow", tmp_path)
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        metrics = dict(store.execute("select key, value from metrics"))
        assert store.execute("select count(*) from runs").fetchone() == (1,)
        assert store.execute("select key, value from params").fetchall() == [("optim.lr", "0.1")]
    assert metrics["valid/loss"] == 0.25
    assert metrics["test/rmse/z500/72h"] == 216.0
    assert [path.read_text() for path in (tmp_path / "mlflow").rglob("report.html")] == ["scored"]
    assert "does not answer" not in capsys.readouterr().err


@needs("wandb")
@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_offline(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    shown_twice("wandb", tmp_path)
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert set(json.loads((tmp_path / "tracking.json").read_text())) == {"wandb"}
    assert "does not answer" not in capsys.readouterr().err


@needs("tensorboard")
def test_tensorboard_writes_event_files(tmp_path, capsys):
    shown_twice("tensorboard", tmp_path)
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert "does not answer" not in capsys.readouterr().err
