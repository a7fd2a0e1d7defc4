"""However processes fail, the job ends soon, says why once, names who it was, or goes on by itself."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
import torch

from sciml.run.compose import compose
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_run

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
HOST = socket.gethostname()


@pytest.fixture(scope="module", autouse=True)
def scenarios(tmp_path_factory):
    """The scenarios, begun as the first test begins: they wait for time-outs more than they compute."""
    command = [sys.executable, str(HERE / "fault_scenarios.py"), str(tmp_path_factory.mktemp("said"))]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as begun:
        yield begun
        begun.kill()


@pytest.fixture(scope="module")
def ended(scenarios):
    """How each process of each scenario ended: exit code, stderr, seconds."""
    said, errors = scenarios.communicate(timeout=120)
    assert scenarios.returncode == 0, errors[-3000:]
    return json.loads(said)


@pytest.mark.slow
def test_torchrun_restarts_a_job_which_finds_its_run_and_says_its_error_once(tmp_path):
    command = [*TORCHRUN, "--max-restarts=1", str(HERE / "restart_program.py"), str(tmp_path)]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, timeout=120, capture_output=True, text=True)
    seen = [json.loads(line) for line in (tmp_path / "seen.jsonl").read_text().splitlines()]
    assert seen == [
        {"attempt": 0, "run": None, "other": None},
        {"attempt": 1, "run": str(tmp_path / "toy" / "mine"), "other": None},
    ]
    assert done.returncode == 1
    assert done.stderr.count("error: seed: enough") == 1
    assert not list((tmp_path / ".jobs").iterdir())


def test_processes_that_agree_go_on(ended):
    assert all(process["code"] == 0 and process["said"] == "" for process in ended["all_go_on"].values())


@pytest.mark.parametrize(
    ("scenario", "code", "says"),
    [
        ("one_does_not_join", 1, f"rank 2 of 4 did not join within 8 s; those that joined: 0-1, 3 on {HOST}"),
        ("another_version", 2, f"rank 1 on {HOST} runs torch 1.0, rank 0 on {HOST} runs {version('torch')}"),
        ("another_configuration", 2, f"optim.lr: the configuration is 0.2 on rank 2 ({HOST}) and 0.1 on rank 0"),
        ("one_refuses", 2, f"data.path: what rank 1 sees is wrong (rank 1 on {HOST})"),
        ("one_has_a_bug", 1, f"KeyError (rank 1 on {HOST})"),
        ("one_is_killed", 1, f"rank 1 on {HOST} died without an error: killed, or out of memory"),
        ("one_is_stuck", 1, f"rank 1 on {HOST} stopped responding"),
        ("the_keeper_is_killed", 1, f"rank 0 is gone, and rank 1 on {HOST} ended with it"),
        ("all_refuse_before_they_meet", 2, "trainer.lrr: unknown key"),
        ("all_refuse_together", 2, "trainer.lrr: unknown key"),
    ],
)
def test_the_first_error_is_said_once_and_ends_all(ended, scenario, code, says):
    processes = ended[scenario].values()
    spoken = [line for process in processes for line in process["said"].splitlines() if line.startswith("error: ")]
    assert len(spoken) == 1, spoken
    assert spoken[0].startswith(f"error: {says}")
    assert {process["code"] for process in processes} - {-9, 7} == {code}  # 7 is the stuck one's own
    assert max(process["took_s"] for process in processes) < 45


def test_only_a_bug_shows_a_traceback(ended):
    shown = {name for name, processes in ended.items() for p in processes.values() if "Traceback" in p["said"]}
    assert shown == {"one_has_a_bug"}


TRAINING = ["--config-dir", str(ROOT / "tests" / "conformance" / "toy" / "conf"), "domain=toy", "seed=3",
            "trainer.max_steps=240", "trainer.save_every=20", "trainer.valid_every=80", "trainer.num_threads=1",
            "trainer.global_batch_size=8"]  # fmt: skip


@contextlib.contextmanager
def training(runs_dir, *arguments):
    """A small training of two processes, which torchrun restarts; nothing of it is left behind."""
    script = [str(ROOT / "scripts" / "train.py"), *TRAINING, f"runs_dir={runs_dir}", *arguments]
    command = [*TORCHRUN, "--max-restarts=3", *script]
    with (runs_dir.parent / "log").open("w") as log:
        launcher = subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT, stdout=log, stderr=log)
    try:
        yield launcher
    finally:
        if launcher.poll() is None:
            for process in [*psutil.Process(launcher.pid).children(recursive=True), launcher]:
                process.kill()
        launcher.wait()


def weights(runs_dir):
    """Of the run that was finished."""
    compose("train", TRAINING[2:], TRAINING[1])  # after which files may name the toy domain
    scores = next(runs_dir.glob("toy/*/scores.json"))
    return load_run(RunFolder(scores.parent), checkpoint="latest").model.state_dict()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Weights of a run that nothing happened to, and how long it took."""
    runs_dir = tmp_path_factory.mktemp("undisturbed") / "runs"
    began = time.monotonic()
    with training(runs_dir) as launcher:
        assert launcher.wait(timeout=120) == 0
    return weights(runs_dir), time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_a_rank_killed_at_any_moment_changes_nothing(undisturbed, tmp_path, number):
    expected, took_s = undisturbed
    draw = random.Random(number)
    with training(tmp_path / "runs") as launcher:
        agent = psutil.Process(launcher.pid)
        while len(agent.children()) < 2 and launcher.poll() is None:
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 0.8) * took_s)
        if ranks := agent.children():
            draw.choice(ranks).kill()
        code = launcher.wait(timeout=150)
    assert code == 0, (tmp_path / "log").read_text()[-3000:]
    found = weights(tmp_path / "runs")
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


@pytest.mark.slow
def test_a_restarted_job_goes_on_from_the_disks_of_its_nodes(undisturbed, tmp_path):
    disk = tmp_path / "disk"
    seldom = ("trainer.save_every=1000", "trainer.valid_every=1000", f"trainer.node_folder={disk}")
    with training(tmp_path / "runs", *seldom, "trainer.node_save_every=20") as launcher:
        while not list(disk.glob("*/*/step-0000002*")) and launcher.poll() is None:
            time.sleep(0.02)
        psutil.Process(launcher.pid).children()[1].kill()
        assert launcher.wait(timeout=150) == 0, (tmp_path / "log").read_text()[-3000:]
    assert "which every node has on its own disk" in (tmp_path / "log").read_text()
    found = weights(tmp_path / "runs")
    for name, value in undisturbed[0].items():
        assert torch.equal(value, found[name]), name
