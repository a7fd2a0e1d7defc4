"""Processes that stay: started once a test session, they run one function after the other as the ranks of a group."""

from __future__ import annotations

import atexit
import datetime
import gc
import itertools
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing

from sciml.distributed.world import World

TIMEOUT_S = 120
MOST_THREADS = 60
"""Threads with which a process is replaced by a new one. DeepSpeed keeps what an engine has used, process groups among
it, whose threads wake a hundred times a second: those of hundreds leave no time for anything else.
"""
TASKS = Path("/proc/self/task")
PRELOADED = ["sciml.run.scoring", "sciml.testing.sessions", __name__]
"""Imported once, by the process from which all ranks are forked; that takes far longer than what most tests do."""


class Ranks:
    """Starts a group of processes on gloo, which end with a ``with`` block or with the process that started them.

    Args:
        size: number of processes.

    Attributes:
        threads: the most that one of the processes had after what it ran last, where they can be counted.
    """

    def __init__(self, size: int) -> None:
        self.size, self.threads = size, 0
        self._folder = tempfile.TemporaryDirectory()  # of the file through which they find one another
        multiprocessing.set_forkserver_preload(PRELOADED)
        context = multiprocessing.get_context("forkserver")
        pipes = [context.Pipe() for _ in range(size)]
        self.pipes = [mine for mine, _ in pipes]
        store = str(Path(self._folder.name) / "store")
        self.processes = [
            context.Process(target=_serve, args=(rank, size, store, theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pipes)
        ]
        for process in self.processes:
            process.start()

    def __enter__(self) -> Ranks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Says whether all processes are alive."""
        return all(process.is_alive() for process in self.processes)

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Returns what ``function(world, *args)`` gives on each rank.

        Raises:
            AssertionError: with the traceback of the first rank that failed; the group is then of no more use.
        """
        try:
            return self._run(function, args)
        except BaseException:
            self.close()
            raise

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> list[Any]:
        for pipe in self.pipes:
            pipe.send((function, args))
        answers = []
        for rank, pipe in enumerate(self.pipes):
            assert pipe.poll(TIMEOUT_S), f"rank {rank} of {self.size} gave no answer in {TIMEOUT_S} s"
            answers.append(pipe.recv())
        for rank, (ok, answer, _) in enumerate(answers):
            assert ok, f"rank {rank} of {self.size}:\n{answer}"
        self.threads = max(threads for _, _, threads in answers)
        return [answer for _, answer, _ in answers]

    def close(self) -> None:
        """Ends the processes."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()
        self._folder.cleanup()


_groups: dict[int, Ranks] = {}


def ranks(size: int) -> Ranks:
    """Returns this process's group of a size, which is started where there is none that is of use."""
    if size in _groups and _groups[size].threads > MOST_THREADS:
        _groups.pop(size).close()
    if size not in _groups or not _groups[size].alive:
        _groups[size] = Ranks(size)
    return _groups[size]


@atexit.register
def _close() -> None:
    while _groups:
        _groups.popitem()[1].close()


def _serve(rank: int, size: int, file: str, pipe: Any) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(file, size)
    timeout = datetime.timedelta(seconds=TIMEOUT_S)
    world = World(rank, size, torch.device("cpu"))
    gc.freeze()  # what is imported stays: to look through it for cycles takes longer than most tests
    for number in itertools.count():
        # Each function has process groups of its own, so that none outlives what made it.
        own = dist.PrefixStore(str(number), store)
        dist.init_process_group("gloo", store=own, rank=rank, world_size=size, timeout=timeout)
        try:
            function, args = pipe.recv()
        except EOFError:
            os._exit(0)
        try:
            answer = True, function(world, *args)
        except BaseException:
            answer = False, traceback.format_exc()
        pipe.send((*answer, _num_threads()))
        del answer
        dist.barrier()  # others may still be sending
        dist.destroy_process_group()
        gc.collect()  # a group's threads end with the last object that knows it


def _num_threads() -> int:
    """Returns the number of this process's threads; 0 where they cannot be counted."""
    return sum(1 for _ in TASKS.iterdir()) if TASKS.is_dir() else 0
