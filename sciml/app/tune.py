"""The fastest strategy on this machine by short trainings: a plan says what is worth it, a sampler what is next."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge

from sciml.app.plan import PlanConfig, constraints_of, facts_of, nothing_fits
from sciml.core.config import build, one_of
from sciml.core.errors import ConfigError
from sciml.core.files import write_json
from sciml.core.installation import training
from sciml.core.result import CommandResult, Output
from sciml.core.study_folder import alone
from sciml.core.types import AtLeastOne, FractionBelowOne, Positive, PositiveFraction
from sciml.distributed.launcher import launched
from sciml.distributed.world import pick_device
from sciml.planning.cluster import ClusterConfig
from sciml.planning.cluster_here import cluster_here
from sciml.planning.search import Search
from sciml.planning.strategy import TrainingSpec
from sciml.report.tuning import draw_tuning
from sciml.report.tuning_summary import study_document, study_text, trial_line
from sciml.run.compose import Composition, root_of
from sciml.run.spec import RunSpec
from sciml.training.config import Precision
from sciml.training.engine_config import EngineName
from sciml.tuning.sampler import SAMPLERS, build_sampler, check_sampler, importance
from sciml.tuning.space import Choice, Choices, overrides
from sciml.tuning.study import Measure, TuningStudy, open_folder
from sciml.tuning.trial import Result, Trial

LEAST_STEPS = 5
"""Steps of the shortest trial: the first ones only warm up, and some must remain to be measured."""
FREE = ("trials", "timeout_s", "sampler", "study", "output", "runs_dir")
"""Keys that may differ when a study goes on: trials measure the same."""


@dataclass(frozen=True)
class TuneConfig:
    """Holds the keys of ``conf/tune.yaml``; what they mean is said there."""

    cluster: ClusterConfig
    devices: AtLeastOne
    trials: AtLeastOne = 12
    steps: Annotated[int, Ge(LEAST_STEPS)] = 20
    timeout_s: Positive[float] = 300.0
    tolerance: Annotated[float, Ge(1)] = 2.0
    sampler: str = "optuna"
    study: str | None = None
    precisions: tuple[Precision, ...] | None = None
    engines: tuple[EngineName, ...] | None = None
    margin: FractionBelowOne = 0.1
    compute_efficiency: PositiveFraction | None = None
    link_efficiency: PositiveFraction | None = None
    output: Output = "text"

    def __post_init__(self) -> None:
        one_of(self.sampler, SAMPLERS, "sampler")
        check_sampler(self.sampler)


def run(composition: Composition) -> CommandResult:
    """Tries strategies until there are enough, or resumes an interrupted study.

    Arguments that are no keys of this command go on to ``scripts/train.py``.

    Raises:
        ConfigError: for whatever no trial could do, and where nothing fits.
    """
    values = composition.config
    own = {field.name for field in fields(TuneConfig)}
    config = build(TuneConfig, {name: value for name, value in values.items() if name in own})
    training = {n: v for n, v in values.items() if n not in own} | {"output": config.output}
    experiment = RunSpec.build(training)
    check_machine(config, experiment)
    folder = Path(config.study) if config.study else _folder_of(values, experiment, config)
    trainer = experiment.trainer
    threads = trainer.num_threads or 1
    trial = Trial(config.devices, trainer.global_batch_size, config.steps, config.timeout_s, threads)
    handed_on = [argument for argument in composition.arguments if root_of(argument) not in own]

    def words(chosen: Choice) -> list[str]:
        arguments = overrides(chosen, training)
        engine = any(word.startswith("engine=") for word in arguments)  # a group is chosen once
        return [*(word for word in handed_on if not (engine and word.startswith("engine="))), *arguments]

    def measure(chosen: Choice, number: int) -> Result:
        return trial.run(words(chosen), folder / "trials" / f"{number:04d}")

    with alone(folder, "study"), _terminated_as_interrupted():
        open_folder(folder, _settings(values), lambda: choices_of(config, experiment, composition.overrides))
        return tune(folder, config, experiment.seed, measure, lambda chosen: _command(config.devices, words(chosen)))


def tune(
    folder: Path, config: TuneConfig, seed: int, measure: Measure, command: Callable[[Choice], str]
) -> CommandResult:
    """Runs the trials of a study, writes ``study.json`` and pictures, and reports.

    Args:
        folder: of a study that is opened.
        measure: runs a strategy.
        command: the command line that trains by a strategy.
    """
    study = TuningStudy(folder, lambda choices: build_sampler(config.sampler, choices, seed))
    total = min(config.trials, len(study.choices))
    _say(f"{len(study.choices)} strategies within {config.tolerance:g} x the plan's best; {total} trials -> {folder}")
    try:
        for row in study.go_on(config.trials, measure):
            _say(trial_line(row, study.rows(), total))
    except KeyboardInterrupt:
        _say(f"{len(study.rows())} of {total} trials are kept in {folder}; the same command goes on")
        raise
    rows = study.rows()
    shares = importance(study.optuna, list(study.choices.values))
    document = study_document(rows, shares, study.choices, config.devices, command)
    write_json(folder / "study.json", document)
    pictures = draw_tuning(folder, rows, shares, f"{folder.name}, {config.steps} steps a trial")
    document = {**document, "folder": str(folder), "pictures": [str(path) for path in pictures]}
    return CommandResult(document, f"{study_text(document)}\n\nWritten to {folder}")


def choices_of(config: TuneConfig, experiment: RunSpec, given: Mapping[str, Any]) -> Choices:
    """Returns what a study is to choose from, by a plan for this machine.

    Raises:
        ConfigError: where nothing fits, or divides the devices.
    """
    trainer = experiment.trainer
    here = config.cluster.is_unknown
    cluster = cluster_here(config.devices, trainer.device, trainer.num_threads or 1) if here else config.cluster
    plan_config = PlanConfig(
        cluster,
        config.devices,
        precisions=config.precisions,
        engines=config.engines,
        margin=config.margin,
        compute_efficiency=config.compute_efficiency,
        link_efficiency=config.link_efficiency,
    )
    _say("planning")
    facts = facts_of(experiment, cluster)
    training = TrainingSpec.of(trainer, experiment.optim)
    constraints = constraints_of(plan_config, experiment, given)
    search = Search(facts, cluster, training, constraints, plan_config.efficiency, config.margin)
    choices = Choices.of(search, config.devices, config.tolerance)
    if not len(choices):
        raise nothing_fits(search.plan(config.devices), search, plan_config)
    return choices


def check_machine(config: TuneConfig, experiment: RunSpec) -> None:
    """Refuses more processes than this machine can run at full speed, and to be started by a launcher.

    Raises:
        ConfigError: naming a number that works.
    """
    if launched().size > 1:
        raise ConfigError(
            "each trial starts its own processes", key="devices", hint="start this command once, without torchrun"
        )
    if pick_device(experiment.trainer.device, "trainer.device") == "cpu":
        there, what = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, "cores"
    else:
        there, what = torch.accelerator.device_count(), "accelerators"
    if config.devices > there:
        raise ConfigError(
            f"must be at most {there}, one process for each of the machine's {what}, got {config.devices}",
            key="devices",
            hint=f"try devices={there}",
        )


def _settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns everything in a configuration that decides what a trial measures."""
    return {name: value for name, value in values.items() if name not in FREE}


def _folder_of(values: Mapping[str, Any], experiment: RunSpec, config: TuneConfig) -> Path:
    """Returns the folder of a configuration's study: the same for the same command."""
    text = json.dumps(_settings(values), sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Path(str(values["runs_dir"])) / "tuning" / f"{experiment.domain.name}-{config.devices}-{digest}"


def _command(devices: int, words: Sequence[str]) -> str:
    """Returns the command line that trains so."""
    start = ["python"] if devices == 1 else ["torchrun", "--standalone", "--nproc-per-node", str(devices)]
    return shlex.join([*start, *training(), *words])


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Lets a scheduler's SIGTERM end a study as Ctrl-C does: the processes of its trial end with it."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
