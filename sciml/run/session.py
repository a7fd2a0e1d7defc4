"""A training session: data are loaded, the model is built and restored; then it trains."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from sciml.core.errors import ConfigError
from sciml.core.files import check_writable
from sciml.core.seeding import seed_of
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World, use_threads
from sciml.domain.optional import WarmStarts
from sciml.domain.protocol import FittedData, Splits, Task
from sciml.parallel.config import ParallelConfig
from sciml.parallel.model import ParallelModel, parallelize
from sciml.run.checkpoints import open_checkpoints, open_on_nodes, restore_newest
from sciml.run.degrees import check_degrees
from sciml.run.flops import count_flops
from sciml.run.folder import RunFolder, new_path
from sciml.run.loaded import read_fitted, save_fitted
from sciml.run.lock import RunLock
from sciml.run.restart import RestartNote
from sciml.run.sized_build import sized_build
from sciml.run.spec import RunSpec, follow_data
from sciml.run.warm_start import SourceRun, find_source
from sciml.training.callbacks import Callback, MetricsLog, ProgressView
from sciml.training.checkpoint import CheckpointStore
from sciml.training.compilation import check_compile
from sciml.training.engine_config import build_engine
from sciml.training.node_checkpoints import NodeCheckpoints
from sciml.training.precision import chosen_precision, use_tf32
from sciml.training.schedule import rest_of_schedule
from sciml.training.step_math import DTYPES
from sciml.training.trace import Trace
from sciml.training.tracking import build_tracker, check_tracking
from sciml.training.trainer import Trainer
from sciml.training.utilization import ModelFlops


@dataclass(frozen=True)
class TrainingSession:
    """Holds a training that stands where its run stands.

    Attributes:
        lock: of the run's folder, held by the first rank until the training ends.
    """

    folder: RunFolder
    spec: RunSpec
    trainer: Trainer
    lock: RunLock | None = None

    @classmethod
    def start(
        cls,
        spec: RunSpec,
        world: World,
        folder: RunFolder | None = None,
        *,
        path: Path | None = None,
        note: RestartNote | None = None,
    ) -> TrainingSession:
        """Locks the run, loads the data, builds the model, creates the folder, and restores the newest checkpoint.

        Args:
            folder: the run that continues; None begins a new one.
            path: folder of a new run; by default one under ``runs_dir``.
            note: is written when the folder is there.

        Raises:
            ConfigError, DataError: before anything is written.
        """
        with ExitStack() as if_refused:
            lock = None if folder is None else _locked(folder, world, if_refused)
            mesh = Mesh(world, check_degrees(spec, world.size))
            check_tracking(spec.tracking)
            use_threads(spec.trainer.num_threads, "trainer.num_threads")
            use_tf32(spec.trainer.tf32)
            if folder is None and world.is_main:
                check_writable(path or new_path(spec.options.runs_dir, spec.domain.name, spec.options.run))
            source = read_source(spec, folder)
            if folder is None:
                spec, sentence = follow_data(spec, None if source is None else source.spec)
                if sentence and path is None:  # reference models are told what the run is
                    say(world, sentence)
            splits = load_data(spec, folder, source)
            task = spec.domain.task(spec, splits).to(world.device)
            spec = _in_told_precision(spec, task, world)
            store = None if folder is None else open_checkpoints(spec, world, folder)
            checkpoint = None if store is None else store.newest_intact(verify=spec.trainer.verify_checksums)
            model = build_model(spec, splits, task, source, mesh, checkpoint)
            check_compile(spec.trainer.compile, model, task, is_reference=path is not None)
            flops = count_flops(spec, splits, world)
            if folder is None:
                folder = world.share(_create_folder(spec, path, splits) if world.is_main else None)
                lock = _locked(folder, world, if_refused)
            if note is not None:
                note.write(folder)
            store = store or open_checkpoints(spec, world, folder)
            on_nodes = open_on_nodes(spec, store, folder)
            trainer = build_trainer(spec, model, task, splits, store, on_nodes, flops)
            for sentence in restore_newest(trainer, checkpoint, folder):
                say(world, sentence)
            if trainer.step:
                if trainer.step < spec.trainer.max_steps:
                    say(world, rest_of_schedule(spec.optim, trainer.step, spec.trainer.max_steps))
                if world.is_main:
                    folder.note_resume(spec.config, trainer.step)
            size = f"{model.num_parameters():,} parameters, {len(splits.train)} samples"
            peak = "" if flops is None or path is not None else flops.peak_text
            say(world, f"{spec.domain.name}: {size}{peak} -> {folder.path}")
            if_refused.pop_all()
            return cls(folder, spec, trainer, lock)

    def fit(self) -> bool:
        """Trains to the last step, with its views, and unlocks the run; False where a signal ended it early."""
        try:
            return self.trainer.fit(_callbacks(self, self.trainer.mesh))
        finally:
            if self.lock is not None:
                self.lock.release()


def _locked(folder: RunFolder, world: World, undo: ExitStack) -> RunLock | None:
    """Locks a run's folder on the first rank, and lets it be unlocked with what else is undone."""
    if not world.is_main:
        return None
    lock = RunLock(folder.path)
    undo.callback(lock.release)
    return lock


