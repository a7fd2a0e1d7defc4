"""A training, from a composed configuration to one that is ready to go on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sciml.core.errors import ConfigError
from sciml.core.seeding import seed_of
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.domain.optional import WarmStarts
from sciml.domain.protocol import Domain, FittedData, Splits, Task
from sciml.parallel.config import ParallelConfig
from sciml.parallel.model import ParallelModel, parallelize
from sciml.parallel.pipeline import check_micro_batches
from sciml.run.folder import RunFolder, new_place
from sciml.run.loaded import find_checkpoint, read_trained, save_trained, weights_to_take_over, with_changes
from sciml.run.restart import Job
from sciml.run.spec import Experiment, RunKeys, build_experiment, build_run_keys
from sciml.training.callbacks import Callback, MetricsLog, ProgressView
from sciml.training.checkpoint import CheckpointStore
from sciml.training.engine_config import build_engine
from sciml.training.trace import Trace
from sciml.training.tracking import build_tracker, check_tracking
from sciml.training.trainer import Trainer


@dataclass(frozen=True)
class TrainingSession:
    """A training that is ready to go on."""

    folder: RunFolder
    experiment: Experiment
    trainer: Trainer
    job: Job

    def fit(self) -> bool:
        """Trains to the last step, with its views; False where a signal ended it early."""
        return self.trainer.fit(_callbacks(self, self.trainer.mesh))


def set_up(values: Mapping[str, Any], world: World, place: Path | None = None) -> TrainingSession:
    """Everything up to the first step: configuration, data, model, the run's folder, and where it stands.

    Args:
        place: folder of the run, which goes on where it stands if it is there; by default a new one under ``runs_dir``,
            or what ``resume`` or a restarted job says.

    Raises:
        ConfigError, DataError: before anything is written.
    """
    keys = build_run_keys(values)
    world.agree("the configuration", values)
    job = Job(world, None) if place else Job.of(values, keys.runs_dir, world)
    folder = RunFolder(place) if place and (place / "run.json").exists() else job.earlier()
    if folder is None and keys.resume:
        folder = RunFolder.find(keys.resume, keys.runs_dir, "resume")
        find_checkpoint(folder, "latest")  # a run without any is refused before data are read
    if folder is not None and keys.resume:
        values = with_changes(folder.record["config"], values["changes"])
    experiment = build_experiment(values)
    mesh = Mesh(world, experiment.engine.degrees(experiment.parallel, world.size))
    check_parallel(experiment, mesh)
    check_tracking(experiment.tracking)
    if experiment.trainer.num_threads:
        torch.set_num_threads(experiment.trainer.num_threads)
    splits = experiment.domain.splits(experiment, read_trained(folder, experiment) if folder is not None else None)
    source = _source_of_weights(keys, folder)
    if source is not None and folder is None:
        splits = _continued(experiment.domain, splits, source)
    task = experiment.domain.task(experiment, splits).to(world.device)
    model = _build_model(experiment, splits, task, source, mesh)
    if folder is None:
        values = {**values, "init_from": str(source.path) if source else None}  # what "latest" is now
        place = place or new_place(keys.runs_dir, experiment.domain.name, keys.run)
        folder = world.share(_new_folder(values, place, experiment.domain.name, splits) if world.is_main else None)
    job.began(folder)
    size = f"{model.num_parameters():,} parameters"
    trainer = _trainer(experiment, model, task, splits, folder)
    say(world, f"{experiment.domain.name}: {size}, {len(splits.train)} samples -> {folder.path}")
    return TrainingSession(folder, experiment, trainer, job)


def _trainer(experiment: Experiment, model: ParallelModel, task: Task, splits: Splits, folder: RunFolder) -> Trainer:
    """The trainer of a run, standing where the run's newest intact checkpoint stands."""
    config = experiment.trainer
    checkpoints = CheckpointStore(
        folder.checkpoints,
        model.mesh.world,
        config.keep_last,
        asynchronous=config.async_save,
        timeout_s=config.timeout_s,
    )
    trainer = Trainer(
        config,
        experiment.optim,
        seed=experiment.seed,
        mesh=model.mesh,
        engine=build_engine(experiment.engine, model, experiment.optim, config, task),
        task=task,
        splits=splits,
        checkpoints=checkpoints,
    )
    if (checkpoint := checkpoints.newest_intact()) is not None:
        trainer.resume(checkpoint)
    return trainer


