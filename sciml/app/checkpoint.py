"""A checkpoint: its contents, the verification of its checksums, its conversion to one file of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.core.files import atomic_file
from sciml.core.result import CommandResult, Output
from sciml.report.tables import Column, count, render, table
from sciml.run.compose import Composition
from sciml.run.folder import RunFolder
from sciml.run.loaded import find_checkpoint
from sciml.training.checkpoint_files import read_manifest, read_metadata, stored_tensors
from sciml.training.checkpoint_layout import MANIFEST
from sciml.training.whole_weights import AVERAGED, MODEL, Weights, write_whole_weights

PART_DEPTH = 2
"""Names of modules that the summary tells apart, from the outside."""


@dataclass(frozen=True)
class CheckpointConfig:
    """Holds the keys of ``conf/checkpoint.yaml``."""

    run: str = "latest"
    runs_dir: str = "runs"
    checkpoint: str | int = "best"
    path: str | None = None
    action: Literal["inspect", "verify", "convert"] = "inspect"
    out: str | None = None
    weights: Weights | None = None
    tensors: bool = False
    output: Output = "text"

    def __post_init__(self) -> None:
        if self.action == "convert" and self.out is None:
            raise ConfigError("a file to write is needed", key="out", hint="for example out=model.safetensors")
        for key in ("out", "weights"):
            if self.action != "convert" and getattr(self, key) is not None:
                raise ConfigError(f"action={self.action} writes nothing", key=key, hint="add action=convert")


def run(composition: Composition) -> CommandResult:
    """Does what ``action`` says with the checkpoint that the keys name."""
    config = build(CheckpointConfig, composition.config)
    path = _find(config)
    if config.action == "verify":
        return _verify(path)
    if config.action == "convert":
        return _convert(path, Path(str(config.out)), config.weights)
    return _inspect(path, tensors=config.tensors)


def _find(config: CheckpointConfig) -> Path:
    """Finds a checkpoint by its own folder, or by its run."""
    path = Path(config.path) if config.path is not None else None
    if path is not None and (path / MANIFEST).exists():
        return path
    if path is not None and not (path / "run.json").exists():
        raise ConfigError(
            f"{path} is neither a checkpoint ({MANIFEST}) nor a run (run.json)",
            key="path",
            hint="a folder such as runs/climate/.../checkpoints/step-00000800, or run=latest",
        )
    folder = RunFolder(path) if path is not None else RunFolder.find(config.run, config.runs_dir)
    return find_checkpoint(folder, str(config.checkpoint))


def _inspect(path: Path, *, tensors: bool) -> CommandResult:
    """Lists names, shapes, types and sizes; reads headers only."""
    manifest = read_manifest(path, verify=False)
    listed = [_facts(name, facts) for name, facts in sorted(stored_tensors(read_metadata(path)).items())]
    averaged = any(tensor["name"].startswith(AVERAGED) for tensor in listed)
    files = [
        {"name": name, "bytes": (path / name).stat().st_size, "sha256": checksum}
        for name, checksum in manifest["files"].items()
    ]
    document = {
        "checkpoint": str(path),
        "format": manifest.get("format"),
        "step": manifest["step"],
        "parameters": _parameters(listed, AVERAGED if averaged else MODEL),
        "averaged": averaged,
        "bytes": sum(file["bytes"] for file in files),
        "files": files,
        "tensors": listed,
    }
    return CommandResult(document, _table(document, tensors=tensors))


def _facts(name: str, stored: TensorStorageMetadata) -> dict[str, Any]:
    return {
        "name": name,
        "shape": list(stored.size),
        "dtype": str(stored.properties.dtype).removeprefix("torch."),
        "bytes": stored.size.numel() * stored.properties.dtype.itemsize,
        "pieces": len(stored.chunks),
    }


def _parameters(tensors: Sequence[Mapping[str, Any]], prefix: str) -> int:
    """Counts parameters in the averaged weights where there are some, since they leave out buffers."""
    return sum(math.prod(tensor["shape"]) for tensor in tensors if tensor["name"].startswith(prefix))


def _table(document: Mapping[str, Any], *, tensors: bool) -> str:
    """Returns the summary: what is in it by part of the model; with every tensor where that is asked."""
    lines = [
        f"checkpoint  {document['checkpoint']}",
        f"step        {document['step']}",
        f"parameters  {document['parameters']:,}{', averaged weights too' if document['averaged'] else ''}",
        f"size        {document['bytes'] / 2**20:,.1f} MiB in {count(len(document['files']), 'file')}",
        "",
    ]
    if tensors:
        heads: list[str | Column] = ["tensor", "shape", "type", Column("bytes", True), Column("pieces", True)]
        rows = [
            [t["name"], " x ".join(map(str, t["shape"])) or "scalar", t["dtype"], f"{t['bytes']:,}", t["pieces"]]
            for t in document["tensors"]
        ]
        return render(*lines, table(heads, rows))
    parts: dict[str, list[int]] = {}
    for tensor in document["tensors"]:
        counted = parts.setdefault(_part_of(tensor["name"]), [0, 0, 0])
        for position, number in enumerate((1, math.prod(tensor["shape"]), tensor["bytes"])):
            counted[position] += number
    columns: list[str | Column] = ["part", Column("tensors", True), Column("numbers", True), Column("MiB", True)]
    rows = [[name, f"{n:,}", f"{numbers:,}", f"{size / 2**20:,.2f}"] for name, (n, numbers, size) in parts.items()]
    return render(*lines, table(columns, rows), "", "every tensor: tensors=true")


def _part_of(name: str) -> str:
    """Returns the part of a checkpoint that a tensor belongs to: model, average or optimizer, and the module in it."""
    kind, _, rest = name.partition(".")
    return f"{kind}.{'.'.join(rest.split('.')[:PART_DEPTH])}" if kind in (MODEL[:-1],) else kind


def _verify(path: Path) -> CommandResult:
    """Compares every file with its checksum.

    Raises:
        DataError: naming the first file that differs.
    """
    manifest = read_manifest(path)
    size = sum((path / name).stat().st_size for name in manifest["files"])
    document = {"checkpoint": str(path), "step": manifest["step"], "files": len(manifest["files"]), "intact": True}
    text = f"intact  {path}: {count(len(manifest['files']), 'file')}, {size / 2**20:,.1f} MiB, checksums agree"
    return CommandResult(document, text)


def _convert(path: Path, out: Path, weights: Weights | None) -> CommandResult:
    """Writes the weights into one file, one tensor after the other.

    Raises:
        ConfigError: where the file exists, or no averaged weights were kept.
    """
    if out.exists():
        raise ConfigError(f"{out} is there already", key="out", hint="choose another name, or remove it")
    with atomic_file(out) as temporary:
        written = write_whole_weights(path, temporary, weights)
    document = {
        "out": str(out),
        "checkpoint": str(path),
        "step": written.step,
        "weights": written.kind,
        "tensors": written.tensors,
        "bytes": out.stat().st_size,
        "sha256": written.sha256,
    }
    size = f"{out.stat().st_size / 2**20:,.1f} MiB"
    return CommandResult(document, f"{out}  {written.tensors} tensors ({written.kind}) of step {written.step}, {size}")
