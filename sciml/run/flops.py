"""Counts what the model of a run computes for a sample, as a plan counts it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from sciml.core.errors import ConfigError
from sciml.data.source import CostedSource, SampleSource
from sciml.distributed.world import World
from sciml.domain.protocol import Splits
from sciml.planning.cluster_here import peak_here
from sciml.planning.model_facts import ModelFacts
from sciml.planning.parameters import Accounting
from sciml.run.spec import RunSpec
from sciml.training.utilization import ModelFlops


def model_facts(
    spec: RunSpec, splits: Splits, *, as_accelerator: bool, accounting: Accounting | None = None
) -> ModelFacts:
    """Returns the facts of a run's model and of one typical sample of its data.

    Args:
        as_accelerator, accounting: see :class:`ModelFacts`.
    """
    task = spec.domain.task(spec, splits)
    source = splits.train
    sample = source.sample(_typical(source), np.random.default_rng(spec.seed))

    def build_model() -> nn.Module:
        return spec.build_model(splits.schema)

    return ModelFacts(
        spec.domain.name,
        build_model,
        task.loss,
        lambda samples: source.collate([sample] * samples),
        needs_double_backward=task.needs_double_backward,
        as_accelerator=as_accelerator,
        accounting=accounting,
    )


def _typical(source: SampleSource) -> int:
    """Returns the number of a sample that costs about the mean, where samples differ in size."""
    if not isinstance(source, CostedSource):
        return 0
    costs = source.costs()
    return int(np.abs(costs - costs.mean()).argmin())


def count_flops(spec: RunSpec, splits: Splits, world: World) -> ModelFlops | None:
    """Counts the FLOPs of a run's model, on the first rank alone, and looks up the peak of its device.

    A pass of two blocks without memory takes half a second at the most, whatever the model and the mesh: it needs no
    process group.

    Returns:
        None on other ranks, and of a model or a task that cannot be counted so.

    Raises:
        ConfigError: what the model refuses of these samples, as it would in the first step.
    """
    if not world.is_main:
        return None
    try:
        with torch.random.fork_rng(devices=[]):
            # What an accelerator keeps in float32 changes memory, not products.
            sample = sum(model_facts(spec, splits, as_accelerator=False).sample_flops())
    except ConfigError:
        raise
    except Exception:  # of whatever models and tasks others write; a figure in a log is not worth a training
        return None
    assert spec.trainer.precision != "auto"  # it is chosen when a training starts
    peak = peak_here(world.device.type, spec.trainer.precision, torch.get_num_threads())
    if spec.trainer.precision == "fp32" and spec.trainer.tf32:  # whose peak conf/cluster does not state
        peak = None
    return ModelFlops(sample) if peak is None else ModelFlops(sample, peak.flops_per_s, peak.source)
