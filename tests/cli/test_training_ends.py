"""However a training ends, nothing is lost: SIGTERM, a loss that is not finite, a disk that is full."""

import errno
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sciml.app.cli import main
from sciml.run.folder import RunFolder
from sciml.training import checkpoint
from sciml.training.checkpoint import CheckpointStore, read_manifest
from tests.conformance.toy.domain import RingSource

ROOT = Path(__file__).resolve().parents[2]
TOY = ["--config-dir", str(ROOT / "tests" / "conformance" / "toy" / "conf"), "domain=toy", "trainer.num_threads=1"]


def test_sigterm_saves_ends_cleanly_and_the_run_goes_on(tmp_path, capsys):
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *TOY, f"runs_dir={tmp_path}"]
    endless = ["trainer.max_steps=1000000", "trainer.save_every=1000000", "trainer.valid_every=1000000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, *endless], env=environment, **pipes)
    try:
        for line in process.stderr:
            if line.startswith("step 1/"):
                break
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert f"go on with: python scripts/train.py --config-dir={TOY[1]} resume=" in said
    folder = RunFolder.find("latest", str(tmp_path))
    stopped = CheckpointStore(folder.checkpoints).steps()
    assert len(stopped) == 1
    main("train", [*TOY[:2], f"runs_dir={tmp_path}", "resume=latest", f"trainer.max_steps={stopped[0] + 2}"])
    assert CheckpointStore(folder.checkpoints).steps()[-1] == stopped[0] + 2
    told = capsys.readouterr()
    assert "report" in told.out
    assert re.search(rf"step {stopped[0] + 1}/{stopped[0] + 2}  loss \d", told.err)


def test_a_loss_that_is_not_finite_fails_and_keeps_the_last_good_checkpoint(tmp_path, capsys):
    wild = ["trainer.max_steps=50", "trainer.save_every=2", "optim=sgd", "optim.clip_norm=null", "optim.lr=1e8"]
    with pytest.raises(SystemExit) as ended:
        main("train", [*TOY, f"runs_dir={tmp_path}", *wild, "optim.warmup_steps=10"])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 1
    assert "not finite" in said
    assert "try a smaller optim.lr" in said


def test_a_step_that_is_not_finite_is_named_alike_however_seldom_results_are_read(tmp_path, capsys, monkeypatch):
    sample = RingSource.sample

    def broken(source, index, generator):
        return sample(source, index, generator) * (math.nan if index == 5 else 1.0)

    monkeypatch.setattr(RingSource, "sample", broken)
    said, kept = [], []
    options = ["trainer.global_batch_size=2", "trainer.max_steps=50", "trainer.save_every=4", "trainer.valid_every=50"]
    for every in (1, 50):
        with pytest.raises(SystemExit):
            main("train", [*TOY, f"runs_dir={tmp_path}/{every}", *options, f"trainer.log_every={every}"])
        said.append(capsys.readouterr().err.strip().splitlines()[-1].partition(";")[0])
        kept.append(CheckpointStore(RunFolder.find("latest", f"{tmp_path}/{every}").checkpoints).steps()[-1])
    assert said[0] == said[1]
    step = int(said[0].removeprefix("error: step ").partition(":")[0])
    assert "the loss is not finite, first in state of micro-batch 0" in said[0]
    assert step % 4 != 1  # else a save would find it at once
    assert kept == 2 * [(step - 1) // 4 * 4]


def test_a_full_disk_fails_in_one_sentence_and_keeps_the_last_good_checkpoint(tmp_path, capsys, monkeypatch):
    write = checkpoint.write_tensors

    def fills_up(folder, tensors, *group, **options):
        if "step-00000004" in folder.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(folder, tensors, *group, **options)

    monkeypatch.setattr(checkpoint, "write_tensors", fills_up)
    with pytest.raises(SystemExit) as ended:
        main("train", [*TOY, f"runs_dir={tmp_path}", "trainer.max_steps=6", "trainer.save_every=2"])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 1
    assert said.startswith("error: could not write")
    assert "the disk is full" in said
    folder = RunFolder.find("latest", str(tmp_path))
    kept = CheckpointStore(folder.checkpoints).latest()
    assert read_manifest(kept)["step"] == 2
