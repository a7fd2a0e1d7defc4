"""The files of one checkpoint, written and read by one process or by all of a group together."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from jaxtyping import Shaped
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.tensor import DTensor
from typing_extensions import TypedDict

from sciml.core.errors import ConfigError, DataError, RunError
from sciml.core.files import read_json, sha256
from sciml.training.checkpoint_layout import MANIFEST
from sciml.training.checkpoint_storage import (
    PiecePlanner,
    SafetensorsReader,
    SafetensorsWriter,
    ShardPiece,
    assemble,
    stored_pieces,
)

T = TypeVar("T")
Group = dist.ProcessGroup | None


def together(work: Callable[[], T], group: Group) -> list[T]:
    """Does something in every process of a group; None is this process alone.

    Returns:
        What it gave in each process.

    Raises:
        Exception: in every process the first that any of them met.
    """
    if group is None:
        return [work()]
    mine: tuple[Any, Exception | None]
    try:
        mine = (work(), None)
    except Exception as error:
        mine = (None, error)
    met: list[Any] = [None] * group.size()
    with _peers():
        dist.all_gather_object(met, mine, group=group)
    for _, failure in met:
        if failure is not None:
            raise failure
    return [value for value, _ in met]


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    """Says that another process was lost, and shows of many failures the first."""
    try:
        yield
    except dcp.CheckpointException as error:
        failure, _ = error.failures[min(error.failures)]
        raise failure from None
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"lost contact with another process at a checkpoint: {reason}") from error


def expect_one_process() -> None:
    """Keeps torch quiet about a checkpoint that one process writes or reads on its own: it is meant so.

    Not undone afterwards: filters belong to all threads, and one that writes must not undo those of training.
    """
    warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized", UserWarning)


def share_out(held: Mapping[str, ShardPiece], group: Group) -> list[str]:
    """Returns the names of the pieces that this process writes: of equal ones that several hold, one writes each.

    Pieces go to the process that has least to write so far; all processes of the group call this.
    """
    if group is None:
        return list(held)
    mine = [(name, tuple(piece.offsets), piece.local.nbytes) for name, piece in held.items()]
    holders: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    sizes = {}
    for rank, of_rank in enumerate(together(lambda: mine, group)):
        for name, offsets, size in of_rank:
            holders.setdefault((name, offsets), []).append(rank)
            sizes[name, offsets] = size
    loads, chosen = [0] * group.size(), []
    for key in sorted(holders, key=lambda key: (-sizes[key], key)):
        writer = min(holders[key], key=lambda rank: (loads[rank], rank))
        loads[writer] += sizes[key]
        if writer == group.rank():
            chosen.append(key[0])
    return chosen


def write_tensors(
    folder: Path, held: Mapping[str, ShardPiece], group: Group = None, *, whole: bool = True
) -> dict[str, str]:
    """Writes what the processes of a group hold into a folder.

    Args:
        whole: whether their pieces must fill every tensor.

    Returns:
        SHA-256 of each file; in process 0.
    """
    writer, planner = SafetensorsWriter(folder), PiecePlanner(whole)
    with _peers():
        dcp.save(dict(held), storage_writer=writer, planner=planner, process_group=group, no_dist=group is None)
    return writer.checksums


def read_manifest(path: Path, group: Group = None, *, verify: bool = True) -> dict[str, Any]:
    """Returns the manifest of a checkpoint, after its files were checked.

    Args:
        group: processes that all call this and share the files among them.
        verify: whether files are compared with their checksums; else only their headers are read.

    Raises:
        DataError: where a file is missing or changed; in all processes.
    """
    manifest = together(lambda: _manifest(path), group)[0]
    together(lambda: _verify(path, manifest["files"], group, hashed=verify), group)
    return manifest


def _advice(path: Path) -> str:
    """Returns what to do about a damaged checkpoint; an exported model lies alone, beside its run.json."""
    is_exported = (path / "run.json").exists()
    return "copy or export it again" if is_exported else f"use an earlier checkpoint of {path.parent}"


def _manifest(path: Path) -> dict[str, Any]:
    if not (path / MANIFEST).exists():
        raise DataError(f"{path} is no checkpoint: it has no {MANIFEST}")
    manifest: dict[str, Any] = read_json(path / MANIFEST, Manifest, advice=_advice(path))
    for name in manifest["files"]:
        # A manifest may come from a stranger: no other file is opened, and no device, which might never end.
        if Path(name).name != name or "\0" in name:
            raise DataError(f"{path / MANIFEST} names {name!r}, which is no file in its folder")
        file = path / name
        if not file.is_file() or file.is_symlink():
            raise DataError(f"{file} is missing or corrupted; {_advice(path)}")
    return manifest


class Manifest(TypedDict):
    """Says what ``checkpoint.json`` must have: the step, and the SHA-256 of each file by name.

    Attributes:
        format: of the files; an exported model has none.
        layout: how the training was cut over its processes, where only they can read it.
        samples: drawn so far.
        optimizer: the name of the one whose tensors are in it.
    """

    step: int
    files: dict[str, str]
    format: NotRequired[str]
    layout: NotRequired[str]
    samples: NotRequired[int]
    optimizer: NotRequired[str]


def _my_share(names: list[str], group: Group) -> list[str]:
    return names if group is None else names[group.rank() :: group.size()]


def _verify(path: Path, checksums: Mapping[str, str], group: Group, *, hashed: bool) -> None:
    for name in _my_share(sorted(checksums), group):
        file = path / name
        if hashed and sha256(file) != checksums[name]:
            raise DataError(f"{file} is missing or corrupted; {_advice(path)}")
        stored_pieces(file)  # a right checksum does not make it a file of tensors


def read_metadata(path: Path, group: Group = None) -> Metadata:
    """Returns names, shapes, types and offsets of the tensors in a checkpoint, from the headers of its files."""
    names = together(lambda: sorted(_manifest(path)["files"]), group)[0]
    stored = together(lambda: [stored_pieces(path / name) for name in _my_share(names, group)], group)
    return assemble(piece for of_rank in stored for of_file in of_rank for piece in of_file)


def tensor_shapes(path: Path, group: Group = None) -> dict[str, tuple[int, ...]]:
    """Returns names and shapes of the tensors in a checkpoint."""
    return {name: tuple(facts.size) for name, facts in stored_tensors(read_metadata(path, group)).items()}


def stored_tensors(metadata: Metadata) -> dict[str, TensorStorageMetadata]:
    """Returns shape, type and pieces of each tensor."""
    return {name: f for name, f in metadata.state_dict_metadata.items() if isinstance(f, TensorStorageMetadata)}


def read_tensors(path: Path, template: Mapping[str, Tensor], group: Group = None) -> dict[str, Tensor]:
    """Reads the template's tensors, by name, into new memory of the same shape, type and placement.

    Args:
        template: each process its own, on whatever mesh; of a DTensor it reads only what it holds.
        group: processes that all call this; they share the reading of headers and fail together.

    Raises:
        ConfigError: where a tensor is missing or has another shape.
        DataError: where a file cannot be read.
    """
    metadata = read_metadata(path, group)
    shapes = {name: facts.size for name, facts in stored_tensors(metadata).items()}
    wanted = {name: tensor.shape for name, tensor in template.items() if not is_elsewhere(tensor)}
    together(lambda: refuse_other_shapes(path, wanted, shapes), group)
    state = {name: torch.empty_like(value) for name, value in template.items()}
    together(lambda: fill(state, path, metadata), group)
    return state


def fill(state: Mapping[str, Tensor], path: Path, metadata: Metadata) -> None:
    """Reads tensors in place, each process on its own."""
    expect_one_process()
    some = {name: value for name, value in state.items() if _local(value).numel() > 0}
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    with _peers():
        dcp.load(some, storage_reader=SafetensorsReader(path, metadata), planner=planner, no_dist=True)


def is_elsewhere(tensor: Shaped[Tensor, "..."]) -> bool:
    """Says whether other processes hold all of a tensor, so that this one has nothing of it to read."""
    return _local(tensor).numel() == 0 and tensor.numel() > 0


def _local(tensor: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def refuse_other_shapes(path: Path, wanted: Mapping[str, Sequence[int]], stored: Mapping[str, Sequence[int]]) -> None:
    """Refuses a checkpoint that lacks a tensor that is wanted, or has it of another shape.

    Raises:
        ConfigError: naming the tensor.
    """
    for name, shape in wanted.items():
        if name not in stored:
            raise ConfigError(f"the checkpoint {path} has no tensor {name!r}", key="model", hint=SAME_MODEL)
        if tuple(stored[name]) != tuple(shape):
            raise ConfigError(
                f"the checkpoint {path} has {name!r} of shape {tuple(stored[name])}, the model {tuple(shape)}",
                key="model",
                hint=SAME_MODEL,
            )


SAME_MODEL = "use the model it was trained with, or init_from= to take over what fits"
