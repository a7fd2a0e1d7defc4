"""A restarted job finds the run that it began, and no other."""

import json
import os

import pytest
import torch

from sciml.core.errors import DataError
from sciml.distributed.world import World
from sciml.run.folder import RunFolder
from sciml.run.restart import Job

ALONE = World(0, 1, torch.device("cpu"))
VALUES = {"seed": 0, "optim": {"lr": 0.1}}


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


def job(runs_dir, values=VALUES):
    return Job.of(values, str(runs_dir), ALONE)


def test_a_requeued_job_finds_its_run_until_it_has_finished(tmp_path, slurm):
    slurm(7)
    assert job(tmp_path).earlier() is None
    job(tmp_path).began(RunFolder(tmp_path / "climate" / "one"))
    slurm(7, requeued=1)
    assert job(tmp_path).earlier() == RunFolder(tmp_path / "climate" / "one")
    job(tmp_path).finished()
    assert job(tmp_path).earlier() is None


def test_only_the_same_job_with_the_same_configuration_is_meant(tmp_path, slurm):
    slurm(7)
    job(tmp_path).began(RunFolder(tmp_path / "climate" / "one"))
    slurm(7, requeued=1)
    assert job(tmp_path, {**VALUES, "seed": 1}).earlier() is None
    slurm(8, requeued=1)
    assert job(tmp_path).earlier() is None


def test_a_job_that_is_started_and_not_restarted_begins_anew(tmp_path, slurm):
    slurm(7)
    job(tmp_path).began(RunFolder(tmp_path / "climate" / "one"))
    assert job(tmp_path).earlier() is None
    job(tmp_path).began(RunFolder(tmp_path / "climate" / "two"))
    slurm(7, requeued=1)
    assert job(tmp_path).earlier() == RunFolder(tmp_path / "climate" / "two")


def test_without_a_launcher_nothing_is_noted(tmp_path, slurm):
    assert job(tmp_path).note is None
    job(tmp_path).began(RunFolder(tmp_path / "climate" / "one"))
    job(tmp_path).finished()
    assert not list(tmp_path.iterdir())


def test_a_corrupted_note_is_named(tmp_path, slurm):
    slurm(7, requeued=1)
    for text in ("{", json.dumps({"ran": "x"})):
        note = job(tmp_path).note
        note.parent.mkdir(exist_ok=True)
        note.write_text(text)
        with pytest.raises(DataError, match=r"slurm-7-.*\.json is corrupted; remove it"):
            job(tmp_path).earlier()
