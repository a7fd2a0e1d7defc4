"""Trainings of several processes as users start them; commands of README and docs run as they stand, but are short."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sciml.distributed.launcher import program

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 280
SHORT = (
    "trainer.max_steps=2", "trainer.valid_samples=4", "trainer.global_batch_size=8", "trainer.num_threads=1",
    "task.score_lead_times=[24h]", "output=json",
)  # fmt: skip
SHOWN = [
    command
    for page in ("README.md", "docs/quickstart.md", "docs/parallelism.md", "docs/launch.md")
    for command in re.findall(r"^torchrun .*scripts/train.py .*[^\\]$", (ROOT / page).read_text(), re.MULTILINE)
]


def test_the_readme_shows_one():
    assert any("parallel.tp=2 parallel.dp=2" in command for command in SHOWN)


def test_a_training_of_two_processes_is_scored_and_reported(tmp_path):
    toy = ["--config-dir", str(ROOT / "tests" / "conformance" / "toy" / "conf"), "domain=toy", "parallel.dp=2"]
    command = [*program(2), str(ROOT / "scripts" / "train.py"), *toy, *SHORT[:3], "output=json", f"runs_dir={tmp_path}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert said["finished"]
    assert said["scores"]
    assert Path(said["report"]).exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(set(SHOWN)))
def test_commands_work(command, tmp_path):
    words = shlex.split(command)
    if "--standalone" not in words:
        words.insert(1, "--standalone")
    arguments = [sys.executable, "-m", "torch.distributed.run", *words[1:], *SHORT, f"runs_dir={tmp_path}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr[-2000:]
    assert '"finished": true' in done.stdout
