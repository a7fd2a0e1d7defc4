"""Checkpoints: tensors as safetensors through torch.distributed.checkpoint, everything else as JSON; no pickle.

A checkpoint is a folder ``step-00000200`` with ``shard-*.safetensors`` and ``checkpoint.json`` (step, checksums).
It appears whole or not at all. Any number of processes write it together, and any other number read it.
"""

from __future__ import annotations

import datetime
import json
import math
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from typing_extensions import TypedDict

from sciml.core.errors import DataError
from sciml.core.files import disk_errors, read_json, write_json
from sciml.distributed.world import World
from sciml.training.checkpoint_files import (
    Group,
    expect_one_process,
    read_manifest,
    read_tensors,
    share_out,
    tensor_shapes,
    together,
    write_tensors,
)
from sciml.training.checkpoint_layout import MANIFEST, steps_in
from sciml.training.checkpoint_storage import ShardPiece, pieces

__all__ = ["CheckpointStore", "read_manifest", "read_tensors", "tensor_shapes", "write_tensors"]

FORMAT = "sciml-checkpoint/1"
BEST = "best.json"


class BestCheckpoint(TypedDict):
    """Holds the content of ``best.json``: the step of the best checkpoint, and its validation loss."""

    step: int
    loss: float


class CheckpointStore:
    """Writes and reads the checkpoints of a run, by all its processes together.

    All methods that write are called by all processes, in the same order; if one process fails, all get its error.

    Args:
        directory: folder that holds them.
        world: the processes; one alone if not given.
        keep_last: how many to keep besides the best one.
        asynchronous: whether `save` returns as soon as it has a copy in memory, and a thread writes it; errors then
            come with the next `save` or `finish`, which must be called before the program ends.
        timeout_s: longest wait for another process that still writes.
        group: the processes, on the CPU; by default one is made of all.
        whole: whether the processes hold whole tensors among them; else pieces are kept as they are.
    """

    def __init__(
        self,
        directory: Path,
        world: World | None = None,
        keep_last: int = 2,
        *,
        asynchronous: bool = False,
        timeout_s: float = 1800.0,
        group: Group = None,
        whole: bool = True,
    ) -> None:
        self.directory, self.keep_last, self.asynchronous = directory, keep_last, asynchronous
        self.world = world or World(0, 1, torch.device("cpu"))
        self.group, self.whole = group, whole
        if self.world.size > 1 and group is None:
            # Of their own, on the CPU: a thread's messages must never mix with those of training.
            self.group = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=timeout_s))
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None
        self._copies: dict[str, Tensor] = {}
        self._outline: Mapping[str, tuple[torch.Size, int]] | None = None
        self._share: Sequence[str] = ()
        self._best: BestCheckpoint | None = None
        self._lock = threading.Lock()

    def save(self, step: int, tensors: Mapping[str, Tensor], **facts: int | str) -> Path:
        """Writes a checkpoint and removes the oldest ones beyond ``keep_last``.

        Args:
            tensors: by name. A DTensor is what each process holds of it; any other tensor is the same in all
                processes that know its name.
            facts: further entries of the manifest.

        Raises:
            RunError: where it, or the one before it, cannot be written; earlier checkpoints are kept.
        """
        self.finish()
        expect_one_process()
        held: Mapping[str, ShardPiece] | Exception
        try:
            held = pieces(tensors)
        except Exception as error:
            held = error  # raised where the others can hear of it
        shards = self._own_share(held)
        if self.asynchronous:
            self._pending = self._thread.submit(self._write, step, shards, facts)
        else:
            self._write(step, shards, facts)
        return self.path(step)

    def finish(self) -> None:
        """Waits until everything is on disk.

        Raises:
            RunError: where the last checkpoint could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _own_share(self, held: Mapping[str, ShardPiece] | Exception) -> Mapping[str, ShardPiece] | Exception:
        """Returns the pieces that this process writes, as copies where training goes on meanwhile.

        They are shared out anew where some process holds others than at the last time.
        """
        known = {} if isinstance(held, Exception) else held
        outline = {name: (piece.offsets, piece.local.nbytes) for name, piece in known.items()}
        if any(together(lambda: outline != self._outline, self.group)):
            self._outline, self._share = outline, share_out(known, self.group)
        if isinstance(held, Exception):
            return held
        shards = {name: held[name] for name in self._share}
        try:
            return self._copied(shards) if self.asynchronous else shards
        except Exception as error:
            return error

    def _copied(self, held: Mapping[str, ShardPiece]) -> dict[str, ShardPiece]:
        """Copies on the CPU, in memory that is kept from one checkpoint to the next."""
        pin = torch.accelerator.is_available()
        copies = {}
        for name, piece in held.items():
            copy = self._copies.get(name)
            if copy is None or copy.shape != piece.local.shape or copy.dtype != piece.local.dtype:
                copy = torch.empty(piece.local.shape, dtype=piece.local.dtype, pin_memory=pin)
            copies[name] = copy.copy_(piece.local, non_blocking=True)
        if pin:
            torch.accelerator.synchronize()
        self._copies = copies
        return {name: replace(piece, local=copies[name]) for name, piece in held.items()}

    def _write(self, step: int, held: Mapping[str, ShardPiece] | Exception, facts: Mapping[str, int | str]) -> None:
        path = self.path(step)
        partial = self.directory / f".{path.name}.partial"

        def prepare() -> None:
            if isinstance(held, Exception):
                raise held
            if self.world.is_main:
                for left_over in self.directory.glob(".step-*"):  # of a process that was killed
                    shutil.rmtree(left_over, ignore_errors=True)
                partial.mkdir(parents=True)

        def commit() -> None:
            if self.world.is_main:
                manifest = {"format": FORMAT, "step": step, **facts, "files": files}
                (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
                _remove(path)
                partial.rename(path)
            with self._lock:
                self._note_best()
                self._prune()

        try:
            with disk_errors(path):
                together(prepare, self.group)
                assert not isinstance(held, Exception)
                files = write_tensors(partial, held, self.group, whole=self.whole)
                together(commit, self.group)
        except BaseException:
            with self._lock:
                if self._best is not None and self._best["step"] == step:
                    self._best = None
            if self.world.is_main:
                shutil.rmtree(partial, ignore_errors=True)
            raise

    def path(self, step: int) -> Path:
        return self.directory / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints, increasing; folders with other names are passed over."""
        return steps_in(self.directory)

    def latest(self) -> Path | None:
        """Returns the last complete checkpoint; one that is still being written does not count."""
        steps = self.steps()
        return self.path(steps[-1]) if steps else None

    def newest_intact(self, *, verify: bool = True) -> Path | None:
        """Returns the last checkpoint whose files agree with their checksums; warns of those that do not.

        Args:
            verify: whether files are hashed; else only their headers are read.

        Raises:
            DataError: where there are checkpoints and none is intact.
        """
        self.finish()
        steps = together(self.steps, self.group)[0]
        for step in reversed(steps):
            try:
                read_manifest(self.path(step), self.group, verify=verify)
            except DataError as error:
                if self.world.is_main:
                    print(f"warning: {error}", file=sys.stderr)
            else:
                if step != steps[-1] and self.world.is_main:
                    print(f"going on with {self.path(step)}, the newest that is intact", file=sys.stderr)
                return self.path(step)
        if steps:
            raise DataError(f"{self.directory} has no intact checkpoint among the steps {', '.join(map(str, steps))}")
        return None

    def mark_best(self, step: int, loss: float) -> None:
        """Notes that a checkpoint is the best so far, as soon as it is written; it is then kept."""
        with self._lock:
            self._best = {"step": step, "loss": loss}
            self._note_best()
        self.world.barrier()

    def forget_best_after(self, step: int) -> None:
        """Forgets which checkpoint was the best where it is of a later step: a training that goes on from before it
        found it broken, and what is trained again must be able to take its place.
        """
        note = self._best_on_disk() if self.world.is_main else None
        if note is not None and note["step"] > step:
            with disk_errors(self.directory):
                (self.directory / BEST).unlink(missing_ok=True)

    def best(self) -> Path | None:
        """Returns the best complete checkpoint by validation loss, or the latest where none was marked."""
        note = self._best_on_disk()
        if note is not None and (self.path(note["step"]) / MANIFEST).exists():
            return self.path(note["step"])
        return self.latest()

    def best_loss(self) -> float | None:
        """Returns the validation loss of the best checkpoint, or None where none was marked."""
        note = self._best or self._best_on_disk()
        return None if note is None else note["loss"]

    def _best_on_disk(self) -> BestCheckpoint | None:
        """Returns what was noted; a note that is not there, corrupted, or of no finite loss is as none."""
        try:
            note: BestCheckpoint = read_json(self.directory / BEST, BestCheckpoint)
        except DataError:
            return None
        return note if math.isfinite(note["loss"]) and note["step"] >= 0 else None

    def _note_best(self) -> None:
        if self.world.is_main and self._best is not None and (self.path(self._best["step"]) / MANIFEST).exists():
            write_json(self.directory / BEST, self._best)

    def _prune(self) -> None:
        if self.world.is_main:
            best = self.best()
            for step in self.steps()[: -self.keep_last]:
                if self.path(step) != best:
                    _remove(self.path(step))


def _remove(checkpoint: Path) -> None:
    """Removes a checkpoint whole: one that is half removed must not look like one that is corrupted."""
    if checkpoint.exists():
        hidden = checkpoint.with_name(f".{checkpoint.name}.removed")
        checkpoint.rename(hidden)
        shutil.rmtree(hidden)
