"""Megatron's accounting of memory in half precision, to the digit."""

import pytest

from sciml.planning.parameters import MEGATRON_FP16, MegatronMemory
from tests.unit.planning.models import gpt, recipe, throughput


@pytest.mark.parametrize(
    ("parameters", "weights", "gradients", "optimizer", "total", "devices"),
    [
        (22e9, 132e9, 88e9, 176e9, 440e9, 8),
        (175e9, 1050e9, 700e9, 1.4e12, 3.5e12, 55),
        (1e12, 6e12, 4e12, 8e12, 20e12, 313),
    ],
)
def test_the_published_table(parameters, weights, gradients, optimizer, total, devices):
    memory = MegatronMemory.of(parameters)
    assert (memory.weights, memory.gradients, memory.optimizer, memory.total) == (weights, gradients, optimizer, total)
    assert memory.least_devices(memory_gb=64, devices_per_node=8) == devices


def test_the_sum_has_two_bytes_more_than_its_parts():
    assert MEGATRON_FP16.total == 20
    assert MEGATRON_FP16.weights + MEGATRON_FP16.gradients + MEGATRON_FP16.moments == 18


@pytest.mark.parametrize(("zero", "bytes_of_one"), [(0, 20), (1, 8 + 12 / 16), (2, 4 + 16 / 16), (3, 20 / 16)])
def test_zero_shards_the_accounting_over_replicas(zero, bytes_of_one):
    """The optimizer's 12 bytes, then 4 of gradients, then the rest; 16 replicas."""
    strategy = recipe(4, 16, 16)
    parallel = type(strategy.parallel)(
        tp=4, pp=16, **({"dp": 16} if zero == 0 else {"dp": 1, "shard": 16, "zero": zero})
    )
    model = throughput(gpt("gpt_175b"), 10240).memory
    chosen = type(strategy)(parallel, 1, "fp16", "full")
    parameters = model.rank_parameters(chosen, 1)
    state = model.state(chosen, parameters)
    assert state.lasting / parameters.numel == pytest.approx(bytes_of_one)
