"""Checkpoints on the disks of the nodes: written often, read only by the processes that wrote them.

A process that fails leaves the disks of its node as they were, so a training that is restarted in the same places need
not go back to the last checkpoint on the shared file system, which is written seldom at scale.
"""

from __future__ import annotations

import contextlib
import datetime
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch.distributed as dist
from torch import Tensor

from sciml.core.errors import DataError, RunError, UnwritableError
from sciml.core.files import make_folder
from sciml.distributed.launcher import launched
from sciml.distributed.world import World
from sciml.training.checkpoint import CheckpointStore
from sciml.training.checkpoint_files import Group, read_manifest, together

LAYOUT = "layout"


class NodeCheckpoints:
    """Writes what the processes of each node hold to its own disk, each piece once a node.

    All methods are called by all processes of the training.

    Args:
        folder: on every node; ranks of different nodes write to different folders in it.
        world: all processes.
        layout: says how the training is cut over its processes. Checkpoints of another layout are passed over.
        everyone: all processes, on the CPU; None where there is one.

    Raises:
        UnwritableError: where a folder cannot be made; on all processes.
    """

    def __init__(self, folder: Path, world: World, layout: str, everyone: Group, *, timeout_s: float) -> None:
        launch = launched()
        first = launch.rank - launch.local_rank
        firsts = together(lambda: first, everyone)
        mine = [rank for rank, of_rank in enumerate(firsts) if of_rank == first]
        self.folder, self.everyone = folder / f"from-rank-{first:05d}", everyone
        self.layout = f"{layout} ranks {mine}"
        together(lambda: make_folder(self.folder), everyone)
        group: Group = None
        if len(mine) > 1:
            wait = datetime.timedelta(seconds=timeout_s)
            group = dist.new_group(mine, wait, "gloo", use_local_synchronization=True)
        node = World(mine.index(world.rank), len(mine), world.device)
        self.store = CheckpointStore(self.folder, node, keep_last=2, asynchronous=True, group=group, whole=False)

    @property
    def group(self) -> Group:
        """Returns the processes of this node, on the CPU; None where there is one."""
        return self.store.group

    def save(self, step: int, tensors: Mapping[str, Tensor], **facts: int | str) -> None:
        """Writes a checkpoint, in the background; takes what :meth:`CheckpointStore.save` takes.

        A disk that is full ends no training, which has its other checkpoints: a warning says so.
        """
        with self._warning():
            self.store.save(step, tensors, **facts, layout=self.layout)

    def finish(self) -> None:
        """Waits until everything is on this node's disk."""
        with self._warning():
            self.store.finish()

    @contextlib.contextmanager
    def _warning(self) -> Iterator[None]:
        try:
            yield
        except (RunError, UnwritableError) as error:
            if self.store.world.is_main:
                print(f"warning: trainer.node_folder: {error}; training goes on without", file=sys.stderr)

    def newest(self, after: int) -> Path | None:
        """Returns this node's part of the newest checkpoint that every node has intact; None where there is none.

        Args:
            after: the step up to which there is another checkpoint.
        """
        steps = together(self.store.steps, self.group)[0]
        mine = {step for step in steps if step > after and self._is_usable(step)}
        everywhere = set.intersection(*together(lambda: mine, self.everyone))
        return self.store.path(max(everywhere)) if everywhere else None

    def _is_usable(self, step: int) -> bool:
        try:
            return bool(read_manifest(self.store.path(step), self.group).get(LAYOUT) == self.layout)
        except DataError:
            return False

    def remove(self) -> None:
        """Removes this node's checkpoints, which nothing needs when the training has ended."""
        self.finish()
        if self.store.world.is_main:
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # other nodes may share the disk
                self.folder.parent.rmdir()
