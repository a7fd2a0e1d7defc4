"""Weights of blocks gathered in half precision: half the bytes, and the steps of a training that casts them later."""

from __future__ import annotations

import pytest
import torch

from sciml.distributed.communication import CommunicationVolume
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.parallel.config import ParallelConfig
from sciml.parallel.model import parallelize
from sciml.training.engine import NativeEngine
from tests.distributed.cases import CASES, OPTIMIZERS, away_from_zero, share


def train(world: World, case: str, degrees: dict[str, int], half: bool) -> tuple[list[tuple[float, float]], int, str]:
    """Losses and gradient norms of two steps in bf16, the bytes gathered in a step, and the type of what is stored."""
    config = ParallelConfig(**degrees)
    mesh = Mesh(world, config.degrees(world.size))
    dtype = torch.bfloat16 if half else None
    model = parallelize(CASES[case].build, mesh, config, 3, away_from_zero, dtype)
    engine = NativeEngine(model, OPTIMIZERS["sgd"], "bf16")
    found = []
    for step in range(2):
        batches = share(CASES[case].samples(step), mesh)
        with CommunicationVolume(mesh) as volume:
            output = engine.train_step(CASES[case].task, batches, 1e-2)
        found.append((output.loss, output.grad_norm))
    kinds = {str(value.dtype) for value in engine.weights().values()}
    return found, volume.of("shard", "all_gather").bytes, ", ".join(kinds)


@pytest.mark.parametrize(("case", "zero"), [("vit", 3), ("uvit", 2)])
def test_half_the_bytes_are_gathered_and_the_training_is_the_same(ranks, case, zero):
    degrees = {"shard": 2, "zero": zero}
    (expected, whole, _), (found, gathered, stored) = (
        ranks(2).run(train, case, degrees, half)[0] for half in (False, True)
    )
    assert stored == "torch.float32"
    assert 0.5 * whole <= gathered < 0.8 * whole  # what stands outside of blocks stays as it is
    for (loss, norm), (other_loss, other_norm) in zip(expected, found, strict=True):
        assert other_loss == pytest.approx(loss, rel=0.01)
        assert other_norm == pytest.approx(norm, rel=0.05)
