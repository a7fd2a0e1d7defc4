"""A restarted job finds the run that it began, and no other."""

import json
import os

import pytest
import torch

from sciml.core.errors import DataError
from sciml.distributed.world import World
from sciml.run.folder import RunFolder
from sciml.run.restart import RestartNote

ALONE = World(0, 1, torch.device("cpu"))
CONFIG = {"seed": 0, "optim": {"lr": 0.1}}


@pytest.fixture
def slurm(monkeypatch):
    """Makes this process one of a job, requeued so many times."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")):
            monkeypatch.delenv(name)

    def job(name, requeued=0):
        monkeypatch.setenv("SLURM_JOB_ID", str(name))
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(requeued))

    return job


def note(runs_dir, config=CONFIG):
    return RestartNote.of(config, str(runs_dir), ALONE)


def test_a_requeued_job_finds_its_run_until_it_has_finished(tmp_path, slurm):
    slurm(7)
    assert note(tmp_path).begun() is None
    note(tmp_path).write(RunFolder(tmp_path / "climate" / "one"))
    slurm(7, requeued=1)
    assert note(tmp_path).begun().folder == RunFolder(tmp_path / "climate" / "one")
    note(tmp_path).remove()
    assert note(tmp_path).begun() is None


def test_only_the_same_job_with_the_same_configuration_is_meant(tmp_path, slurm):
    slurm(7)
    note(tmp_path).write(RunFolder(tmp_path / "climate" / "one"))
    slurm(7, requeued=1)
    assert note(tmp_path, {**CONFIG, "seed": 1}).begun() is None
    slurm(8, requeued=1)
    assert note(tmp_path).begun() is None


def test_a_job_that_is_started_and_not_restarted_begins_anew(tmp_path, slurm):
    slurm(7)
    note(tmp_path).write(RunFolder(tmp_path / "climate" / "one"))
    assert note(tmp_path).begun() is None
    note(tmp_path).write(RunFolder(tmp_path / "climate" / "two"))
    slurm(7, requeued=1)
    assert note(tmp_path).begun().folder == RunFolder(tmp_path / "climate" / "two")


def test_without_a_launcher_nothing_is_noted(tmp_path, slurm):
    assert note(tmp_path).file is None
    note(tmp_path).write(RunFolder(tmp_path / "climate" / "one"))
    note(tmp_path).remove()
    assert not list(tmp_path.iterdir())


def test_a_corrupted_note_is_named(tmp_path, slurm):
    slurm(7, requeued=1)
    for text in ("{", json.dumps({"ran": "x"})):
        file = note(tmp_path).file
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        with pytest.raises(DataError, match=r"slurm-7-.*\.json is corrupted: .*; remove it"):
            note(tmp_path).begun()
