"""A pipeline stage has room for what it receives only as long as it needs it, however many micro-batches there are."""

from __future__ import annotations

from typing import Any

import pytest

from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.parallel.config import ParallelConfig
from sciml.training.engine import NativeEngine
from tests.distributed.cases import OPTIMIZERS, build, run_steps

SCHEDULES = [
    {"schedule": "1f1b"}, {"schedule": "gpipe"}, {"schedule": "interleaved", "interleave": 2},
    {"schedule": "zero_bubble", "interleave": 2},
]  # fmt: skip


def rooms(world: World, options: dict[str, Any]) -> tuple[int, set[str], int]:
    """Places for tensors that are received, where these are after two steps, and the most that were real at a time."""
    config = ParallelConfig(pp=2, **options)
    mesh = Mesh(world, config.degrees(world.size))
    engine = NativeEngine(build("vit", mesh, config), OPTIMIZERS["sgd"])
    run_steps(engine, "vit", mesh, "sgd", range(1))
    pipeline = engine.model.pipeline
    assert pipeline is not None
    ((schedule, _),) = pipeline._schedules.values()
    stages = getattr(schedule, "_stages", None) or [schedule._stage]

    def buffers() -> list[Any]:
        tables = [table for stage in stages for table in (stage.args_recv_info, stage.grad_recv_info)]
        found = [getattr(info, "buffer", None) for table in tables for infos in table.values() for info in infos]
        return [buffer for buffer in found if buffer is not None]

    most = 0
    for stage in stages:
        counted = stage.backward_one_chunk

        def watch(*args: Any, counted: Any = counted, **kwargs: Any) -> Any:
            nonlocal most
            most = max(most, sum(not buffer.is_meta for buffer in buffers()))
            return counted(*args, **kwargs)

        stage.backward_one_chunk = watch
    run_steps(engine, "vit", mesh, "sgd", range(1, 2))
    return len(buffers()), {buffer.device.type for buffer in buffers()}, most


@pytest.mark.parametrize("options", SCHEDULES, ids=lambda options: options["schedule"])
def test_what_is_received_has_room_only_while_it_is_needed(ranks, options):
    for places, devices, most in ranks(2).run(rooms, options):
        assert places >= 8  # two tensors of four micro-batches
        assert devices == {"meta"}
        assert most > 0
        if options["schedule"] == "1f1b":
            assert most <= 4  # of eight
