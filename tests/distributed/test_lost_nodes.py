"""Nodes that are lost for good: the training goes on with those that are left, and learns the same."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from sciml.run.compose import compose
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_run

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
TRAINING = ["--config-dir", str(ROOT / "tests" / "conformance" / "toy" / "conf"), "domain=toy", "seed=3",
            "trainer.max_steps=800", "trainer.save_every=50", "trainer.valid_every=400", "trainer.num_threads=1",
            "trainer.global_batch_size=8", "optim=sgd", "optim.lr=0.0001"]  # fmt: skip
TIMEOUT_S = 150


def free_port():
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def nodes(count, runs_dir, log):
    """Launchers of a training, one for each of some nodes with one process; nothing of them is left behind."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nnodes=2:{count}", "--nproc-per-node=1",
               "--max-restarts=5", "--rdzv-id=shrinking", "--rdzv-backend=c10d",
               f"--rdzv-endpoint=localhost:{free_port()}", "--rdzv-conf", "last_call_timeout=10,keep_alive_interval=1",
               str(ROOT / "scripts" / "train.py"), *TRAINING, f"runs_dir={runs_dir}"]  # fmt: skip
    with log.open("w") as said:
        launchers = [subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT, stdout=said, stderr=said)]
        time.sleep(3)  # the first one keeps the store where the others meet
        launchers += [
            subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT, stdout=said, stderr=said) for _ in range(count - 1)
        ]
    try:
        yield launchers
    finally:
        for launcher in launchers:
            lose(launcher)


def lose(launcher):
    """Kills a launcher with all of its processes, as a node does that dies."""
    if launcher.poll() is None:
        for process in [launcher, *psutil.Process(launcher.pid).children(recursive=True)]:
            process.kill()
    launcher.wait()


def of_rank(rank, launchers):
    """Returns the launcher of a rank, but never the first, which keeps the store where nodes meet."""
    for launcher in launchers[1:]:
        for child in psutil.Process(launcher.pid).children():
            if child.environ().get("RANK") == str(rank):
                return launcher
    return None


def wait_for(what, log):
    deadline = time.monotonic() + TIMEOUT_S
    while not what():
        assert time.monotonic() < deadline, log.read_text()[-5000:]
        time.sleep(0.1)


def steps(runs_dir):
    rows = [row for file in runs_dir.glob("toy/*/metrics.jsonl") for row in file.read_text().splitlines()]
    return [json.loads(row)["step"] for row in rows if row.startswith("{")]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_goes_on_with_fewer_replicas(tmp_path):
    log, runs = tmp_path / "log", tmp_path / "runs"
    with nodes(4, runs, log) as launchers:
        wait_for(lambda: len(list(runs.glob("toy/*/checkpoints/step-*"))) > 1, log)
        lose(launchers.pop(2))
        wait_for(lambda: "of 3 processes that are left 2 go on" in log.read_text(), log)
        reached = max(steps(runs))
        wait_for(lambda: max(steps(runs)) > reached + 100, log)
        takes_part = of_rank(1, launchers) or of_rank(0, launchers)
        lose(takes_part)
        launchers.remove(takes_part)
        for launcher in launchers:
            assert launcher.wait(TIMEOUT_S) == 0, log.read_text()[-5000:]
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *TRAINING, f"runs_dir={tmp_path / 'alone'}"]
    subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, timeout=TIMEOUT_S, check=True, capture_output=True)
    compose("train", TRAINING[2:], TRAINING[1])  # after which files may name the toy domain
    found, expected = (
        load_run(RunFolder(next((tmp_path / name).glob("toy/*"))), checkpoint="latest").model.state_dict()
        for name in ("runs", "alone")
    )
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
