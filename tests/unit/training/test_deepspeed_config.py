import sys
import types

import pytest
import torch
from torch import nn

from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.distributed.mesh import Mesh
from sciml.parallel.config import ParallelConfig
from sciml.parallel.model import parallelize
from sciml.training.config import OptimConfig, TrainerConfig
from sciml.training.engine import NativeEngine
from sciml.training.engine_config import EngineConfig, build_engine


class Plain:
    needs_double_backward = False


class Forces:
    needs_double_backward = True


def engine(config, task=Plain, parallel=None):
    model = parallelize(lambda: nn.Linear(3, 1), Mesh.alone(), parallel or ParallelConfig(), seed=0)
    return build_engine(config, model, OptimConfig(), TrainerConfig(), task())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"name": "deepsped"},
            "engine.name must be one of native, deepspeed, got 'deepsped'; did you mean 'deepspeed'?",
        ),
        ({"name": "deepspeed", "zero": 4}, "engine.zero must be one of 0, 1, 2, 3, got 4"),
        (
            {"name": "deepspeed", "offload": "nvme"},
            "engine.offload must be one of none, cpu, got 'nvme'; did you mean 'none'?",
        ),
        ({"zero": 2}, "engine.zero: is an option of engine=deepspeed; use parallel.shard and parallel.zero"),
        ({"offload": "cpu"}, "engine.offload: is an option of engine=deepspeed; leave it out"),
        ({"name": "deepspeed", "stage": 2}, "engine.stage: unknown key; did you mean 'engine.name'?"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(options, words):
    with pytest.raises(ConfigError) as error:
        build(EngineConfig, options, prefix="engine")
    if "stage" not in options:
        assert str(error.value) == words
    assert str(error.value).startswith("engine.")


@pytest.mark.parametrize(
    ("parallel", "options", "words"),
    [
        ({"dp": 2, "shard": 2}, {}, "parallel.shard: engine=deepspeed shards over all data-parallel ranks"),
        ({"shard": 2}, {}, "parallel.shard: engine=deepspeed shards over all data-parallel ranks and not within"),
        ({"shard": 4}, {"zero": 0}, "engine.zero: 0 shards nothing; use 1, 2 or 3, or parallel.dp=4"),
        ({}, {"offload": "cpu"}, "engine.offload: needs ZeRO; set parallel.shard, or engine.zero=1"),
        ({"pp": 4}, {"zero": 0}, "engine.zero: without ZeRO DeepSpeed clips every pipeline stage by a norm of its own"),
        ({"pp": 4}, {"zero": 2}, "engine.zero: in a pipeline DeepSpeed shards the optimizer alone; use 1, or engine="),
        ({"pp": 2, "shard": 2}, {}, "parallel.zero: in a pipeline DeepSpeed shards the optimizer alone; use 1, or"),
        ({"pp": 4}, {"offload": "cpu"}, "engine.offload: is not possible with a pipeline; use parallel.pp=1"),
        ({"pp": 4, "schedule": "gpipe"}, {}, "parallel.schedule: DeepSpeed has one schedule of its own, 1f1b, and not"),
        ({"pp": 2, "schedule": "zero_bubble", "interleave": 2}, {}, "parallel.schedule: DeepSpeed has one schedule"),
    ],
)
def test_what_deepspeed_cannot_do_is_refused_before_anything_is_built(parallel, options, words):
    with pytest.raises(ConfigError) as error:
        EngineConfig("deepspeed", **options).degrees(ParallelConfig(**parallel), 4)
    assert str(error.value).startswith(words)


@pytest.mark.parametrize(
    ("parallel", "zero", "stage", "dp"),
    [
        ({}, None, 0, 4),
        ({"shard": 4}, None, 3, 4),
        ({"shard": 4, "zero": 1}, None, 1, 4),
        ({"shard": 2, "tp": 2}, None, 3, 2),
        ({"tp": 2}, 2, 2, 2),
        ({"pp": 2}, None, 1, 2),
        ({"pp": 2, "shard": 2, "zero": 1}, None, 1, 2),
        ({"shard": 4, "zero": 3}, 2, 2, 4),
    ],
)
def test_deepspeed_shards_over_all_data_ranks(parallel, zero, stage, dp):
    config = EngineConfig("deepspeed", zero=zero)
    degrees = config.degrees(ParallelConfig(**parallel), 4)
    assert (config.stage(ParallelConfig(**parallel)), degrees["dp"], degrees["shard"]) == (stage, dp, 1)


def test_the_native_engine_takes_the_degrees_as_they_are():
    parallel = ParallelConfig(shard=2)
    assert EngineConfig().degrees(parallel, 4) == parallel.degrees(4)
    assert type(engine(EngineConfig())) is NativeEngine


def test_a_missing_deepspeed_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ConfigError, match=r"engine: DeepSpeed cannot be imported .*; install it with: pip install"):
        engine(EngineConfig("deepspeed"))


def test_another_version_of_deepspeed_is_refused(monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("LOCAL_RANK", "0")
    other = types.ModuleType("deepspeed")
    other.__version__ = "0.18.2"
    monkeypatch.setitem(sys.modules, "deepspeed", other)
    with pytest.raises(ConfigError, match=r"engine: this is DeepSpeed 0.18.2, and 0.19 is needed; install"):
        engine(EngineConfig("deepspeed"))


def test_losses_of_gradients_are_refused_where_weights_are_let_go():
    with pytest.raises(ConfigError, match=r"engine\.zero: a loss that is made of gradients"):
        engine(EngineConfig("deepspeed", zero=3), Forces)


def test_double_precision_is_refused():
    model = parallelize(lambda: nn.Linear(3, 1, dtype=torch.float64), Mesh.alone(), ParallelConfig(), seed=0)
    with pytest.raises(ConfigError, match="engine: DeepSpeed keeps weights in float32, and weight is float64"):
        build_engine(EngineConfig("deepspeed"), model, OptimConfig(), TrainerConfig(), Plain())


def test_muon_with_its_gradients_on_the_host_is_refused():
    with pytest.raises(ConfigError, match=r"engine.offload must be none with optim=muon, .*, got cpu; try"):
        build_engine(
            EngineConfig("deepspeed", zero=2, offload="cpu"),
            parallelize(lambda: nn.Linear(2, 2), Mesh.alone(), ParallelConfig(), seed=0),
            OptimConfig(name="muon"),
            TrainerConfig(),
            types.SimpleNamespace(needs_double_backward=False),
        )
