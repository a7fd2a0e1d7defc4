"""Processes that stay: started once a test session, they run one function after the other as the ranks of a group."""

from __future__ import annotations

import datetime
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing

from sciml.distributed.world import World

TIMEOUT_S = 120


class Ranks:
    """A group of processes on gloo.

    Args:
        size: how many.
        folder: for the file through which they find one another.
    """

    def __init__(self, size: int, folder: Path) -> None:
        self.size = size
        context = multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(size)]
        self.pipes = [mine for mine, _ in pipes]
        self.processes = [
            context.Process(target=_serve, args=(rank, size, str(folder / f"ranks-{size}"), theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pipes)
        ]
        for process in self.processes:
            process.start()

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What ``function(world, *args)`` gives on each rank.

        Raises:
            AssertionError: with the traceback of the first rank that failed; the group is then of no more use.
        """
        for pipe in self.pipes:
            pipe.send((function, args))
        answers = []
        for rank, pipe in enumerate(self.pipes):
            assert pipe.poll(TIMEOUT_S), f"rank {rank} of {self.size} gave no answer in {TIMEOUT_S} s"
            answers.append(pipe.recv())
        for rank, (ok, answer) in enumerate(answers):
            assert ok, f"rank {rank} of {self.size}:\n{answer}"
        return [answer for _, answer in answers]

    def close(self) -> None:
        for process in self.processes:
            process.kill()


def _serve(rank: int, size: int, file: str, pipe: Any) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(file, size)
    timeout = datetime.timedelta(seconds=TIMEOUT_S)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timeout)
    world = World(rank, size, torch.device("cpu"))
    while True:
        try:
            function, args = pipe.recv()
        except EOFError:
            os._exit(0)
        try:
            answer = True, function(world, *args)
        except BaseException:
            answer = False, traceback.format_exc()
        pipe.send(answer)
