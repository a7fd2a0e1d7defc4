"""A trained run, loaded: its specification, its model with the saved weights, its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from sciml.core.errors import ConfigError, DataError
from sciml.core.files import atomic_file, read_json, read_safetensors, write_json
from sciml.distributed.mesh import Mesh
from sciml.domain.optional import Calibrates
from sciml.domain.protocol import FittedData, LoadedModel, Splits, Task
from sciml.parallel.config import ParallelConfig
from sciml.parallel.data import local
from sciml.parallel.model import ParallelModel, parallelize
from sciml.run.folder import RunFolder
from sciml.run.sized_build import sized_build
from sciml.run.spec import RunSpec, spec_of_run
from sciml.training.checkpoint import CheckpointStore, read_manifest, read_tensors, tensor_shapes

SCHEMA = "schema.json"
STATISTICS = "statistics.safetensors"
CALIBRATION = "calibration.json"


@dataclass(frozen=True)
class LoadedRun:
    """Holds a trained model with its data and its task.

    Attributes:
        fitted: what the model was built from and normalized with.
        model: in evaluation mode.
    """

    folder: RunFolder
    spec: RunSpec
    fitted: FittedData
    model: nn.Module
    splits: Splits
    task: Task


def load_model(
    folder: RunFolder,
    *,
    checkpoint: str = "best",
    mesh: Mesh | None = None,
    parallel: ParallelConfig | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> LoadedModel:
    """Loads the model of a run with the averaged weights of one of its checkpoints; reads no data.

    Args:
        checkpoint: ``best``, ``latest`` or a step.
        mesh: the ranks that load it together; by default this process alone, on the CPU.
        parallel: how the model is sharded over them; by default every rank of the mesh has it whole.
        overrides: values of the run's configuration to change, by dotted key, e.g. ``{"data.path": ...}``.

    Raises:
        ConfigError: where the run has no such checkpoint, or an override does not fit.
        DataError: where a file of the run is missing or corrupted.
    """
    spec = spec_of_run(folder, overrides)
    path = find_checkpoint(folder, checkpoint)
    fitted = read_fitted(folder, spec)
    mesh = mesh or Mesh.alone()

    def build() -> nn.Module:
        return spec.build_model(fitted.schema)

    model = parallelize(sized_build(build, path), mesh, parallel or ParallelConfig(), seed=None)
    group = CheckpointStore(folder.checkpoints, mesh.world).group
    load_weights(model, path, group, verify=spec.trainer.verify_checksums)
    model.module.eval()
    return LoadedModel(folder.results, spec, fitted, model.whole, mesh.device)


def load_run(
    folder: RunFolder,
    *,
    checkpoint: str = "best",
    mesh: Mesh | None = None,
    parallel: ParallelConfig | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> LoadedRun:
    """Loads the model of a run as :func:`load_model` does, and its data."""
    loaded = load_model(folder, checkpoint=checkpoint, mesh=mesh, parallel=parallel, overrides=overrides)
    spec = loaded.spec
    assert isinstance(spec, RunSpec)
    splits = spec.domain.splits(spec, loaded.fitted)
    task = spec.domain.task(spec, splits).to(loaded.device)
    if isinstance(task, Calibrates):
        task.calibration = loaded.fitted.calibration
    return LoadedRun(folder, spec, loaded.fitted, loaded.model, splits, task)


def find_checkpoint(folder: RunFolder, which: str) -> Path:
    """Returns the folder of a checkpoint: ``best``, ``latest`` or a step.

    Raises:
        ConfigError: where the run has no such checkpoint.
    """
    if folder.is_exported:
        if which not in ("best", "latest"):
            raise ConfigError(f"{folder.path} holds one exported model", key="checkpoint", hint="leave it out")
        return folder.path
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


def load_weights(model: ParallelModel, path: Path, group: Any = None, *, verify: bool = True) -> None:
    """Loads the averaged weights of a checkpoint into a model, or the plain ones where no average was kept.

    Args:
        group: the processes that share the reading, on the CPU.
        verify: whether its files are compared with their checksums.
    """
    read_manifest(path, group, verify=verify)
    averaged = has_averages(path)
    parameters = {name: local(p.detach()) for name, p in model.named_parameters()}
    targets = {f"{'ema' if averaged else 'model'}.{name}": value for name, value in parameters.items()}
    wanted = {stored: model.stored(stored.partition(".")[2], value) for stored, value in targets.items()}
    buffers = {f"model.{name}": value for name, value in model.buffers().items()}
    loaded = read_tensors(path, {**wanted, **buffers}, group)
    for name, value in {**targets, **buffers}.items():
        value.copy_(local(loaded[name]))


def has_averages(path: Path) -> bool:
    """Says whether a checkpoint holds averaged weights."""
    return any(name.startswith("ema.") for name in tensor_shapes(path))


def save_fitted(folder: RunFolder, fitted: FittedData) -> None:
    """Writes what a model is built from and normalized with beside its checkpoints."""
    write_json(folder.path / SCHEMA, fitted.schema.to_dict())
    with atomic_file(folder.path / STATISTICS) as temporary:
        save_file({name: value.contiguous() for name, value in fitted.statistics.to_tensors().items()}, temporary)


def read_fitted(folder: RunFolder, spec: RunSpec) -> FittedData:
    """Reads what a run's model was built from and normalized with.

    Raises:
        DataError: where its files are missing or corrupted.
    """
    schema = read_json(folder.path / SCHEMA, dict[str, Any])
    calibration = folder.path / CALIBRATION
    factors = read_json(calibration, dict[str, float]) if calibration.exists() else {}
    statistics = read_safetensors(folder.path / STATISTICS)
    try:
        fitted = spec.domain.restore(schema, statistics)
    except ConfigError as error:
        raise DataError(f"{folder.path / SCHEMA} is corrupted: {error}") from None
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # tensors that a domain needs, of other names
        raise DataError(f"{folder.path / STATISTICS} is corrupted: {type(error).__name__} ({error})") from error
    return replace(fitted, calibration=factors, data=spec_of_run(folder).data)
