"""Communication volume of a step: that of ``tests/distributed/test_volume.py``, which real ranks meet to the byte."""

from __future__ import annotations

import pytest

from sciml.parallel.config import ParallelConfig
from sciml.planning.communication import CommunicationModel
from sciml.planning.memory import MemoryModel
from sciml.planning.strategy import Strategy, TrainingSpec
from tests.distributed.cases import GLOBAL_BATCH, MICRO_BATCH
from tests.distributed.test_parity import size_of
from tests.distributed.test_volume import FAST, SLOW, Step, formula
from tests.unit.planning.models import GPT_175B, cluster, recipe, small, throughput


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("name", [*FAST, *SLOW])
def test_calls_and_bytes_are_those_that_real_ranks_send(name, recompute):
    degrees = {**FAST, **SLOW}[name]
    training = TrainingSpec(GLOBAL_BATCH)
    strategy = Strategy(ParallelConfig(**{"dp": 1, **degrees}), MICRO_BATCH, "fp32", recompute)
    memory, communication = MemoryModel(small(), cluster("frontier"), training), CommunicationModel(small(), training)
    for rank in range(size_of(degrees)):
        step = Step(ParallelConfig(**degrees), rank, recompute)
        shard = rank // step.size("sp", "tp") % strategy.parallel.shard
        table = communication.volume(strategy, memory.rank_parameters(strategy, step.stage), shard)
        assert {a: {k: (c.calls, c.bytes) for k, c in kinds.items()} for a, kinds in table.items()} == formula(step)


@pytest.mark.slow
def test_a_megatron_layer_sends_as_much_as_four_all_reduces_and_six_where_it_is_computed_again():
    """Each a scatter and a gather of tokens, which move on a ring what an all-reduce of all tokens does."""
    model = throughput(GPT_175B, 640)
    all_reduce = 2 * 3 / 4 * 2 * 2048 * 12288
    for recompute, times in (("none", 4), ("full", 6)):
        strategy = recipe(4, 16, 16, recompute)
        table = model.communication.volume(strategy, model.memory.rank_parameters(strategy, 1))
        passes, layers = 40, 6
        sent = sum(count.wire_bytes for count in table["tp"].values())
        assert sent == pytest.approx(times * layers * passes * all_reduce, rel=0.1)
        # Between stages a rank's tokens as they are added up, in float32.
        assert table["pp"]["send"].bytes == 2 * passes * 4 * 2048 * 12288 / 4


def test_zero_1_sends_as_much_as_adding_gradients():
    model = throughput(GPT_175B, 640)
    strategy = recipe(4, 16, 16)
    parameters = model.memory.rank_parameters(strategy, 1)
    kinds = model.communication.volume(strategy, parameters)["shard"]
    sent = sum(count.wire_bytes for count in kinds.values())
    assert sent == pytest.approx(2 * 15 / 16 * 2 * parameters.numel, rel=1e-6)
