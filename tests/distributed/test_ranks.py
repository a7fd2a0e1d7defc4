"""Ranks that serve many tests leave nothing of one to the next."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch
import torch.distributed as dist

from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.testing.ranks import MOST_THREADS, TASKS, Ranks

pytestmark = pytest.mark.skipif(not TASKS.is_dir(), reason="threads are counted where Linux lists them")


def all_reduced(world: World) -> float:
    group = Mesh(world, {"tp": world.size}).group("tp")
    total = torch.ones(1)
    dist.all_reduce(total, group=group)
    return total.item()


def many_threads(world: World) -> None:
    for _ in range(MOST_THREADS):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def test_threads_of_process_groups_end_with_the_function_that_made_them():
    with Ranks(2) as group:
        group.run(all_reduced)
        once = group.threads
        for _ in range(3):
            assert group.run(all_reduced) == [2.0, 2.0]
        assert group.threads == once


def test_a_group_whose_processes_have_too_many_threads_is_replaced(ranks: Any):
    group = ranks(2)
    group.run(many_threads)
    assert ranks(2) is not group
    assert not group.alive
    assert ranks(2).run(all_reduced) == [2.0, 2.0]
