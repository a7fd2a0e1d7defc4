"""A trained run, opened: its configuration, its model with the saved weights, its data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sciml.app.config import Experiment, build_experiment
from sciml.app.run_folder import RunFolder
from sciml.core.errors import ConfigError, DataError, nearest
from sciml.core.files import atomic_file, write_json
from sciml.domain.protocol import Splits, Task, Trained
from sciml.training.checkpoint import CheckpointStore, read_manifest, read_tensors, tensor_shapes


@dataclass(frozen=True)
class TrainedRun:
    """What is needed to use a trained model."""

    folder: RunFolder
    experiment: Experiment
    trained: Trained
    model: nn.Module
    splits: Splits
    task: Task


def save_trained(folder: RunFolder, trained: Trained) -> None:
    """Writes what a model is built from and normalized with beside its checkpoints."""
    write_json(folder.path / "schema.json", trained.schema.to_dict())
    with atomic_file(folder.path / "statistics.safetensors") as temporary:
        save_file({name: value.contiguous() for name, value in trained.statistics.to_tensors().items()}, temporary)


def open_run(
    folder: RunFolder,
    *,
    checkpoint: str = "best",
    device: torch.device | str = "cpu",
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> TrainedRun:
    """Opens a run with the averaged weights of one of its checkpoints.

    Args:
        checkpoint: ``best``, ``latest`` or a step.
        changes: keys of the run's configuration to change, by group, e.g. ``{"data": {"path": ...}}``.

    Raises:
        ConfigError: where the run has no such checkpoint, or a change does not fit.
        DataError: where a file of the run is missing or corrupted.
    """
    experiment = build_experiment(with_changes(folder.record["config"], changes or {}))
    path = find_checkpoint(folder, checkpoint)
    trained = read_trained(folder, experiment)
    model = experiment.domain.model(experiment, trained.schema)
    load_weights(model, path)
    model.to(device).eval()
    splits = experiment.domain.splits(experiment, trained)
    task = experiment.domain.task(experiment, splits).to(device)
    return TrainedRun(folder, experiment, trained, model, splits, task)


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


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads the averaged weights of a checkpoint into a model, or the plain ones where no average was kept."""
    read_manifest(path)
    averaged = any(name.startswith("ema.") for name in tensor_shapes(path))
    state = model.state_dict()
    parameters = {name for name, _ in model.named_parameters()}
    stored = {name: f"{'ema' if averaged and name in parameters else 'model'}.{name}" for name in state}
    loaded = read_tensors(path, {stored[name]: value for name, value in state.items()})
    model.load_state_dict({name: loaded[stored[name]] for name in state})


def take_over_weights(model: nn.Module, source: RunFolder) -> list[str]:
    """Starts a model from another run's averaged weights wherever name and shape agree.

    A model that says by ``variable_rows()`` which parameters have a block of rows for each variable takes over
    the blocks of the variables that both know, so that other variables do not cost it the ones it shares.

    Returns:
        Names of the parameters that found no counterpart and stay as initialized.

    Raises:
        ConfigError: where less than half of the model finds its weights: it was not meant for this one.
    """
    experiment = build_experiment(source.record["config"])
    trained = read_trained(source, experiment)
    older = experiment.domain.model(experiment, trained.schema)
    load_weights(older, find_checkpoint(source, "best"))
    weights = dict(older.named_parameters())
    rows, older_rows = _variable_rows(model), _variable_rows(older)
    fresh = []
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in weights:
                fresh.append(name)
            elif name in rows:
                if not _copy_rows(weights[name], older_rows[name], parameter, rows[name]):
                    fresh.append(name)
            elif weights[name].shape == parameter.shape:
                parameter.copy_(weights[name])
            else:
                fresh.append(name)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    share = 1 - sum(sizes[name] for name in fresh) / sum(sizes.values())
    if share < 0.5:
        raise ConfigError(
            f"only {share:.0%} of this model fits the weights of {source.path}",
            key="init_from",
            hint="choose the model that it was trained with",
        )
    return fresh


def _variable_rows(model: nn.Module) -> Mapping[str, tuple[str, ...]]:
    rows: Callable[[], Mapping[str, tuple[str, ...]]] | None = getattr(model, "variable_rows", None)
    return rows() if rows is not None else {}


def _copy_rows(source: Tensor, source_names: tuple[str, ...], target: Tensor, names: tuple[str, ...]) -> bool:
    """Copies the blocks of rows whose names both tensors have; False where blocks differ in shape."""
    old, new = source.unflatten(0, (len(source_names), -1)), target.unflatten(0, (len(names), -1))
    if old.shape[1:] != new.shape[1:]:
        return False
    for position, name in enumerate(names):
        if name in source_names:
            new[position] = old[source_names.index(name)]
    return True


def read_trained(folder: RunFolder, experiment: Experiment) -> Trained:
    """What a run's model was built from and normalized with.

    Raises:
        DataError: where its files are missing or corrupted.
    """
    try:
        schema = json.loads((folder.path / "schema.json").read_text())
        statistics = load_file(folder.path / "statistics.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"{folder.path} has no readable schema.json and statistics.safetensors ({error})") from None
    return experiment.domain.restore(schema, statistics)
