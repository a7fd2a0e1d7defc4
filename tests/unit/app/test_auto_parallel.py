"""``parallel=auto``: what a plan decides as a training begins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sciml.app import auto_parallel as auto
from sciml.core.errors import ConfigError
from sciml.distributed.world import World
from sciml.planning.cluster import ClusterConfig, Link
from sciml.run.compose import compose
from sciml.run.spec import RunSpec
from tests.unit.planning.models import facts_found_once

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 120
CLUSTER = ClusterConfig(
    "two", 8, device="cpu", memory_gb=4, memory_gb_per_s=5, peak_tflops={"fp32": 0.1, "bf16": 0.2},
    links={"machine": Link(None, 1.0, 500.0)}, measured=True,
)  # fmt: skip
SMALL = ("domain=climate", "parallel=auto", "model.embed_dim=32", "model.depth=2", "model.num_heads=2")


@pytest.fixture(scope="module", autouse=True)
def _facts_found_once():
    with facts_found_once("sciml.app.auto_parallel"):
        yield


@pytest.fixture
def values(monkeypatch):
    monkeypatch.setattr(auto, "cluster_here", lambda *_: CLUSTER)
    return lambda *more: compose("train", [*SMALL, *more])


def test_the_best_is_a_configuration_that_trains_on_these_devices(values):
    given = values("trainer.global_batch_size=8", "parallel.sp=1", "model.recompute=none")
    found = auto.best(given.config, given.overrides, 4)
    given = given.config
    resolved = {**given, **{group: {**given[group], **found[group]} for group in ("parallel", "trainer", "model")}}
    resolved["parallel"].pop("auto")
    experiment = RunSpec.build(resolved)
    degrees = experiment.parallel.degrees(4)
    assert degrees["dp"] * degrees["shard"] * degrees["tp"] * degrees["sp"] * degrees["pp"] == 4
    assert experiment.trainer.micro_batch(degrees["dp"] * degrees["shard"]) == found["trainer"]["micro_batch_size"]
    assert not experiment.parallel.auto


def test_what_is_given_is_kept_and_so_is_the_precision(values):
    given = values("parallel.tp=2", "parallel.sp=1", "trainer.micro_batch_size=1", "model.recompute=full")
    found = auto.best(given.config, given.overrides, 4)
    assert found["parallel"]["tp"] == 2
    assert found["trainer"] == {"micro_batch_size": 1}
    assert found["model"] == {"recompute": "full"}


def test_a_configuration_without_auto_is_left_alone():
    given = compose("train", ["domain=climate"]).config
    assert auto.with_best_parallel(given, {}, World(0, 1, torch.device("cpu"))) == given


def test_a_node_has_the_tasks_that_srun_put_there(monkeypatch):
    srun = {"STEP_ID": 0, "PROCID": 0, "NTASKS": 16, "LOCALID": 0, "NODEID": 0, "STEP_TASKS_PER_NODE": "8(x2)"}
    for name, value in srun.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("MASTER_ADDR", "node1")
    assert auto.local_size(World(0, 16, torch.device("cpu"))) == 8


def test_what_fits_nowhere_is_refused(values, monkeypatch):
    import dataclasses

    monkeypatch.setattr(auto, "cluster_here", lambda *_: dataclasses.replace(CLUSTER, memory_gb=0.001, num_nodes=1))
    with pytest.raises(ConfigError, match=r"nothing fits 2 devices of two: .* of the 0.001 GB of a device"):
        auto.best(values().config, {"parallel.tp": 1, "parallel.pp": 1, "parallel.sp": 1}, 2)


@pytest.mark.slow
def test_two_processes_train_by_a_plan_of_their_machine(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "scripts/train.py"]
    command += [*SMALL, "trainer.max_steps=2", "trainer.num_threads=1", "trainer.valid_samples=4"]
    command += ["task.score_lead_times=[24h]", "trainer.global_batch_size=8", f"runs_dir={tmp_path}", "output=json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "parallel=auto: " in done.stderr
    assert '"finished": true' in done.stdout
