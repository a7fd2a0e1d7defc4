"""Ranks of a machine that is not there, built in this process."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sciml.core.errors import RunError
from sciml.parallel.config import ParallelConfig
from sciml.planning.dry_run import dry_run
from sciml.planning.memory import MemoryModel
from sciml.planning.strategy import Strategy, TrainingSpec
from tests.unit.planning.models import cluster, gpt, recipe, small

FRONTIER = cluster("frontier")


@pytest.mark.slow
def test_the_trillion_is_cut_over_3072_devices_and_tensor_parallelism_stays_in_a_node():
    memory = MemoryModel(gpt("gpt_1t"), FRONTIER, TrainingSpec(9600))
    built = dry_run(memory, recipe(8, 64, 6), FRONTIER)
    assert {0, 3071} <= {rank.rank for rank in built}
    assert {rank.coordinates["pp"] for rank in built} == {0, 1, 63}
    assert all(rank.nodes == {"pp": 64, "shard": 6, "tp": 1} for rank in built)
    assert 3.2e8 < min(rank.parameters for rank in built) < max(rank.parameters for rank in built) < 3.7e8
    # The first stage has the embedding, positions besides, and the last the same embedding.
    parameters = {rank.coordinates["pp"]: rank.parameters for rank in built if rank.coordinates["shard"] == 0}
    assert parameters[0] > parameters[63] > parameters[1]
    assert not torch.distributed.is_initialized()


def test_all_axes_at_once():
    strategy = Strategy(ParallelConfig(pp=2, dp=2, shard=3, sp=2, tp=2, zero=2, schedule="interleaved", interleave=2))
    memory = MemoryModel(small(), FRONTIER, TrainingSpec(24))
    built = dry_run(memory, strategy, FRONTIER)
    assert {rank.rank for rank in built} >= {0, 47}
    first = built[0]
    assert first.groups == {
        "pp": (0, 24), "dp": (0, 12), "shard": (0, 4, 8), "sp": (0, 2), "tp": (0, 1)
    }  # fmt: skip


def test_a_plan_that_counts_otherwise_is_found_out():
    memory = MemoryModel(small(), FRONTIER, TrainingSpec(8))
    strategy = Strategy(ParallelConfig(tp=2, dp=4))
    parameters = memory.rank_parameters(strategy, 0)
    memory._parameters[2, 1, 1, 0] = replace(parameters, blocks=parameters.blocks[:-1])
    with pytest.raises(RunError, match=r"rank 0 .* holds .* parameters, and the plan counts"):
        dry_run(memory, strategy, FRONTIER)
