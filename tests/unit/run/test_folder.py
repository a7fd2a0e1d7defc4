"""Runs are found by folder, by name, and as the latest that can do what is asked."""

from __future__ import annotations

import json
import os

import pytest

from sciml.core.errors import ConfigError
from sciml.run.folder import RunFolder
from sciml.training.checkpoint_layout import MANIFEST


def make(path, time, *, ready=True):
    """A run that was begun at a time."""
    path.mkdir(parents=True)
    config = {"domain": {"_target_": "domains.climate.domain.ClimateDomain"}}
    record = {"domain": path.parent.name, "config": config, "samples": {}, "provenance": {"time": time}}
    (path / "run.json").write_text(json.dumps(record))
    if ready:
        step = path / "checkpoints" / "step-00000004"
        step.mkdir(parents=True)
        (step / MANIFEST).write_text("{}")


@pytest.fixture
def runs(tmp_path):
    make(tmp_path / "climate" / "old", "2026-01-01T00:00:00+00:00")
    make(tmp_path / "climate" / "new", "2026-03-01T00:00:00+00:00")
    make(tmp_path / "fluids" / "flow", "2026-02-01T00:00:00+00:00")
    make(tmp_path / "climate" / "begun", "2026-04-01T00:00:00+00:00", ready=False)
    os.utime(tmp_path / "climate" / "old" / "run.json")  # a copy has a new file
    return tmp_path


def test_the_latest_is_the_one_begun_last_that_has_a_checkpoint(runs):
    assert RunFolder.find("latest", str(runs)).path == runs / "climate" / "new"
    assert RunFolder.find("fluids/latest", str(runs)).path == runs / "fluids" / "flow"
    (runs / "climate" / "new" / "run.json").write_text("{")  # what cannot be read is older than all others
    assert RunFolder.find("climate/latest", str(runs)).path == runs / "climate" / "old"


def test_the_latest_is_one_that_can_do_what_is_asked(runs):
    found = RunFolder.find("latest", str(runs), can=lambda run: run.path.parent.name == "fluids")
    assert found.path == runs / "fluids" / "flow"
    with pytest.raises(ConfigError, match=r"run: no run under .* can do this; choose a run of another domain"):
        RunFolder.find("latest", str(runs), can=lambda run: False)


def test_names_and_folders(runs):
    assert RunFolder.find("begun", str(runs)).path == runs / "climate" / "begun"
    assert RunFolder.find(str(runs / "climate" / "old"), "elsewhere").path == runs / "climate" / "old"
    with pytest.raises(ConfigError, match="resume: there is no run 'olt'; did you mean 'old'"):
        RunFolder.find("olt", str(runs), "resume")


def test_names_of_several_domains(runs):
    make(runs / "fluids" / "old", "2026-02-02T00:00:00+00:00")
    with pytest.raises(ConfigError, match="several runs are called 'old': climate/old, fluids/old"):
        RunFolder.find("old", str(runs))
    assert RunFolder.find("fluids/old", str(runs)).path == runs / "fluids" / "old"
    assert RunFolder.find("old", str(runs), domain="climate").path == runs / "climate" / "old"
    with pytest.raises(ConfigError, match="there is no run 'climate/flow'"):
        RunFolder.find("flow", str(runs), domain="climate")


def test_where_there_is_none(tmp_path):
    with pytest.raises(ConfigError, match=r"run: there is no run under .*; train one"):
        RunFolder.find("latest", str(tmp_path))
    make(tmp_path / "climate" / "begun", "2026-04-01T00:00:00+00:00", ready=False)
    with pytest.raises(ConfigError, match=r"run: no run under .* has a checkpoint yet; train longer"):
        RunFolder.find("latest", str(tmp_path))
    with pytest.raises(ConfigError, match=r"there is no run under .*/fluids/"):
        RunFolder.find("fluids/latest", str(tmp_path))
