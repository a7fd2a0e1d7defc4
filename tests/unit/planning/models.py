"""What tests of plans share: a small model with its facts, clusters, and the published language models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
import torch

from domains.language.batch import TextBatch
from sciml.app.plan import facts_of
from sciml.core.config import build
from sciml.domain.protocol import LossOutput
from sciml.models.gpt import GPT, GPTConfig
from sciml.parallel.config import ParallelConfig
from sciml.planning.cluster import ClusterConfig, Efficiency
from sciml.planning.memory import MemoryModel
from sciml.planning.model_facts import ModelFacts
from sciml.planning.parameters import MEGATRON_FP16
from sciml.planning.strategy import Strategy, TrainingSpec
from sciml.planning.throughput import ThroughputModel
from sciml.run.compose import compose
from sciml.run.spec import RunSpec
from tests.distributed.cases import FieldTask, fields
from tests.distributed.test_volume import model

SEQUENCE = 2048


@cache
def gpt(name: str) -> ModelFacts:
    """Facts of a published language model, as Megatron-DeepSpeed held its parameters."""
    config = build(GPTConfig, compose("train", ["domain=language", f"model={name}"]).config["model"], prefix="model")

    def loss(model: Any, batch: TextBatch) -> LossOutput:
        return LossOutput(model(batch.tokens, batch.targets).mean())

    def batch(samples: int) -> TextBatch:
        tokens = torch.zeros(samples, SEQUENCE, dtype=torch.int64)
        return TextBatch(tokens, tokens)

    return ModelFacts(name, partial(GPT, config), loss, batch, accounting=MEGATRON_FP16)


@cache
def cluster(name: str) -> ClusterConfig:
    """A cluster of ``conf/cluster``."""
    return build(
        ClusterConfig, compose("launch", [f"cluster={name}", "launch=generic"]).config["cluster"], prefix="cluster"
    )


@contextmanager
def facts_found_once(module: str) -> Iterator[None]:
    """Finds the facts of each model once, however many plans a module makes of it and of the domain's usual data."""
    found: dict[str, ModelFacts] = {}

    def facts(experiment: RunSpec, cluster: ClusterConfig, *accounting: Any) -> ModelFacts:
        changes = {"recompute": "none"} if hasattr(experiment.model, "recompute") else {}
        key = repr((experiment.domain.name, replace(experiment.model, **changes), cluster.device, accounting))
        if key not in found:
            found[key] = facts_of(experiment, cluster, *accounting)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{module}.facts_of", facts)
        yield


@cache
def small() -> ModelFacts:
    """Facts of the model of ``tests/distributed``: a climate ViT of four blocks and 15 tokens."""
    return ModelFacts("small", partial(model, "none"), FieldTask().loss, lambda samples: fields(0)[:samples])


def recipe(tp: int, pp: int, replicas: int, recompute: str = "full") -> Strategy:
    """As the talk's: ZeRO-1, micro-batches of one sequence, fp16."""
    parallel = ParallelConfig(tp=tp, pp=pp, dp=1, shard=replicas, zero=1)
    return Strategy(parallel, 1, "fp16", recompute)


def throughput(
    facts: Any, batch: float, efficiency: Efficiency | None = None, name: str = "frontier"
) -> ThroughputModel:
    """Of trainings with a global batch."""
    training = TrainingSpec(batch)
    memory = MemoryModel(facts, cluster(name), training)
    return ThroughputModel(facts, cluster(name), training, efficiency or Efficiency(), memory)
