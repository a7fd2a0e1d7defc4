"""Processes of a benchmark, fresh and pinned to a core each; what they do is timed against one of them alone."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sciml.distributed.launcher import leave
from sciml.distributed.world import World

Step = Callable[[], object]
TIMEOUT_S = 280


def timed(world: World, step: Step, everywhere: bool) -> tuple[float, float]:
    """Returns the seconds until the last rank is done, and CPU seconds of all; or of rank 0 alone, while the
    others wait.
    """
    world.barrier()
    began, worked = time.perf_counter(), time.process_time()
    cpu = torch.zeros(1, dtype=torch.float64)
    if everywhere or world.is_main:
        step()
        cpu += time.process_time() - worked
    if everywhere:
        world.barrier()
    seconds = time.perf_counter() - began
    world.add([cpu])
    return seconds, cpu.item()


def compare(world: World, pairs: list[tuple[Step, Step]], rounds: int) -> list[list[float]]:
    """Returns the medians for pairs of a step and its reference, which rank 0 takes alone.

    Returns:
        For each pair the step's seconds, and its time and CPU time over its reference's.
    """
    kinds = {step: everywhere for pair in pairs for step, everywhere in zip(pair, (True, False), strict=True)}
    found: list[list[list[float]]] = [[] for _ in pairs]
    for number in range(rounds + 1):
        times = {step: timed(world, step, everywhere) for step, everywhere in kinds.items()}
        for rows, (step, reference) in zip(found, pairs if number else (), strict=False):  # the first round warms up
            ratios = [mine / other for mine, other in zip(times[step], times[reference], strict=True)]
            rows.append([times[step][0], *ratios])
    return [[statistics.median(column) for column in zip(*rows, strict=True)] for rows in found]


def run(size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Returns the results of ``function(world, *args)`` on each rank of a group of fresh processes.

    Raises:
        RuntimeError: with the traceback of a rank that failed.
    """
    context = multiprocessing.get_context("forkserver")  # imports everything once
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe() for _ in range(size)]
        work = (size, str(Path(folder) / "ranks"), function, args)
        processes = [context.Process(target=_rank, args=(i, *work, pipes[i][1]), daemon=True) for i in range(size)]
        try:
            for process in processes:
                process.start()
            answers = []
            for rank, (pipe, _) in enumerate(pipes):
                if not pipe.poll(TIMEOUT_S):
                    raise RuntimeError(f"rank {rank} of {size} gave no answer in {TIMEOUT_S} s")
                good, answer = pipe.recv()
                if not good:
                    raise RuntimeError(f"rank {rank} of {size}:\n{answer}")
                answers.append(answer)
            return answers
        finally:
            for process in processes:
                process.kill()
                process.join()


def _rank(rank: int, size: int, file: str, function: Callable[..., Any], args: tuple[Any, ...], pipe: Any) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    try:
        if size > 1:
            dist.init_process_group("gloo", store=dist.FileStore(file, size), rank=rank, world_size=size)
        pipe.send((True, function(World(rank, size, torch.device("cpu")), *args)))
    except BaseException:
        pipe.send((False, traceback.format_exc()))
    time.sleep(1.0)  # others may still talk to this one
    leave(0)
