"""Tests that frozen parameters are planned with weights alone: no gradients, moments and messages for them."""

from __future__ import annotations

import pytest

from sciml.app.plan import facts_of
from sciml.parallel.config import ParallelConfig
from sciml.planning.communication import CommunicationModel
from sciml.planning.memory import MemoryModel
from sciml.planning.strategy import Strategy, TrainingSpec
from sciml.run.compose import compose
from sciml.run.spec import RunSpec
from tests.unit.planning.models import cluster

FROZEN = ("lora_rank=4", "freeze=[trunk.blocks.*]", "freeze=[trunk.blocks.0.*]")


def facts(*arguments):
    spec = RunSpec.build(compose("train", ["domain=language", "model=gpt_tiny", *arguments]).config)
    return facts_of(spec, cluster("frontier"))


def elements(model, *, trained: bool) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained)


@pytest.mark.parametrize("key", FROZEN)
@pytest.mark.parametrize("degrees", [{"dp": 2}, {"shard": 2, "zero": 1}, {"shard": 2, "zero": 3}])
def test_gradients_and_moments_are_those_of_trained_parameters_alone(key, degrees):
    known, training = facts(key), TrainingSpec(8)
    whole, trained = (elements(known.whole, trained=only) for only in (False, True))
    assert 0 < trained < whole
    strategy = Strategy(ParallelConfig(**{"dp": 1, **degrees}), precision="fp32")
    memory = MemoryModel(known, cluster("frontier"), training)
    parameters = memory.rank_parameters(strategy, 0)
    state, shard = memory.state(strategy, parameters), degrees.get("shard", 1)
    # shards of rows that do not divide are padded
    assert state.weights == pytest.approx(4 * whole / shard, rel=0.02)
    assert state.gradients == pytest.approx(4 * trained / shard, rel=0.02)
    assert state.moments == pytest.approx(8 * trained / shard, rel=0.02)


@pytest.mark.parametrize("key", FROZEN)
def test_gradients_of_trained_parameters_alone_are_sent(key):
    known, training = facts(key), TrainingSpec(8)
    trained = elements(known.whole, trained=True)
    model, memory = CommunicationModel(known, training), MemoryModel(known, cluster("frontier"), training)
    replicas = Strategy(ParallelConfig(dp=2), micro_batch=4, precision="fp32")
    parameters = memory.rank_parameters(replicas, 0)
    sent = sum(m.calls * m.payload for m in model.gradients(replicas, parameters, 1))
    assert sent == 4 * trained
    shards = Strategy(ParallelConfig(dp=1, shard=2, zero=3), micro_batch=4, precision="fp32")
    sums: dict[str, float] = {}
    for message in model.gradients(shards, memory.rank_parameters(shards, 0), 1):
        sums[message.kind] = sums.get(message.kind, 0) + message.calls * message.payload
    assert sums["reduce_scatter"] == pytest.approx(4 * trained, rel=0.02)
    assert sums["all_gather"] >= 4 * elements(known.whole, trained=False) / 2  # all weights, frozen ones, too
