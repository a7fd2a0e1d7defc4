"""A trained run, opened: its configuration, its model with the saved weights, its data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sciml.core.errors import ConfigError, DataError, nearest
from sciml.core.files import atomic_file, write_json
from sciml.distributed.mesh import Mesh
from sciml.domain.optional import Calibrates
from sciml.domain.protocol import FittedData, LoadedModel, Splits, Task
from sciml.parallel.config import ParallelConfig
from sciml.parallel.data import local
from sciml.parallel.model import ParallelModel, parallelize
from sciml.run.folder import RunFolder
from sciml.run.spec import Experiment, build_experiment
from sciml.training.checkpoint import CheckpointStore, read_manifest, read_tensors, tensor_shapes

CALIBRATION = "calibration.json"


@dataclass(frozen=True)
class TrainedRun:
    """What is needed to use a trained model."""

    folder: RunFolder
    experiment: Experiment
    trained: FittedData
    model: nn.Module
    splits: Splits
    task: Task


def save_trained(folder: RunFolder, trained: FittedData) -> None:
    """Writes what a model is built from and normalized with beside its checkpoints."""
    write_json(folder.path / "schema.json", trained.schema.to_dict())
    with atomic_file(folder.path / "statistics.safetensors") as temporary:
        save_file({name: value.contiguous() for name, value in trained.statistics.to_tensors().items()}, temporary)


def open_model(
    folder: RunFolder,
    *,
    checkpoint: str = "best",
    mesh: Mesh | None = None,
    parallel: ParallelConfig | None = None,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> LoadedModel:
    """Opens the model of a run with the averaged weights of one of its checkpoints; reads no data.

    Args:
        checkpoint: ``best``, ``latest`` or a step.
        mesh: the ranks that open it together; by default this process alone, on the CPU.
        parallel: how the model is cut over them; by default every rank of the mesh has it whole.
        changes: keys of the run's configuration to change, by group, e.g. ``{"data": {"path": ...}}``.

    Raises:
        ConfigError: where the run has no such checkpoint, or a change does not fit.
        DataError: where a file of the run is missing or corrupted.
    """
    experiment = build_experiment(with_changes(folder.record["config"], changes or {}))
    path = find_checkpoint(folder, checkpoint)
    trained = read_trained(folder, experiment)
    mesh = mesh or Mesh.alone()

    def build() -> nn.Module:
        return experiment.domain.model(experiment, trained.schema)

    model = parallelize(build, mesh, parallel or ParallelConfig(), seed=None)
    load_weights(model, path, CheckpointStore(folder.checkpoints, mesh.world).group)
    model.module.eval()
    return LoadedModel(folder.path, experiment, trained, model.whole, mesh.device)


def open_run(folder: RunFolder, **opening: Any) -> TrainedRun:
    """Opens a run as :func:`open_model` does, and its data."""
    opened = open_model(folder, **opening)
    experiment: Experiment = opened.cfg
    splits = experiment.domain.splits(experiment, opened.trained)
    task = experiment.domain.task(experiment, splits).to(opened.device)
    if isinstance(task, Calibrates):
        task.calibration = opened.trained.calibration
    return TrainedRun(folder, experiment, opened.trained, opened.model, splits, task)


def with_changes(config: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A run's configuration with some keys changed; unknown ones are refused when it is checked.

    Raises:
        ConfigError: where a group of keys does not exist.
    """
    values = dict(config)
    for group, keys in changes.items():
        if not isinstance(values.get(group), Mapping):
            raise ConfigError("unknown group of keys", key=group, hint=nearest(group, config))
        values[group] = {**values[group], **keys}
    return values


def find_checkpoint(folder: RunFolder, which: str) -> Path:
    """A checkpoint of a run: ``best``, ``latest`` or a step."""
    store = CheckpointStore(folder.checkpoints)
    if which in ("best", "latest"):
        path = store.best() if which == "best" else store.latest()
        if path is None:
            raise ConfigError(
                f"{folder.path} has no checkpoint yet", key="run", hint="train longer, or choose another run"
            )
        return path
    steps = store.steps()
    if not which.isdigit() or int(which) not in steps:
        known = ", ".join(["best", "latest", *map(str, steps)])
        raise ConfigError(f"{folder.path} has no checkpoint {which!r}", key="checkpoint", hint=f"known: {known}")
    return store.path(int(which))


