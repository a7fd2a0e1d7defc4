"""The command with real trainings: short studies of a tiny model on two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sciml.app.cli import main

ROOT = Path(__file__).resolve().parents[2]
FACTS = ["cluster.memory_gb=8", "cluster.memory_gb_per_s=20", "cluster.peak_tflops={fp32: 0.1}",
         "cluster.links={machine: {devices: null, gb_per_s: 2}}", "cluster.device=cpu"]  # fmt: skip
MODEL = [
    "domain=climate",
    "model=plain_vit_tiny",
    "model.embed_dim=32",
    "model.depth=2",
    "model.num_heads=2",
    "model.recompute=none",
]
SHORT = [*MODEL, *FACTS, "devices=2", "steps=6", "trainer.global_batch_size=8", "parallel.dp=2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TIMEOUT_S = 120


@pytest.fixture
def tuned(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)

    def run(*arguments):
        main("tune", [*SHORT, "output=json", *arguments])
        said = capsys.readouterr()
        return json.loads(said.out), said.err

    return run


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_strategies_are_measured(tuned, tmp_path, devices):
    study = tmp_path / "study"
    document, said = tuned(f"study={study}", "trials=1", f"devices={devices}", f"parallel.dp={devices}")
    (row,) = document["trials"]
    assert row["state"] == "measured", row["reason"]
    assert document["best"]["step_s"] == row["step_s"] > 0
    start = "python" if devices == 1 else f"torchrun --standalone --nproc-per-node {devices}"
    assert document["best"]["command"].startswith(f"{start} scripts/train.py domain=")
    assert row["peak_bytes"] > 50e6
    assert row["steps"] == 4
    assert "trial 1/1" in said
    assert len((study / "trials" / "0001.jsonl").read_text().splitlines()) == 6
    assert not list(study.glob("trials/*/"))
    assert all(Path(path).stat().st_size > 10_000 for path in document["pictures"])


@pytest.mark.slow
def test_a_study_goes_on(tuned, tmp_path, capsys):
    study = tmp_path / "study"
    document, _ = tuned(f"study={study}", "trials=1")
    again, said = tuned(f"study={study}", "trials=2")
    assert again["trials"][:1] == document["trials"]
    assert len({row["line"] for row in again["trials"]}) == 2
    assert "trial 2/2" in said
    assert "trial 1/" not in said
    with pytest.raises(SystemExit) as ended:
        tuned(f"study={study}", "steps=7")
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        f"error: study: the study in {study} has steps=6, not 7; name another folder, or leave it out"
    )


BREAKS = """
from domains.climate.domain import ClimateDomain

class Breaks(ClimateDomain):
    def model(self, cfg, schema):
        if cfg.trainer.precision == "bf16":
            raise RuntimeError("no such kernel")
        return super().model(cfg, schema)
"""


@pytest.mark.slow
def test_a_trial_that_crashes_is_recorded_and_the_study_goes_on(tuned, tmp_path, monkeypatch):
    (tmp_path / "breaks.py").write_text(BREAKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    document, said = tuned(
        f"study={tmp_path / 'study'}", "trainer.micro_batch_size=4", "domain._target_=breaks.Breaks",
        "cluster.peak_tflops={fp32: 0.1, bf16: 0.2}", "tolerance=20",
    )  # fmt: skip
    failed, measured = document["trials"]
    assert (failed["state"], failed["axes"]["precision"]) == ("failed", "bf16")
    assert failed["reason"] == "exit code 1: RuntimeError: no such kernel"
    assert "no such kernel" in (tmp_path / "study" / "trials" / "0001.log").read_text()
    assert (measured["state"], measured["axes"]["precision"]) == ("measured", "fp32")
    assert document["best"]["trial"] == 2
    assert "trial 1/2" in said


@pytest.mark.slow
def test_ctrl_c_ends_a_study_and_its_trial(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "tune.py"), *SHORT, f"study={tmp_path / 'study'}"]
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background may not hear
    try:
        study = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, heard)
    deadline = time.monotonic() + TIMEOUT_S
    while len(children := psutil.Process(study.pid).children(recursive=True)) < 3:
        assert study.poll() is None, study.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    study.send_signal(signal.SIGINT)
    _, said = study.communicate(timeout=60)
    assert study.returncode == 130
    assert "0 of 3 trials are kept in" in said
    assert said.strip().splitlines()[-1] == "interrupted"
    assert not psutil.wait_procs(children, timeout=10)[1]
