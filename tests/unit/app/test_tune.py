"""A study of strategies with trials that are made up: what is chosen, what is kept, what is told."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace

import numpy as np
import psutil
import pytest

from sciml.app.cli import main
from sciml.app.tune import TuneConfig, choices_of, tune
from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.report.tuning import draw_tuning, spearman
from sciml.run.compose import compose
from sciml.run.reference_models import build_reference_models
from sciml.run.spec import RunSpec
from sciml.tuning.sampler import FIRST, build_sampler
from sciml.tuning.space import Choice, Choices, overrides
from sciml.tuning.study import TuningStudy, open_folder
from sciml.tuning.trial import FAILED, MEASURED, Result, Trial, reason_of, warm_up
from tests.unit.planning.models import facts_found_once

DEGREES = {"pp": 1, "dp": 1, "shard": 1, "cp": 1, "sp": 1, "tp": 1}
FACTS = ["cluster.memory_gb=8", "cluster.memory_gb_per_s=20", "cluster.peak_tflops={fp32: 0.1, bf16: 0.1}",
         "cluster.links={machine: {devices: null, gb_per_s: 2}}", "cluster.device=cpu"]  # fmt: skip


def a_choice(axis, micro_batch, precision, predicted):
    axes = {**DEGREES, axis: 2, "zero": 0, "schedule": "none", "interleave": 1, "micro_batch": micro_batch,
            "recompute": "none", "precision": precision, "engine": "native"}  # fmt: skip
    return Choice(axes, {"trainer.micro_batch_size": micro_batch}, f"{axis}=2", predicted, 1e9)


def seconds(choice):
    """Fast with dp, small micro-batches and fp32; predicted the other way round."""
    slow = {"dp": 1.0, "tp": 1.5, "sp": 2.5}[choice.text.partition("=")[0]]
    return 0.1 * slow + 0.02 * choice.axes["micro_batch"] + 0.3 * (choice.axes["precision"] == "bf16")


CHOICES = Choices(
    [
        a_choice(*which, predicted=1 + 0.01 * n)
        for n, which in enumerate(itertools.product(("sp", "tp", "dp"), (8, 4, 2, 1), ("bf16", "fp32")))
    ]
)


@pytest.fixture
def config(tmp_path):
    cluster = compose("tune", FACTS).config["cluster"]
    return build(TuneConfig, {"cluster": cluster, "devices": 2, "trials": 14})


@pytest.fixture
def folder(tmp_path):
    open_folder(tmp_path / "study", {"model": {"depth": 4}}, lambda: CHOICES)
    return tmp_path / "study"


def measure(choice, number):
    step_s = seconds(choice)
    return Result(MEASURED, step_s=step_s, quartiles_s=(step_s, 1.1 * step_s), samples_per_s=16 / step_s, steps=3)


def tuned(folder, config, measure=measure, seed=0):
    return tune(folder, config, seed, measure, lambda choice: f"train {choice.text}").document


def test_a_study_finds_what_is_fast_against_the_plan(folder, config):
    document = tuned(folder, config)
    best = document["best"]
    assert (best["text"], best["axes"]["precision"]) == ("dp=2", "fp32")
    assert best["step_s"] <= sorted(map(seconds, CHOICES.rows))[1]  # one of the two fastest of 24
    assert best["command"] == "train dp=2"
    assert document["measured"] == 14
    assert json.loads((folder / "study.json").read_text())["best"] == best
    assert [path.rpartition("/")[2] for path in document["pictures"]] == [
        "predicted.png", "best_so_far.png", "importance.png",
    ]  # fmt: skip


def test_the_plan_comes_first_and_nothing_is_run_twice(folder, config):
    run = []
    tuned(folder, config, lambda choice, number: run.append((number, choice)) or measure(choice, number))
    choices = [choice for _, choice in run]
    assert choices[:FIRST] == CHOICES.first(FIRST)
    assert [choice.text for choice in choices[:3]] == ["sp=2", "tp=2", "dp=2"]  # one of each mesh
    assert len({tuple(choice.axes.items()) for choice in choices}) == len(choices) == 14
    assert [number for number, _ in run] == list(range(1, 15))


def test_a_study_ends_where_nothing_is_left(folder, config):
    document = tuned(folder, replace(config, trials=99))
    assert document["measured"] == len(CHOICES) == 24
    assert document["best"]["step_s"] == min(map(seconds, CHOICES.rows))


def test_a_study_that_was_interrupted_goes_on_as_if_it_had_not(folder, config, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    whole = tuned(folder, config)

    def interrupted(choice, number):
        if number == 9:
            raise KeyboardInterrupt
        return measure(choice, number)

    with pytest.raises(KeyboardInterrupt):
        tuned(other, config, interrupted)
    kept = TuningStudy(other, lambda choices: build_sampler("optuna", choices, 0)).rows()
    assert kept == whole["trials"][:8]
    run = []
    again = tuned(other, config, lambda choice, number: run.append(number) or measure(choice, number))
    assert run == list(range(9, 15))
    assert again["trials"][:8] == kept
    assert len({row["line"] for row in again["trials"]}) == 14


def test_trials_of_a_study_that_was_killed_are_run_again(folder, config):
    study = TuningStudy(folder, lambda choices: build_sampler("optuna", choices, 0))
    from sciml.tuning.sampler import distributions

    lost = study.optuna.ask(distributions(CHOICES)).params
    document = tuned(folder, config)
    assert document["trials"][0]["axes"].items() >= lost.items()


def test_what_fails_is_a_result(folder, config):
    def fails(choice, number):
        if choice.text != "dp=2":
            return Result(FAILED, "out of memory: it was too much", took_s=1.0)
        return measure(choice, number)

    document = tuned(folder, config, fails)
    assert document["failed"] >= 2
    assert document["measured"] + document["failed"] == 14
    assert document["measured"] >= 6  # of eight: the sampler learns where trials fail
    assert {row["reason"] for row in document["trials"] if row["state"] == FAILED} == {"out of memory: it was too much"}


def test_a_study_of_failures_alone_is_told(folder, config):
    outcome = tune(folder, config, 0, lambda *_: Result(FAILED, "refused: no"), lambda choice: "")
    assert outcome.document["best"] is None
    assert outcome.document["pictures"] == []
    assert "0 of 24 strategies measured, 14 failed" in outcome.text
    row = next(line for line in outcome.text.splitlines() if line.split()[:1] == ["1"])
    assert re.split(r"\s{2,}", row.strip()) == ["1", "sp=2, bf16, micro-batches of 8, recompute none", "refused: no"]
    assert "\x1b" not in outcome.text


def test_importance_is_of_what_makes_steps_fast(folder, config):
    document = tuned(folder, replace(config, trials=24))
    shares = document["importance"]
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=shares.get) == "precision"
    assert set(shares) == {"precision", "micro_batch", "dp", "tp", "sp"}  # what all share decides nothing


def test_one_strategy_is_a_study_too(tmp_path, config):
    open_folder(tmp_path / "one", {}, lambda: Choices(CHOICES.rows[:1]))
    document = tuned(tmp_path / "one", config)
    assert document["measured"] == 1
    assert document["spearman"] is None
    assert document["importance"] == {}


def test_another_configuration_is_refused_and_named(folder):
    open_folder(folder, {"model": {"depth": 4}}, lambda: pytest.fail("planned again"))
    with pytest.raises(ConfigError, match=r"has model.depth=4, not 6"):
        open_folder(folder, {"model": {"depth": 6}}, lambda: CHOICES)


def test_deephyper_is_held_to_the_same_strategies(folder, config):
    pytest.importorskip("deephyper", reason="an extra")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        document = tuned(folder, replace(config, sampler="deephyper"))
    assert document["measured"] == len({row["line"] for row in document["trials"]}) == 14
    assert document["best"]["axes"]["precision"] == "fp32"
    assert document["best"]["step_s"] <= sorted(map(seconds, CHOICES.rows))[5]  # in the fastest quarter


def test_ranks_are_correlated():
    assert spearman([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx(0.8)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 1, 2], [5, 6, 7]) == pytest.approx(np.sqrt(3) / 2)
    assert spearman([1, 1, 1], [5, 6, 7]) is None
    assert spearman([1, 2], [1, 2]) is None


def test_pictures_without_a_measurement_are_not_drawn(tmp_path):
    assert draw_tuning(tmp_path, [{"state": FAILED, "trial": 1, "text": "dp=2", "predicted_s": 1.0}], {}, "") == []


# What a study chooses from.


@pytest.fixture(scope="module", autouse=True)
def _facts_found_once():
    with facts_found_once("sciml.app.tune"):
        yield


def planned(*arguments, devices=2, **keys):
    composition = compose(
        "tune", ["domain=climate", "model=plain_vit_tiny", "trainer.global_batch_size=16", *FACTS, *arguments]
    )
    values = composition.config
    own = {"cluster": values.pop("cluster"), "devices": devices, **keys}
    for name in ("devices", "trials", "steps", "timeout_s", "tolerance", "sampler", "study", "precisions",
                 "engines", "margin", "compute_efficiency", "link_efficiency"):  # fmt: skip
        values.pop(name)
    return choices_of(build(TuneConfig, own), RunSpec.build(values), composition.overrides), values


FEW = ("trainer.precision=fp32", "model.recompute=none", "parallel.sp=1")


@pytest.fixture(scope="module")
def found():
    return planned("parallel.sp=1", "parallel.tp=1", tolerance=1.5)[0]


def test_choices_are_what_fits_and_is_not_far_behind(found):
    times = [row.predicted_s for row in found.rows]
    assert times == sorted(times)
    assert times[-1] <= 1.5 * times[0]
    assert len({tuple(row.axes.values()) for row in found.rows}) == len(found)
    assert {row.axes["precision"] for row in found.rows} == {"fp32", "bf16"}
    assert len({row.axes["recompute"] for row in found.rows}) > 1  # a plan would leave these out


def test_less_tolerance_leaves_fewer():
    wide, narrow = (planned(*FEW, tolerance=tolerance)[0] for tolerance in (2, 1.1))
    assert 0 < len(narrow) < len(wide)
    assert {row.line for row in narrow.rows} < {row.line for row in wide.rows}


def test_choices_keep_what_is_given():
    found, _ = planned("parallel.tp=2", *FEW)
    axes = {(row.axes["tp"], row.axes["precision"], row.axes["recompute"]) for row in found.rows}
    assert axes == {(2, "fp32", "none")}


def test_two_engines_are_chosen_from():
    found, values = planned(*FEW, engines=("native", "deepspeed"), tolerance=3)
    assert {row.axes["engine"] for row in found.rows} == {"native", "deepspeed"}
    deepspeed = next(row for row in found.rows if row.axes["engine"] == "deepspeed")
    assert "engine=deepspeed" in overrides(deepspeed, values)


def test_overrides_undo_what_an_experiment_has_set():
    found, values = planned(*FEW)
    plain = next(row for row in found.rows if row.text == "tp=2" and row.axes["micro_batch"] == 16)
    assert overrides(plain, values)[0] == "parallel.tp=2"
    told = {**values, "parallel": {**values["parallel"], "tp": 2, "sp": 2, "dp": 4}}
    assert {"parallel.sp=1", "parallel.dp=1"} <= set(overrides(plain, told))
    assert not any(word.startswith(("parallel.tp", "parallel.schedule")) for word in overrides(plain, told))


def test_what_was_chosen_from_stays_as_it_was(found, tmp_path):
    found.write(tmp_path / "choices.json")
    assert Choices.read(tmp_path / "choices.json").rows == found.rows


# A trial.


def a_trial(program, tmp_path, **keys):
    """A trial whose training is another program."""
    trial = Trial(**{"devices": 1, "global_batch": 8, "steps": 8, "timeout_s": 60, **keys})
    file = tmp_path / "program.py"
    file.write_text(program)
    object.__setattr__(trial, "_command", lambda arguments, place: [sys.executable, str(file), str(place)])
    return trial


@pytest.mark.parametrize("typed", [[], ["reference_models.unet.budget=5", "seeds=2"]])
def test_a_trial_trains_one_model_alone(tmp_path, typed):
    """A reference model with a budget would be built and measured before it, and its memory counted."""
    command = Trial(1, 8, 8, 60.0)._command(["domain=climate", *typed], tmp_path)
    words = command[command.index("domain=climate") :]
    spec = RunSpec.build(compose("train", words).config)
    assert build_reference_models(spec) == []
    assert spec.trainer.max_steps == 8


STEPS = """
import json, pathlib, sys, time
run = pathlib.Path(sys.argv[1]) / "toy" / "run"
run.mkdir(parents=True)
with (run / "metrics.jsonl").open("w", buffering=1) as log:
    for step in range(1, {steps} + 1):
        seconds = 5.0 if step <= 2 else 0.5
        log.write(json.dumps(dict(step=step, split="train", samples_per_s=8 / seconds, time_dp=0.1)) + "\\n")
    log.write(json.dumps(dict(step=step, split="valid", loss=0.0)) + "\\n")
    log.write('{{"step": 9, "spl')
    log.flush()
    {then}