def load_weights(model: ParallelModel, path: Path, group: Any = None) -> None:
    """Loads the averaged weights of a checkpoint into a model, or the plain ones where no average was kept.

    Args:
        group: the processes that share the reading, on the CPU.
    """
    read_manifest(path, group)
    averaged = has_averages(path)
    parameters = {name: local(p.detach()) for name, p in model.named_parameters()}
    places = {f"{'ema' if averaged else 'model'}.{name}": value for name, value in parameters.items()}
    wanted = {stored: model.stored(stored.partition(".")[2], value) for stored, value in places.items()}
    buffers = {f"model.{name}": value for name, value in model.buffers().items()}
    loaded = read_tensors(path, {**wanted, **buffers}, group)
    for name, value in {**places, **buffers}.items():
        value.copy_(local(loaded[name]))


def has_averages(path: Path) -> bool:
    """Whether a checkpoint holds averaged weights."""
    return any(name.startswith("ema.") for name in tensor_shapes(path))


class WarmStart:
    """Starts a model's parameters from another run's averaged weights wherever name and shape agree.

    A model that says by ``variable_rows()`` which parameters have a block of rows for each variable takes over
    the blocks of the variables that both know, so that other variables do not cost it the ones it shares.

    Args:
        model, older: both models, whole; only names, shapes and rows are read.
        path: checkpoint of the older one.

    Attributes:
        fresh: names of the parameters that found no counterpart and stay as initialized.

    Raises:
        ConfigError: where less than half of the model finds its weights: it was not meant for this one.
    """

    def __init__(self, model: nn.Module, older: nn.Module, path: Path) -> None:
        read_manifest(path)
        self.path, self.kind = path, "ema" if has_averages(path) else "model"
        self.shapes = {name: p.shape for name, p in older.named_parameters()}
        self.rows, self.older_rows = _variable_rows(model), _variable_rows(older)
        sizes = {name: p.numel() for name, p in model.named_parameters()}
        self.fresh = [name for name, p in model.named_parameters() if not self._fits(name, p.shape)]
        share = 1 - sum(sizes[name] for name in self.fresh) / sum(sizes.values())
        if share < 0.5:
            raise ConfigError(
                f"only {share:.0%} of this model fits the weights of {path.parent.parent}",
                key="init_from",
                hint="choose the model that it was trained with",
            )

    def _fits(self, name: str, shape: torch.Size) -> bool:
        if name not in self.shapes:
            return False
        if name not in self.rows:
            return self.shapes[name] == shape
        blocks, older = shape[0] // len(self.rows[name]), self.shapes[name][0] // len(self.older_rows[name])
        return (blocks, *shape[1:]) == (older, *self.shapes[name][1:])

    def __call__(self, name: str, drawn: Tensor) -> Tensor:
        """The value that a parameter starts from, given the one that was drawn for it."""
        if name in self.fresh:
            return drawn
        stored = f"{self.kind}.{name}"
        value = read_tensors(self.path, {stored: torch.empty(self.shapes[name], dtype=drawn.dtype)})[stored]
        if name not in self.rows:
            return value
        names, known = self.rows[name], self.older_rows[name]
        blocks, older = drawn.unflatten(0, (len(names), -1)), value.unflatten(0, (len(known), -1))
        for position, variable in enumerate(names):
            if variable in known:
                blocks[position] = older[known.index(variable)]
        return drawn


def weights_to_take_over(build: Callable[[], nn.Module], source: RunFolder) -> WarmStart:
    """What a model starts from if it takes over the weights of another run."""
    experiment = build_experiment(source.record["config"])
    trained = read_trained(source, experiment)
    with torch.device("meta"):
        model, older = build(), experiment.domain.model(experiment, trained.schema)
    return WarmStart(model, older, find_checkpoint(source, "best"))


def _variable_rows(model: nn.Module) -> Mapping[str, tuple[str, ...]]:
    rows: Callable[[], Mapping[str, tuple[str, ...]]] | None = getattr(model, "variable_rows", None)
    return rows() if rows is not None else {}


def read_trained(folder: RunFolder, experiment: Experiment) -> FittedData:
    """What a run's model was built from and normalized with.

    Raises:
        DataError: where its files are missing or corrupted.
    """
    try:
        schema = json.loads((folder.path / "schema.json").read_text())
        statistics = load_file(folder.path / "statistics.safetensors")
        calibration = folder.path / CALIBRATION
        factors = json.loads(calibration.read_text()) if calibration.exists() else {}
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"{folder.path} has no readable schema.json and statistics.safetensors ({error})") from None
    return replace(experiment.domain.restore(schema, statistics), calibration=factors)
