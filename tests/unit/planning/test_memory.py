"""Memory by part, beside what a rank truly holds: ranks of a mesh whose other processes are fake."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sciml.distributed.mesh import Mesh
from sciml.parallel.config import ParallelConfig
from sciml.parallel.data import local
from sciml.parallel.model import parallelize
from sciml.parallel.placement import Placement
from sciml.planning.cluster import Efficiency
from sciml.planning.degrees import Degrees
from sciml.planning.fake_mesh import fake_mesh
from sciml.planning.memory import MemoryModel
from sciml.planning.model_facts import ATTEND_TO_ALL
from sciml.planning.op_meter import Meter
from sciml.planning.strategy import Strategy, TrainingSpec
from sciml.planning.throughput import KERNELS_OF_AN_UPDATE, ThroughputModel
from sciml.training.ema import WeightAverage
from sciml.training.optimizer import UpdateRule, build_optimizer, optimizer_spec, state_of
from tests.distributed.cases import GLOBAL_BATCH, OPTIMIZERS, FieldTask, fields, vit
from tests.unit.planning.models import cluster, small

FRONTIER = cluster("frontier")
MESHES = {
    "one": {},
    "dp2": {"dp": 2},
    "tp2": {"tp": 2},
    "tp4": {"tp": 4},
    "pp2": {"pp": 2},
    "pp4": {"pp": 4},
    "pp2-interleaved": {"pp": 2, "schedule": "interleaved", "interleave": 2},
    "zero1": {"shard": 2, "zero": 1},
    "zero2": {"shard": 4, "zero": 2},
    "zero3-uneven": {"shard": 3, "zero": 3},
    "hsdp": {"dp": 2, "shard": 2, "zero": 3},
    "tp2-pp2": {"tp": 2, "pp": 2},
    "tp2-zero3": {"tp": 2, "shard": 2, "zero": 3},
    "pp2-zero1": {"pp": 2, "shard": 2, "zero": 1},
}


def strategy(degrees, recompute="none", precision="fp32", micro_batch=1):
    return Strategy(ParallelConfig(**{"dp": 1, **degrees}), micro_batch, precision, recompute)


def planner(margin=0.0, batch=GLOBAL_BATCH):
    return MemoryModel(small(), cluster("frontier"), TrainingSpec(batch), margin)


@pytest.mark.parametrize("name", MESHES)
def test_weights_gradients_moments_and_average_are_those_of_a_real_rank(name):
    degrees = MESHES[name]
    chosen = strategy(degrees)
    for place in range(degrees.get("pp", 1)):
        memory = planner().at(chosen, place)
        rank = place * math.prod(degrees.get(axis, 1) for axis in ("dp", "shard", "cp", "sp", "tp"))
        with fake_mesh(degrees, rank) as mesh:
            model = parallelize(vit, mesh, chosen.parallel, seed=3)
            parameters = dict(model.named_parameters())
            optimizer = build_optimizer(parameters, model.placements, OPTIMIZERS["adamw"])
            if model.pipeline is None:
                FieldTask().loss(model.module, fields(0)[:1]).loss.backward()
                gradients = sum(local(p.grad).nbytes for p in parameters.values())
            else:  # what a pipeline's schedule computes has the shapes of its parameters
                gradients = sum(local(p).nbytes for p in parameters.values())
            weights = {key: local(p.detach()) for key, p in parameters.items()}
            average = sum(value.nbytes for value in WeightAverage(weights, 0.9).averages.values())
            rule = optimizer_spec(OPTIMIZERS["adamw"]).others
            moments = [state_of(optimizer, p, rule) for p in parameters.values()]
            found = sum(local(m).nbytes for known in moments for key, m in known.items() if key != "step")
            assert memory.weights == sum(value.nbytes for value in weights.values())
            assert memory.gradients == gradients
            assert memory.moments == found
            assert memory.average == average
            del model, parameters, optimizer, weights, moments


def test_zero_shards_more_and_more():
    base = strategy({"dp": 8})
    totals = [planner().of(base)] + [planner().of(strategy({"shard": 8, "zero": zero})) for zero in (1, 2, 3)]
    assert totals[0].weights == pytest.approx(8 * totals[1].weights, rel=0.1)
    assert totals[1].buffers >= totals[2].buffers > totals[3].buffers
    assert totals[0].total > totals[1].total > totals[3].total


def test_gpipe_keeps_all_micro_batches_and_1f1b_as_many_as_stages_behind():
    profile = small().profile(1, 1, "fp32", "none")
    model = planner(batch=16)
    for schedule, flying in (("gpipe", 16), ("1f1b", 4)):
        chosen = strategy({"pp": 4, "schedule": schedule})
        first, second = (model.at(chosen, stage) for stage in (0, 1))
        assert first.activations > second.activations or schedule == "gpipe"
        blocks = flying * (profile.block.saved_activations(1) + profile.embed.saved_activations(1))
        assert first.activations == pytest.approx(blocks, rel=0.35)


def test_pipelines_have_room_for_what_is_in_flight_and_not_for_all_micro_batches():
    """Of tokens and condition; a middle stage of four has three passes in flight, and one gradient that comes back."""
    few, many = (planner(batch=batch).at(strategy({"pp": 4}), 1).buffers for batch in (8, 16))
    assert few == many >= 4 * sum(small().profile(1, 1, "fp32", "none").stage_activations)


def test_recomputing_and_cutting_save_activations():
    def activations(degrees, recompute):
        return planner().of(strategy(degrees, recompute, micro_batch=8)).activations

    modes = [activations({}, mode) for mode in ("none", "selective", "full")]
    assert modes == sorted(modes, reverse=True)
    assert activations({"tp": 2}, "none") < 0.75 * modes[0]
    assert activations({"sp": 2}, "none") < 0.75 * modes[0]


def test_the_margin_is_a_share_of_the_device():
    with_margin, without = planner(0.25).of(strategy({})), planner().of(strategy({}))
    assert with_margin.margin == 0.25 * 68.7e9
    assert with_margin.total - without.total == pytest.approx(0.25 * 68.7e9)


def test_sgd_has_one_moment_and_an_average_may_be_left_out():
    training = TrainingSpec.of(trainer(), OPTIMIZERS["sgd"])
    assert (training.moment_bytes(1, 1), training.average) == (8, 0)


def trainer():
    from sciml.training.config import TrainerConfig

    return TrainerConfig()


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_an_update_reads_and_writes_what_a_plan_counts(name):
    parameters = [torch.nn.Parameter(torch.randn(64, 64)) for _ in range(6)]
    placements = {str(n): Placement(Mesh.alone(), (64, 64)) for n in range(6)}
    optimizer = build_optimizer(dict(zip(placements, parameters, strict=True)), placements, OPTIMIZERS[name])
    for _ in range(2):  # the first update makes the moments
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        with Meter() as meter:
            optimizer.step()
    done = meter.counts[meter.scope]
    counted = TrainingSpec.of(trainer(), OPTIMIZERS[name])
    clipping = 12
    written = {"adamw": 12, "sgd": 0}[name]  # in place by one kernel of all parameters, where only reading is seen
    assert counted.average == 0
    assert done.other_bytes / (6 * 64 * 64) == pytest.approx(counted.update_bytes(1, 0) - clipping - written, rel=0.02)
    if name == "adamw":
        assert done.kernels <= KERNELS_OF_AN_UPDATE * 6


def test_an_update_without_moments_takes_time_too():
    rule = UpdateRule((), moved=24)
    plain = TrainingSpec(GLOBAL_BATCH, matrices=rule, others=rule, average=0)
    seconds = [update_s({}, training=training) for training in (plain, TrainingSpec(GLOBAL_BATCH))]
    assert seconds[0] == pytest.approx(seconds[1] * 36 / 52)
    assert seconds[0] > 0


def test_where_updates_were_measured_no_kernels_are_counted():
    machine = replace(FRONTIER, device="cpu", update_gb_per_s=10.0, shard_update_us=100.0)
    whole, numbers = update_s({}, machine), small().parameters
    assert whole == pytest.approx(TrainingSpec(GLOBAL_BATCH).update_bytes(0, numbers) / 10e9)
    shards = update_s({"dp": 1, "shard": 2, "zero": 1}, machine)
    assert shards == pytest.approx(whole / 2 + len(list(small().whole.parameters())) * 100e-6, rel=0.01)
    assert update_s({}, replace(machine, update_gb_per_s=None)) > whole


def update_s(mesh, machine=FRONTIER, training=None):
    training = training or TrainingSpec(GLOBAL_BATCH)
    memory = MemoryModel(small(), machine, training)
    return ThroughputModel(small(), machine, training, Efficiency(), memory).of(strategy(mesh)).update


@pytest.mark.parametrize(("zero", "offload"), [(0, "none"), (1, "none"), (2, "none"), (3, "none"), (2, "cpu")])
def test_deepspeed_keeps_a_copy_of_its_own_partition(zero, offload):
    """Weights of float32 and, for the optimizer, its partition of them once more; see DeepSpeed's stage_1_and_2.py."""
    from sciml.training.engine_config import EngineConfig

    chosen = Strategy(ParallelConfig(dp=4), 1, "fp32", "none", EngineConfig("deepspeed", zero, offload))
    memory = planner().of(chosen)
    whole, part = 4 * small().parameters, small().parameters
    assert memory.weights == {0: whole, 1: whole + part, 2: whole + part, 3: 2 * part}[zero] - part * (offload == "cpu")
    assert memory.gradients == {0: whole, 1: whole + part, 2: part, 3: part}[zero]
    assert memory.moments == (0 if offload == "cpu" else 2 * (whole if zero == 0 else part))


@pytest.mark.parametrize("count", [1, 2])
def test_a_profile_leaves_no_process_group_behind(count):
    for _ in range(count):
        small()._profile_pass(Degrees(), "bf16", "full", 1, ATTEND_TO_ALL)
    assert not torch.distributed.is_initialized()