"""


def test_a_trial_is_measured_behind_its_first_steps_and_not_waited_for(tmp_path):
    began = time.monotonic()
    result = a_trial(STEPS.format(steps=8, then="time.sleep(100)"), tmp_path).run([], tmp_path / "0001")
    assert time.monotonic() - began < 20
    assert result.state == MEASURED
    assert (result.step_s, result.samples_per_s) == (0.5, 16)
    assert result.steps == 8 - warm_up(8) == 6
    assert result.quartiles_s == (0.5, 0.5)
    assert result.parts == {"time_dp": 0.1}
    assert result.peak_bytes > 1e6
    assert len((tmp_path / "0001.jsonl").read_text().splitlines()) == 8
    assert not (tmp_path / "0001").exists()


def test_a_trial_that_takes_too_long_ends_with_all_its_processes(tmp_path):
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'], start_new_session=True)\n"
        "print('child', child.pid, flush=True)\n"
        "time.sleep(100)\n"
    )
    result = a_trial(program, tmp_path, timeout_s=1).run([], tmp_path / "0001")
    assert result.state == FAILED
    assert result.reason == "ran past 1 s with 0 of 8 steps done"
    child = int((tmp_path / "0001.log").read_text().split()[1])
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_trial_that_crashes_says_why(tmp_path):
    result = a_trial("raise RuntimeError('kernel not there')", tmp_path).run([], tmp_path / "0001")
    assert (result.state, result.reason) == (FAILED, "exit code 1: RuntimeError: kernel not there")
    result = a_trial("import os; os.kill(os.getpid(), 9)", tmp_path).run([], tmp_path / "0002")
    assert result.reason == "out of memory, or killed"
    result = a_trial(STEPS.format(steps=4, then="sys.exit('error: all is lost')"), tmp_path).run([], tmp_path / "0003")
    assert (result.reason, result.steps) == ("exit code 1: all is lost", 4)


@pytest.mark.parametrize(
    ("log", "code", "says"),
    [
        ("error: parallel.tp: 3 ranks; use 2", 2, "refused: parallel.tp: 3 ranks; use 2"),
        ("error: batch: too large (rank 1 on host)\nerror: rank 0 is gone, and rank 1 on host ended with it\n"
         "  exitcode  : 2 (pid: 7)", 1, "refused: batch: too large"),
        ("Traceback\ntorch.OutOfMemoryError: CUDA out of memory. Tried\nerror: OutOfMemoryError (rank 0 on host)", 1,
         "out of memory: torch.OutOfMemoryError: CUDA out of memory. Tried"),
        ("error: rank 1 on host died without an error: killed (rank 0 on host noticed)\n  exitcode  : -9 (pid: 7)", 1,
         "out of memory, or killed: rank 1 on host died without an error: killed"),
        ("Traceback\nValueError: a and b\nerror: ValueError (rank 0 on host)\nChildFailedError: x", 1,
         "exit code 1: ValueError: a and b"),
        ("", 3, "exit code 3"),
    ],
)  # fmt: skip
def test_the_reason_is_the_first_error(log, code, says):
    assert reason_of(log, code) == says


def test_an_interrupted_study_leaves_no_process(tmp_path):
    """As Slurm, or Ctrl-C, would end it."""
    program = tmp_path / "study.py"
    program.write_text(
        "import sys, pathlib\n"
        "from sciml.app.tune import _terminated_as_interrupted\n"
        "from sciml.tuning.trial import Trial\n"
        "trial = Trial(1, 8, 8, 60)\n"
        "code = 'import time; print(1, flush=True); time.sleep(90)'\n"
        "object.__setattr__(trial, '_command', lambda *_: [sys.executable, '-c', code])\n"
        "with _terminated_as_interrupted():\n"
        f"    trial.run([], pathlib.Path({str(tmp_path / '0001')!r}))\n"
    )
    study = subprocess.Popen([sys.executable, str(program)], stderr=subprocess.PIPE, text=True)
    log = tmp_path / "0001.log"
    for _ in range(600):
        if log.exists() and log.read_text():
            break
        time.sleep(0.1)
    children = psutil.Process(study.pid).children(recursive=True)
    assert children
    os.kill(study.pid, signal.SIGTERM)
    assert "KeyboardInterrupt" in study.communicate(timeout=30)[1]
    assert not psutil.wait_procs(children, timeout=10)[1]


# What the command refuses.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trials=0"], "trials must be at least 1, got 0; try trials=12"),
        (["steps=4"], "steps must be at least 5, got 4; try steps=20"),
        (["timeout_s=0"], "timeout_s must be above 0, got 0; try timeout_s=300"),
        (["tolerance=0.5"], "tolerance must be at least 1, got 0.5; try tolerance=2"),
        (["sampler=optima"], "sampler must be one of optuna, deephyper, got 'optima'; did you mean 'optuna'?"),
        (["engines=[nativ]"], "engines.0 must be one of native, deepspeed, got 'nativ'; did you mean 'native'?"),
        (["devices=4096", "trainer.device=cpu"], "devices must be at most 2, one process for each of the"),
        (["trails=3"], "trails: unknown key; did you mean 'trials'?"),
        (["precisions=[fp8]"], "precisions.0 must be one of fp32, bf16, fp16, got 'fp8'"),
        (["devices=2", "parallel.tp=2", "parallel.pp=2"], "devices"),
        (["devices=2", "trainer.global_batch_size=3", "parallel.dp=2"], "devices: no mesh shares the work among 2"),
        (["devices=1", "cluster.memory_gb=0.001", "cluster.num_nodes=1", "cluster.devices_per_node=1",
          "trainer.precision=fp32", "model.recompute=none"],
         "devices: nothing fits 1 devices of generic"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(tmp_path, capsys, monkeypatch, arguments, says):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    with pytest.raises(SystemExit) as ended:
        main("tune", ["domain=climate", "model=plain_vit_tiny", *FACTS, f"runs_dir={tmp_path / 'runs'}", *arguments])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 2, said
    assert said.startswith("error: ")
    assert says in said
    assert not list(tmp_path.glob("runs/tuning/*"))


def test_deephyper_that_is_not_there_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "deephyper", None)
    monkeypatch.setitem(sys.modules, "deephyper.hpo", None)
    with pytest.raises(SystemExit) as ended:
        main("tune", ["sampler=deephyper", f"runs_dir={tmp_path}"])
    assert ended.value.code == 2
    assert "deephyper is needed for sampler=deephyper; install it with: pip install -e '.[deephyper]'" in (
        capsys.readouterr().err
    )


def test_a_launcher_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sciml.app.tune.launched", lambda: type("Launch", (), {"size": 2}))
    with pytest.raises(SystemExit) as ended:
        main("tune", [f"runs_dir={tmp_path}"])
    assert ended.value.code == 2
    assert "devices: each trial starts its own processes; start this command once" in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is there and holds no study"):
        open_folder(tmp_path, {}, lambda: CHOICES)