def check_parallel(experiment: Experiment, mesh: Mesh) -> None:
    """Refuses a batch that the mesh cannot share, before any data is read.

    Raises:
        ConfigError: naming a size that works.
    """
    trainer = experiment.trainer
    micro_batch = trainer.micro_batch(mesh.num_data_ranks)
    if mesh.size("pp") > 1:
        check_micro_batches(experiment.parallel, trainer.global_batch_size // mesh.num_data_ranks // micro_batch)


def _source_of_weights(keys: RunKeys, folder: RunFolder | None) -> RunFolder | None:
    """The run whose weights a training starts from; None where it has none, or has a checkpoint of its own."""
    if folder is None:
        name = keys.init_from
    else:
        own = CheckpointStore(folder.checkpoints).latest()
        name = folder.record["config"].get("init_from") if own is None else None
    return RunFolder.find(name, keys.runs_dir, "init_from") if name else None


def _continued(domain: Domain, splits: Splits, source: RunFolder) -> Splits:
    """Splits in the units of the run whose weights are taken over, where the domain's weights need them."""
    if not isinstance(domain, WarmStarts):
        return splits
    older = read_trained(source, build_experiment(source.record["config"]))
    found = domain.continued(FittedData(splits.schema, splits.statistics), older)
    return replace(splits, schema=found.schema, statistics=found.statistics)


def _build_model(
    experiment: Experiment, splits: Splits, task: Task, source: RunFolder | None, mesh: Mesh
) -> ParallelModel:
    def build() -> nn.Module:
        return experiment.domain.model(experiment, splits.schema)

    start = None
    if source is not None:
        start = weights_to_take_over(build, source)
        fresh = f"; as initialized: {', '.join(start.fresh)}" if start.fresh else ""
        say(mesh.world, f"weights of {source.path} taken over{fresh}")
    seed = seed_of(experiment.seed, "init")
    return parallelize(build, mesh, parallel_of(experiment.parallel, task), seed, start)


def parallel_of(config: ParallelConfig, task: Task) -> ParallelConfig:
    """How a task's model can be cut: one whose loss is made of gradients needs its weights whole in between.

    Raises:
        ConfigError: where it cannot be cut as wanted.
    """
    if not task.needs_double_backward:
        return config
    if config.pp > 1:
        raise ConfigError(
            "a loss that is made of gradients cannot be cut into pipeline stages", key="parallel.pp", hint="use 1"
        )
    return replace(config, zero=min(config.zero, 2))


def _new_folder(values: Mapping[str, Any], place: Path, domain: str, splits: Splits) -> RunFolder:
    config = {name: value for name, value in values.items() if name != "changes"}
    samples = {name: len(getattr(splits, name)) for name in ("train", "valid", "test")}
    folder = RunFolder.create(place, domain, config, samples)
    save_trained(folder, FittedData(splits.schema, splits.statistics))
    return folder


def _callbacks(training: TrainingSession, mesh: Mesh) -> list[Callback]:
    config, path, step = training.experiment.trainer, training.folder.path, training.trainer.step
    trace = Trace(path, mesh.world.rank, config.trace_steps)
    if not mesh.is_main:
        return [trace]
    views: list[Callback] = [
        trace,
        MetricsLog(path / "metrics.jsonl", every=config.log_every, resume_step=step),
        ProgressView(config.max_steps, step),
    ]
    tracker = build_tracker(training.experiment.tracking, path, config.log_every)
    return [*views, tracker] if tracker is not None else views


def say(world: World, text: str) -> None:
    if world.is_main:
        print(text, file=sys.stderr, flush=True)
