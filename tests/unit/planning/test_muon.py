"""A plan of an optimizer with a rule of its own for the matrices of blocks, beside what a real rank keeps and sends."""

from __future__ import annotations

import math

import pytest
import torch

from sciml.distributed.communication import CommunicationVolume
from sciml.distributed.mesh import Mesh
from sciml.parallel.config import ParallelConfig
from sciml.parallel.data import local
from sciml.parallel.model import parallelize
from sciml.planning.cluster import Efficiency
from sciml.planning.fake_mesh import fake_mesh
from sciml.planning.memory import MemoryModel
from sciml.planning.op_meter import Meter
from sciml.planning.strategy import Strategy, TrainingSpec
from sciml.planning.throughput import ThroughputModel
from sciml.training.config import TrainerConfig
from sciml.training.optimizer import build_optimizer, optimizer_spec, state_of
from tests.distributed.cases import OPTIMIZERS, vit
from tests.unit.planning.models import cluster, small

MUON = OPTIMIZERS["muon"]
TRAINING = TrainingSpec.of(TrainerConfig(), MUON)
MESHES = {
    "one": {},
    "tp2": {"tp": 2},
    "pp2": {"pp": 2},
    "zero3-uneven": {"shard": 3, "zero": 3},
    "tp2-zero2": {"tp": 2, "shard": 2, "zero": 2},
}


def strategy(degrees):
    return Strategy(ParallelConfig(**{"dp": 1, **degrees}), 1, "fp32")


def predicted(degrees, stage=0, training=TRAINING):
    memory = MemoryModel(small(), cluster("frontier"), training)
    throughput = ThroughputModel(small(), cluster("frontier"), training, Efficiency(), memory)
    return memory, throughput, memory.rank_parameters(strategy(degrees), stage)


@pytest.mark.parametrize("name", MESHES)
def test_moments_and_exchanges_are_those_of_a_real_rank(name):
    degrees = MESHES[name]
    for stage in range(degrees.get("pp", 1)):
        memory, throughput, parameters = predicted(degrees, stage)
        rank = stage * math.prod(degrees.get(axis, 1) for axis in ("dp", "shard", "cp", "sp", "tp"))
        with fake_mesh(degrees, rank) as mesh:
            model = parallelize(vit, mesh, strategy(degrees).parallel, seed=3)
            named = dict(model.named_parameters())
            optimizer = build_optimizer(named, model.placements, MUON)
            rules = {key: optimizer_spec(MUON).rule(model.placements[key]) for key in named}
            states = [state_of(optimizer, p, rules[key]) for key, p in named.items()]
            moments = sum(local(t).nbytes for state in states for key, t in state.items() if key != "step")
            for parameter in named.values():
                parameter.grad = torch.zeros_like(parameter)
            with CommunicationVolume(mesh) as volume:
                optimizer.step()
            sent = volume.table()
            del model, named, optimizer, states, parameter
        assert memory.at(strategy(degrees), stage).moments == moments
        messages = {m.axes: m for m in throughput.communication.matrices(strategy(degrees), parameters)}
        exchanged = {axes: kinds["all_to_all"] for axes, kinds in sent.items() if "all_to_all" in kinds}
        assert {axes: m.calls for axes, m in messages.items()} == {axes: c.calls for axes, c in exchanged.items()}
        for axes, message in messages.items():  # on its way back a rank has its share of the matrices, not its parts
            assert message.calls * message.payload == pytest.approx(exchanged[axes].bytes, rel=0.35)


def test_momentum_of_matrices_is_half_of_adams_moments():
    memory, _, parameters = predicted({})
    adamw, _, _ = predicted({}, training=TrainingSpec(16))
    saved = 4 * parameters.matrices.numel
    assert saved > 0
    assert adamw.of(strategy({})).moments - memory.of(strategy({})).moments == saved


def test_an_update_needs_no_more_memory_than_planned():
    """Of one process, on a CPU: the updates of all matrices, their steps, and temporaries of one matrix."""
    memory, _, parameters = predicted({})
    model = parallelize(vit, Mesh.alone(), ParallelConfig(), seed=3)
    named = dict(model.named_parameters())
    optimizer = build_optimizer(named, model.placements, MUON)
    for parameter in named.values():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()  # makes the moments
    tensors = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    with Meter([*named.values(), *(p.grad for p in named.values()), *tensors]) as meter:
        optimizer.step()
    planned = memory.state(strategy({}), parameters).update
    assert 0.3 * planned < max(meter.peaks.values()) <= planned


def test_orthogonalization_takes_time_that_ranks_share():
    rate = cluster("frontier").peak_tflops["fp32"] * 1e12 * Efficiency().on(cluster("frontier")).compute
    seconds = {}
    for name in ("one", "tp2"):
        _, throughput, parameters = predicted(MESHES[name])
        messages = list(throughput.communication.matrices(strategy(MESHES[name]), parameters))
        exchange = throughput._collectives(strategy(MESHES[name]), messages)
        assert (exchange > 0) == (name == "tp2")
        seconds[name] = throughput._orthogonalization(strategy(MESHES[name]), parameters) - exchange
    matrices = predicted({})[2].matrices.shapes
    assert seconds["one"] == pytest.approx(sum(TRAINING.matrices.flops(*shape) for shape in matrices) / rate)
    assert seconds["one"] / 2 <= seconds["tp2"] < seconds["one"]
