"""Training, from a configuration to a scored run with a report."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sciml.app.cli import Outcome
from sciml.app.config import Experiment, RunKeys, build_experiment, build_run_keys
from sciml.app.run_folder import RunFolder
from sciml.app.scoring import draw_report, save_scores, score_test
from sciml.app.trained_run import find_checkpoint, open_run, read_trained, save_trained, take_over_weights, with_changes
from sciml.core.seeding import seed_of
from sciml.dist.world import World, join
from sciml.domain.protocol import Domain, Forecasts, Splits, Trained
from sciml.report.model_card import few_samples
from sciml.report.scores import headline, main_lead_time, score_lines
from sciml.training.callbacks import Callback, MetricsLog, ProgressView
from sciml.training.checkpoint import CheckpointStore
from sciml.training.engine import NativeEngine
from sciml.training.tracking import build_tracker, check_tracking
from sciml.training.trainer import Trainer


@dataclass(frozen=True)
class Training:
    """A training that is ready to go on."""

    folder: RunFolder
    experiment: Experiment
    trainer: Trainer


def run(values: Mapping[str, Any]) -> Outcome | None:
    """Trains, scores and reports; on other ranks than the first it has nothing to say."""
    world = join(str(values["trainer"]["device"]))
    training = set_up(values, world)
    if training.trainer.fit(_callbacks(training, world)):
        return score_run(training.folder, world)
    step, folder = training.trainer.step, training.folder.path
    text = f"stopped at step {step}; go on with: python scripts/train.py resume={folder}"
    return Outcome({"run": str(folder), "step": step, "finished": False}, text)


def set_up(values: Mapping[str, Any], world: World) -> Training:
    """Everything up to the first step: configuration, data, model, the run's folder, and where it stands.

    Raises:
        ConfigError, DataError: before anything is written.
    """
    keys = build_run_keys(values)
    folder = RunFolder.find(keys.resume, keys.runs_dir, "resume") if keys.resume else None
    if folder is not None:
        values = with_changes(folder.record["config"], values["changes"])
    experiment = build_experiment(values)
    experiment.parallel.check(world.size)
    experiment.trainer.micro_batch(world.size)
    check_tracking(experiment.tracking)
    if experiment.trainer.num_threads:
        torch.set_num_threads(experiment.trainer.num_threads)
    resume_from = find_checkpoint(folder, "latest") if folder is not None else None
    splits = experiment.domain.splits(experiment, read_trained(folder, experiment) if folder is not None else None)
    model = _build_model(experiment, splits, keys, world)
    task = experiment.domain.task(experiment, splits).to(world.device)
    engine = NativeEngine(model, experiment.optim, world, experiment.trainer.precision)
    if folder is None:
        folder = world.share(_new_folder(values, keys, experiment.domain.name, splits) if world.is_main else None)
    trainer = Trainer(
        experiment.trainer,
        experiment.optim,
        seed=experiment.seed,
        world=world,
        engine=engine,
        task=task,
        splits=splits,
        checkpoints=CheckpointStore(folder.checkpoints, world, experiment.trainer.keep_last),
    )
    if resume_from is not None:
        trainer.resume(resume_from)
    size = sum(p.numel() for p in model.parameters())
    _say(world, f"{experiment.domain.name}: {size:,} parameters, {len(splits.train)} samples -> {folder.path}")
    return Training(folder, experiment, trainer)


def _build_model(experiment: Experiment, splits: Splits, keys: RunKeys, world: World) -> nn.Module:
    torch.manual_seed(seed_of(experiment.seed, "init"))
    model = experiment.domain.model(experiment, splits.schema)
    if keys.init_from:
        source = RunFolder.find(keys.init_from, keys.runs_dir, "init_from")
        fresh = take_over_weights(model, source)
        _say(world, f"weights of {source.path} taken over" + (f"; as initialized: {', '.join(fresh)}" if fresh else ""))
    return model.to(world.device)


def _new_folder(values: Mapping[str, Any], keys: RunKeys, domain: str, splits: Splits) -> RunFolder:
    config = {name: value for name, value in values.items() if name != "changes"}
    samples = {name: len(getattr(splits, name)) for name in ("train", "valid", "test")}
    folder = RunFolder.create(keys.runs_dir, domain, keys.run, config, samples)
    save_trained(folder, Trained(splits.schema, splits.statistics))
    return folder


def score_run(folder: RunFolder, world: World, **opening: Any) -> Outcome | None:
    """Scores a run's best weights on its test split, draws the report and says where everything is.

    With changes to the run's configuration the scores go to a folder of their own, beside the run's.
    """
    opened = open_run(folder, device=world.device, **opening)
    config = opened.experiment
    batch_size = config.trainer.micro_batch(world.size)
    table = score_test(opened.task, opened.model, opened.splits, world, batch_size=batch_size, seed=config.seed)
    if not world.is_main:
        return None
    place = folder.new_evaluation() if opening.get("changes") else folder.path
    example = config.domain.example(opened.task, opened.model, opened.splits)
    save_scores(place, table, example, opened.splits.schema.to_dict())
    report = draw_report(folder, config.domain, place)
    checkpoint = find_checkpoint(folder, opening.get("checkpoint", "best"))
    lines = [
        *few_samples(len(opened.splits.test)),
        headline(score_lines(table, opened.task.primary_metric, main_lead_time(table))),
        f"report      {report}",
        f"checkpoint  {checkpoint}",
        *_next_commands(config.domain, folder, main_lead_time(table)),
    ]
    document = {"run": str(folder.path), "report": str(report), "checkpoint": str(checkpoint), "scores": table}
    return Outcome({**document, "finished": True}, "\n".join(lines))


def _next_commands(domain: Domain, folder: RunFolder, lead_hours: float | None) -> list[str]:
    commands = [f"python scripts/evaluate.py run={folder.path}"]
    if isinstance(domain, Forecasts) and lead_hours is not None:
        commands.insert(0, f"python scripts/forecast.py run={folder.path} lead_time={lead_hours:g}h")
    return [f"{'next' if not n else '':<12}{command}" for n, command in enumerate(commands)]


def _callbacks(training: Training, world: World) -> list[Callback]:
    if not world.is_main:
        return []
    config, path, step = training.experiment.trainer, training.folder.path, training.trainer.step
    views: list[Callback] = [
        MetricsLog(path / "metrics.jsonl", every=config.log_every, resume_step=step),
        ProgressView(config.max_steps, step),
    ]
    tracker = build_tracker(training.experiment.tracking, path, config.log_every)
    return [*views, tracker] if tracker is not None else views


def _say(world: World, text: str) -> None:
    if world.is_main:
        print(text, file=sys.stderr, flush=True)
