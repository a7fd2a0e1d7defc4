"""Checkpoints: tensors as safetensors through torch.distributed.checkpoint, everything else as JSON; no pickle.

A checkpoint is a folder ``step-00000200`` with ``shard-*.safetensors`` and ``checkpoint.json`` (step, checksums).
It appears whole or not at all.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sciml.core.errors import ConfigError, DataError
from sciml.core.files import atomic_directory, sha256, write_json
from sciml.dist.world import World

FORMAT = "sciml-checkpoint/1"
MANIFEST = "checkpoint.json"
BEST = "best.json"


class CheckpointStore:
    """The checkpoints of a run.

    Args:
        directory: folder that holds them.
        keep_last: how many to keep besides the best one.
    """

    def __init__(self, directory: Path, world: World | None = None, keep_last: int = 2) -> None:
        self.directory, self.keep_last = directory, keep_last
        self.world = world or World(0, 1, torch.device("cpu"))

    def save(self, step: int, tensors: Mapping[str, Tensor]) -> Path:
        """Writes a checkpoint and removes the oldest ones beyond ``keep_last``.

        Raises:
            RunError: where it cannot be written; earlier checkpoints are kept.
        """
        path = self.path(step)
        if self.world.is_main:
            with atomic_directory(path) as temporary:
                write_tensors(temporary, tensors)
                files = {file.name: sha256(file) for file in sorted(temporary.glob("*.safetensors"))}
                manifest = {"format": FORMAT, "step": step, "files": files}
                (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
            self._prune()
        self.world.barrier()
        return path

    def path(self, step: int) -> Path:
        return self.directory / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, increasing."""
        return sorted(int(p.parent.name.removeprefix("step-")) for p in self.directory.glob(f"step-*/{MANIFEST}"))

    def latest(self) -> Path | None:
        steps = self.steps()
        return self.path(steps[-1]) if steps else None

    def mark_best(self, step: int, loss: float) -> None:
        """Notes that a checkpoint is the best so far; it is then kept."""
        if self.world.is_main:
            write_json(self.directory / BEST, {"step": step, "loss": loss})
        self.world.barrier()

    def best(self) -> Path | None:
        """The best checkpoint by validation loss, or the latest where none was marked."""
        note = self._best_note()
        if note is not None and (self.path(note["step"]) / MANIFEST).exists():
            return self.path(note["step"])
        return self.latest()

    def best_loss(self) -> float | None:
        """Validation loss of the best checkpoint, or None where none was marked."""
        note = self._best_note()
        return None if note is None else note["loss"]

    def _best_note(self) -> dict[str, Any] | None:
        file = self.directory / BEST
        return json.loads(file.read_text()) if file.exists() else None

    def _prune(self) -> None:
        best = self.best()
        for step in self.steps()[: -self.keep_last]:
            if self.path(step) != best:
                shutil.rmtree(self.path(step))


def write_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes named tensors into a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "assuming the intent is to save in a single process": it is
        writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
        dcp.save(dict(tensors), storage_writer=writer, no_dist=True)


def read_manifest(path: Path) -> dict[str, Any]:
    """The facts of a checkpoint, after its files were checked against their checksums.

    Raises:
        DataError: where a file is missing or changed.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except FileNotFoundError:
        raise DataError(f"{path} is no checkpoint: it has no {MANIFEST}") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise DataError(f"{path / MANIFEST} is corrupted; use an earlier checkpoint of {path.parent}") from None
    for name, checksum in manifest["files"].items():
        file = path / name
        if not file.exists() or sha256(file) != checksum:
            raise DataError(f"{file} is missing or corrupted; use an earlier checkpoint of {path.parent}")
    return manifest


def read_tensors(path: Path, template: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reads the template's tensors, by name, into new memory of the same shape and type.

    Raises:
        ConfigError: where a tensor is missing or has another shape.
        DataError: where a file cannot be read.
    """
    shapes = tensor_shapes(path)
    for name, wanted in template.items():
        if name not in shapes:
            raise ConfigError(f"the checkpoint {path} has no tensor {name!r}", key="model", hint=_SAME_MODEL)
        if shapes[name] != tuple(wanted.shape):
            raise ConfigError(
                f"the checkpoint {path} has {name!r} of shape {shapes[name]}, the model {tuple(wanted.shape)}",
                key="model",
                hint=_SAME_MODEL,
            )
    state = {name: torch.empty_like(value) for name, value in template.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in write_tensors
        dcp.load(state, storage_reader=dcp.HuggingFaceStorageReader(str(path)), no_dist=True)
    return state


_SAME_MODEL = "use the model it was trained with, or init_from= to take over what fits"


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise DataError(f"{file} is corrupted ({error}); use an earlier checkpoint of {path.parent}") from None
    return shapes
