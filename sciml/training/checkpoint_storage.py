"""Lays the tensors of a checkpoint in files: torch.distributed.checkpoint over safetensors, on any mesh.

Each process writes the pieces it holds into one file and hashes the bytes as they pass, so that no process ever reads
or hashes the whole. Which of equal replicas writes a piece, whether the pieces fill every tensor, and which pieces a
reader needs is planned by torch.distributed.checkpoint (DCP). The files are those of its HuggingFaceStorageWriter,
and its reader opens them; the writer itself needs a second copy of the whole file in memory and leaves no checksum.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from operator import lt
from pathlib import Path
from typing import Any, NotRequired, TypeVar, cast

import torch
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner, create_default_global_save_plan
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    SavePlan,
    SavePlanner,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.futures import Future
from typing_extensions import TypedDict

from sciml.core.errors import DataError
from sciml.core.files import parse_json
from sciml.training.safetensors_file import DTYPES, write_safetensors

T = TypeVar("T")


@dataclass(frozen=True)
class ShardPiece:
    """Holds this process's piece of a tensor.

    Attributes:
        local: the values.
        offsets: where they begin in the whole tensor, along each dim.
        shape: of the whole tensor.
    """

    local: Shaped[Tensor, "..."]
    offsets: torch.Size
    shape: torch.Size


def pieces(tensors: Mapping[str, Tensor]) -> dict[str, ShardPiece]:
    """Returns what this process holds of each tensor; copies nothing, and leaves out tensors of which it holds nothing.

    Raises:
        ValueError: for a DTensor that is no plain cut of a whole one.
    """
    shards = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            shards[name] = ShardPiece(tensor.detach(), torch.Size([0] * tensor.ndim), tensor.shape)
            continue
        if any(type(placement) not in (Shard, Replicate) for placement in tensor.placements):
            raise ValueError(f"{name} is placed {tensor.placements}: only Shard and Replicate can be saved")
        local = tensor.to_local().detach()
        for chunk in tensor.__create_chunk_list__() if tensor.device_mesh.get_coordinate() is not None else []:
            if chunk.sizes != local.shape:
                raise ValueError(f"{name} has a local shape of {tuple(local.shape)}, its cut {tuple(chunk.sizes)}")
            # Fewer rows than ranks leave empty pieces: nothing to write, unless the whole tensor is empty.
            if local.numel() > 0 or tensor.numel() == 0:
                shards[name] = ShardPiece(local, chunk.offsets, tensor.shape)
    return shards


class PiecePlanner(DefaultSavePlanner):
    """Plans for DCP who writes which pieces; it shares out replicas and refuses gaps and overlaps.

    Args:
        whole: whether the pieces must fill every tensor; else they are written as they are.
    """

    def __init__(self, whole: bool = True) -> None:
        self.whole = whole
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def create_local_plan(self) -> SavePlan:
        shards: Mapping[str, ShardPiece] = self.state_dict
        return SavePlan([_write_item(name, piece) for name, piece in shards.items()])

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        if self.whole:
            return super().create_global_plan(all_plans)
        self.global_plan, self.metadata = create_default_global_save_plan(all_plans)
        return self.global_plan, self.metadata

    def resolve_data(self, write_item: WriteItem) -> Shaped[Tensor, "..."]:
        return self.state_dict[write_item.index.fqn].local.cpu()


def _write_item(name: str, piece: ShardPiece) -> WriteItem:
    chunk = ChunkStorageMetadata(offsets=piece.offsets, sizes=piece.local.shape)
    properties = TensorProperties(dtype=piece.local.dtype)
    data = TensorWriteData(chunk=chunk, properties=properties, size=piece.shape)
    return WriteItem(index=MetadataIndex(name, piece.offsets), type=WriteItemType.SHARD, tensor_data=data)


class SafetensorsWriter(StorageWriter):
    """Writes one file for each process that has something to write.

    Attributes:
        checksums: SHA-256 of each file by its name; known to process 0 when all have written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checksums: dict[str, str] = {}

    def reset(self, checkpoint_id: Any = None) -> None:
        self.checksums = {}

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        pass

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return [replace(plan, storage_data=f"shard-{rank:05d}.safetensors") for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        if not plan.items:
            return _done([])
        items = {item.index.fqn: item for item in plan.items}
        data = {name: _tensor_data(item) for name, item in items.items()}
        like = {name: torch.empty(d.chunk.sizes, dtype=d.properties.dtype, device="meta") for name, d in data.items()}
        offsets = {name: {"saved_offsets": list(d.chunk.offsets), "whole": list(d.size)} for name, d in data.items()}
        checksum = write_safetensors(
            self.folder / plan.storage_data,
            like,
            lambda name: cast(Tensor, planner.resolve_data(items[name])),
            {"format": "pt", "DCP_VERSION": "1.0", "DCP_SHARDING_INFO": json.dumps(offsets)},
        )
        facts = (plan.storage_data, checksum)
        return _done([WriteResult(item.index, like[name].nbytes, facts) for name, item in items.items()])

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        self.checksums = dict(result.storage_data for of_rank in results for result in of_rank)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True


def _done(result: T) -> Future[T]:
    future: Future[T] = Future()
    future.set_result(result)
    return future


def _tensor_data(item: WriteItem) -> TensorWriteData:
    assert item.tensor_data is not None
    return item.tensor_data


class _Offsets(TypedDict):
    saved_offsets: list[int]
    whole: NotRequired[list[int]]


ShardingInfo = dict[str, _Offsets]
"""Where the pieces in a file begin in their whole tensors, and the shapes of these, by name."""


@dataclass(frozen=True)
class StoredPiece:
    """Describes a piece of a tensor in a file.

    Attributes:
        whole: the shape of the tensor, or of as much of it as the piece tells.
    """

    name: str
    dtype: torch.dtype
    sizes: tuple[int, ...]
    offsets: tuple[int, ...]
    whole: tuple[int, ...]
    file: str


def stored_pieces(file: Path) -> list[StoredPiece]:
    """Returns the pieces that a file's header lists; reads no values.

    Raises:
        DataError: where it cannot be read.
    """
    try:
        with safe_open(file, framework="pt") as tensors:
            info = parse_json((tensors.metadata() or {}).get("DCP_SHARDING_INFO", "{}"), ShardingInfo, str(file))
            stored = []
            for name in tensors.keys():  # noqa: SIM118
                head = tensors.get_slice(name)
                sizes = tuple(head.get_shape())
                offsets = tuple(info[name]["saved_offsets"]) if name in info else (0,) * len(sizes)
                if len(offsets) != len(sizes) or min(offsets, default=0) < 0:
                    raise DataError(f"{file} is corrupted: {name!r} of {len(sizes)} dims begins at {list(offsets)}")
                end = tuple(map(sum, zip(offsets, sizes, strict=True)))
                whole = tuple(info.get(name, {}).get("whole", end))
                if len(whole) != len(end) or any(map(lt, whole, end)):
                    raise DataError(f"{file} is corrupted: {name!r} of shape {list(whole)} ends at {list(end)}")
                stored.append(StoredPiece(name, DTYPES[head.get_dtype()], sizes, offsets, whole, file.name))
            return stored
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(f"{file} is missing or corrupted ({error}); use an earlier checkpoint") from None


def assemble(stored: Iterable[StoredPiece]) -> Metadata:
    """Returns what DCP must know of stored pieces to read them."""
    tensors: dict[str, TensorStorageMetadata] = {}
    places: dict[MetadataIndex, str] = {}
    for piece in stored:
        known = tensors.setdefault(
            piece.name, TensorStorageMetadata(TensorProperties(dtype=piece.dtype), torch.Size(piece.whole), [])
        )
        if len(known.size) != len(piece.whole) or known.properties.dtype != piece.dtype:
            raise DataError(f"{piece.file} is corrupted: {piece.name!r} differs in shape or type from its other pieces")
        known.size = torch.Size(map(max, known.size, piece.whole))
        known.chunks.append(ChunkStorageMetadata(torch.Size(piece.offsets), torch.Size(piece.sizes)))
        places[MetadataIndex(piece.name, torch.Size(piece.offsets))] = piece.file
    return Metadata(state_dict_metadata=dict(tensors), storage_data=places)


class SafetensorsReader(StorageReader):
    """Reads slices of stored pieces.

    Args:
        metadata: as `assemble` gives it.
    """

    def __init__(self, folder: Path, metadata: Metadata) -> None:
        self.folder, self.metadata = folder, metadata

    def reset(self, checkpoint_id: Any = None) -> None:
        pass

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self.metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        pass

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        by_file: dict[str, list[Any]] = {}
        for item in plan.items:
            by_file.setdefault(self.metadata.storage_data[item.storage_index], []).append(item)
        for name, items in by_file.items():
            try:
                with safe_open(self.folder / name, framework="pt") as tensors:
                    for item in items:
                        span = zip(item.storage_offsets, item.lengths, strict=True)
                        region = tuple(slice(begin, begin + length) for begin, length in span)
                        target = planner.resolve_tensor(item).detach()
                        target.copy_(tensors.get_slice(item.storage_index.fqn)[region])
                        planner.commit_tensor(item, target)
            except (OSError, SafetensorError) as error:
                raise DataError(f"{self.folder / name} is missing or corrupted ({error})") from None
        return _done(None)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True