def _in_told_precision(spec: RunSpec, task: Task, world: World) -> RunSpec:
    """Chooses the precision, and tells which one it is where it was not given."""
    chosen = with_chosen_precision(spec, task, world)
    if chosen is not spec:
        say(world, f"precision {chosen.trainer.precision}")
    return chosen


def with_chosen_precision(spec: RunSpec, task: Task, world: World) -> RunSpec:
    """Returns the run with the precision that ``trainer.precision=auto`` means on its first device."""
    if spec.trainer.precision != "auto":
        return spec
    precision = chosen_precision("auto", world.device, is_differentiated_twice=task.needs_double_backward)
    precision = world.share(precision)
    return replace(spec, trainer=replace(spec.trainer, precision=precision))


def read_source(spec: RunSpec, folder: RunFolder | None) -> SourceRun | None:
    """Reads the run whose weights a training starts from; None where it has none, or has a checkpoint of its own."""
    name = spec.options.init_from
    if not name or (folder is not None and CheckpointStore(folder.checkpoints).latest() is not None):
        return None
    return SourceRun.read(find_source(name, spec.options.runs_dir, spec.domain.name))


def load_data(spec: RunSpec, folder: RunFolder | None, source: SourceRun | None) -> Splits:
    """Loads the splits: those that a run began with, or new ones, in the source's units where its weights need them."""
    if folder is not None:
        return spec.domain.splits(spec, replace(read_fitted(folder, spec), data=None))
    splits = spec.domain.splits(spec)
    if source is None or not isinstance(spec.domain, WarmStarts):
        return splits
    fitted = spec.domain.warm_start(FittedData(splits.schema, splits.statistics), source.fitted)
    return replace(splits, schema=fitted.schema, statistics=fitted.statistics)


def build_model(
    spec: RunSpec, splits: Splits, task: Task, source: SourceRun | None, mesh: Mesh, checkpoint: Path | None = None
) -> ParallelModel:
    """Builds the model, sharded over the mesh, with weights drawn from the seed or taken from the source.

    Args:
        checkpoint: that will be loaded into it; a model of other sizes is refused.
    """

    def build() -> nn.Module:
        return spec.build_model(splits.schema)

    if checkpoint is not None:
        build = sized_build(build, checkpoint)

    start = None
    if source is not None:
        start = source.warm_start(build)
        fresh = f"; as initialized: {', '.join(start.fresh)}" if start.fresh else ""
        fresh += f"; from zero: {', '.join(start.additions)}" if start.additions else ""
        alike = "".join(f"; {new} starts as {known}" for new, known in start.starts_as.items())
        say(mesh.world, f"weights of {source.folder.path} taken over{alike}{fresh}")
    # A loss made of gradients differentiates through what FSDP would cast.
    half = None if task.needs_double_backward or spec.engine.name != "native" else DTYPES[spec.trainer.precision]
    return parallelize(build, mesh, parallel_of(spec.parallel, task), seed_of(spec.seed, "init"), start, half)


def build_trainer(
    spec: RunSpec,
    model: ParallelModel,
    task: Task,
    splits: Splits,
    checkpoints: CheckpointStore,
    on_nodes: NodeCheckpoints | None = None,
    flops: ModelFlops | None = None,
) -> Trainer:
    """Builds the trainer of a run, at its first step."""
    return Trainer(
        spec.trainer,
        spec.optim,
        seed=spec.seed,
        mesh=model.mesh,
        engine=build_engine(spec.engine, model, spec.optim, spec.trainer, task),
        task=task,
        splits=splits,
        checkpoints=checkpoints,
        on_nodes=on_nodes,
        flops=flops,
    )


def parallel_of(config: ParallelConfig, task: Task) -> ParallelConfig:
    """Returns how a task's model can be sharded: one whose loss is made of gradients needs its weights whole between.

    Raises:
        ConfigError: where it cannot be sharded as wanted.
    """
    if not task.needs_double_backward:
        return config
    if config.pp > 1:
        raise ConfigError(
            "a loss that is made of gradients cannot be cut into pipeline stages", key="parallel.pp", hint="use 1"
        )
    return replace(config, zero=min(config.zero, 2))


def _create_folder(spec: RunSpec, path: Path | None, splits: Splits) -> RunFolder:
    path = path or new_path(spec.options.runs_dir, spec.domain.name, spec.options.run)
    samples = {name: len(getattr(splits, name)) for name in ("train", "valid", "test")}
    folder = RunFolder.create(path, spec.domain.name, spec.config, samples)
    save_fitted(folder, FittedData(splits.schema, splits.statistics))
    return folder


def _callbacks(session: TrainingSession, mesh: Mesh) -> list[Callback]:
    config, path, step = session.spec.trainer, session.folder.path, session.trainer.step
    trace = Trace(path, mesh.world.rank, config.trace_steps)
    if not mesh.is_main:
        return [trace]
    views: list[Callback] = [
        trace,
        MetricsLog(path / "metrics.jsonl", every=config.log_every, resume_step=step),
        ProgressView(config.max_steps, step),
    ]
    tracker = build_tracker(session.spec.tracking, path, config.log_every)
    if tracker is None:
        return views
    tracker.parameters(session.spec.config)
    return [*views, tracker]


def say(world: World, text: str) -> None:
    """Writes a line for the user to stderr, once for all ranks."""
    if world.is_main:
        print(text, file=sys.stderr, flush=True)
