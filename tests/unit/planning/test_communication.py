"""Communication volume of a step: that of ``tests/distributed/test_volume.py``, which real ranks meet to the byte."""

from __future__ import annotations

import pytest

from sciml.parallel.config import ParallelConfig
from sciml.planning.communication import CommunicationModel
from sciml.planning.memory import MemoryModel
from sciml.planning.strategy import Strategy, TrainingSpec
from tests.distributed.cases import GLOBAL_BATCH, MICRO_BATCH
from tests.distributed.test_parity import size_of
from tests.distributed.test_volume import FAST, SLOW, TRIED, Step, formula
from tests.unit.planning.models import cluster, small


@pytest.mark.parametrize(
    ("name", "recompute"),
    [
        pytest.param(name, recompute, marks=[] if name in names else [pytest.mark.slow])
        for recompute, names in TRIED.items()
        for name in (*FAST, *SLOW)
    ],
)
def test_calls_and_bytes_are_those_that_real_ranks_send(name, recompute):
    degrees = {**FAST, **SLOW}[name]
    training = TrainingSpec(GLOBAL_BATCH)
    strategy = Strategy(ParallelConfig(**{"dp": 1, **degrees}), MICRO_BATCH, "fp32", recompute)
    memory, communication = MemoryModel(small(), cluster("frontier"), training), CommunicationModel(small(), training)
    for rank in range(size_of(degrees)):
        step = Step(ParallelConfig(**degrees), rank, recompute)
        shard = rank // step.size("cp", "sp", "tp") % strategy.parallel.shard
        table = communication.volume(strategy, memory.rank_parameters(strategy, step.stage), shard)
        assert {a: {k: (c.calls, c.bytes) for k, c in kinds.items()} for a, kinds in table.items()} == formula(step)
