"""A job that lost processes goes on with as many as its batch and degrees allow; the others stand by."""

import os
import threading
import time

import pytest

from sciml.core.errors import ConfigError
from sciml.core.files import write_json
from sciml.distributed.launcher import launched
from sciml.run import spare
from sciml.run.compose import compose
from sciml.run.degrees import fitting_size, with_fitting_replicas
from sciml.run.folder import RunFolder
from sciml.run.restart import note_file
from sciml.run.spec import RunSpec


def composed(*arguments):
    return compose("train", ["domain=language", "trainer.global_batch_size=12", *arguments])


def spec(*arguments):
    return RunSpec.build(composed(*arguments).config)


@pytest.mark.parametrize(
    ("arguments", "most", "fitting"),
    [
        ([], 4, 4),
        ([], 5, 4),
        ([], 11, 6),
        (["parallel.dp=4"], 3, 3),
        (["parallel.tp=2"], 7, 6),
        (["parallel.tp=2", "parallel.dp=4"], 5, 4),
        (["trainer.micro_batch_size=4"], 2, 1),
        (["parallel.shard=2"], 3, 2),
    ],
)
def test_as_many_as_batch_and_degrees_allow_go_on(arguments, most, fitting):
    assert fitting_size(spec(*arguments), most) == fitting


def test_too_few_for_what_cuts_the_model_are_refused():
    with pytest.raises(ConfigError, match=r"parallel.tp: tp 4 does not fit 3 processes"):
        fitting_size(spec("parallel.tp=4"), 3)


def test_a_rank_with_a_larger_share_takes_no_larger_micro_batches():
    config = composed("parallel.dp=4").config
    assert with_fitting_replicas(config, 4, 4) == config
    fewer = with_fitting_replicas(config, 2, 4)
    assert fewer["parallel"]["dp"] is None
    assert fewer["trainer"]["micro_batch_size"] == 3  # two of them, as many samples in all
    chosen = with_fitting_replicas(composed("trainer.micro_batch_size=1").config, 2, 4)
    assert chosen["trainer"]["micro_batch_size"] == 1


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Makes this process one of those that torchrun started again."""
    composition = composed(f"runs_dir={tmp_path}")
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")):
            monkeypatch.delenv(name)

    def started(rank, size):
        for name, value in {"RANK": rank, "WORLD_SIZE": size, "TORCHELASTIC_RUN_ID": "job",
                            "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():  # fmt: skip
            monkeypatch.setenv(name, str(value))
        return composition, note_file(composition.config, str(tmp_path))

    return started


def begin(composition, note, tmp_path):
    """Writes what a job leaves that has begun a run with eight processes."""
    folder = RunFolder.create(tmp_path / "language" / "one", "language", composition.config, {})
    note.parent.mkdir()
    write_json(note, {"run": str(folder.path), "processes": 8})


def test_a_job_that_begins_is_as_large_as_it_was_started(job):
    composition, _ = job(4, 5)
    assert not spare.waits_beside(composition)
    assert launched().size == 5


def test_processes_beyond_stand_by_until_the_training_is_done(job, tmp_path, monkeypatch, capsys):
    composition, note = job(0, 5)
    begin(composition, note, tmp_path)
    assert not spare.waits_beside(composition)
    assert launched().size == 4
    assert "of 5 processes that are left 4 go on with" in capsys.readouterr().err
    composition, note = job(4, 5)
    monkeypatch.setattr(spare, "PAUSE_S", 0.02)
    threading.Timer(0.2, note.unlink).start()
    before = time.monotonic()
    assert spare.waits_beside(composition)
    assert time.monotonic() - before > 0.15
