"""Autocast casts each weight once a step, for all micro-batches, and the step stays what it was."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch

from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.parallel.config import ParallelConfig
from sciml.parallel.model import parallelize
from sciml.planning.op_meter import CAST, Meter
from sciml.training.engine import NativeEngine
from tests.distributed.cases import CASES, OPTIMIZERS, away_from_zero, share


def step(world: World, degrees: dict[str, Any], batches: int, once: bool) -> tuple[float, dict[str, torch.Tensor], int]:
    """Returns the loss of a step in bf16, the weights after it, and the most bytes of cast weights that were alive."""
    config, case = ParallelConfig(**degrees), CASES["vit"]
    mesh = Mesh(world, config.degrees(world.size))
    engine = NativeEngine(parallelize(case.build, mesh, config, 3, away_from_zero), OPTIMIZERS["sgd"], "bf16")
    if not once:
        engine.math.casting_once = contextlib.nullcontext  # type: ignore[method-assign]
    weights = dict(engine.model.named_parameters()).values()
    meter = Meter(weights, weights=weights)
    samples = share(case.samples(0), mesh)[:batches]
    with meter:
        output = engine.train_step(case.task, samples, 1e-2)
    casts = max(size for stage, size in meter.peaks.items() if stage.endswith(CAST))
    return output.loss, {name: value.clone() for name, value in engine.weights().items()}, casts


@pytest.mark.parametrize("degrees", [{}, {"pp": 2}], ids=["in turn", "pipeline"])
def test_weights_are_cast_once_a_step(ranks, degrees):
    def steps(batches: int, once: bool) -> Any:
        return ranks(degrees.get("pp", 1)).run(step, degrees, batches, once)

    whole, apart, half = steps(4, True), steps(4, False), steps(2, True)
    for (loss, weights, casts), (other_loss, others, _), (*_, half_casts) in zip(whole, apart, half, strict=True):
        assert loss == other_loss
        assert all(torch.equal(weights[name], other) for name, other in others.items())
        assert casts == half_casts > 0
    if degrees:  # the first stage has two micro-batches in flight
        assert apart[0][-1] > 1.8 * whole[0][-1]
