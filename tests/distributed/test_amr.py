"""The flow model cut over ranks trains as one process does: tokens of all levels, their coupling and their merge."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from domains.fluids.amr.config import AMRConfig
from domains.fluids.amr.transformer import AMRViT
from domains.fluids.data.boundary import Boundary
from domains.fluids.refine.config import RefineConfig
from domains.fluids.refine.model import RefineModel
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.domain.protocol import LossOutput
from sciml.parallel.config import ParallelConfig
from sciml.parallel.model import parallelize
from sciml.training.engine import NativeEngine
from tests.distributed.cases import GLOBAL_BATCH, OPTIMIZERS, Samples, away_from_zero, share
from tests.distributed.test_parity import size_of

BOUNDARY = Boundary.of("periodic", "wall")
STEPS = 3
MESHES: dict[str, dict[str, Any]] = {
    "tp2": {"tp": 2},
    "sp2": {"sp": 2},
    "pp2": {"pp": 2},
    "zero3": {"shard": 2, "zero": 3},
    "dp2": {"dp": 2},
    "sp4": {"sp": 4},
    "tp2-sp2": {"tp": 2, "sp": 2},
    "pp2-sp2": {"pp": 2, "sp": 2},
    "pp2-tp2-zero_bubble": {"pp": 2, "tp": 2, "schedule": "zero_bubble"},
    "sp2-zero2": {"sp": 2, "shard": 2, "zero": 2},
}
FAST = {"tp2", "sp2", "pp2"}
CASES: dict[str, dict[str, Any]] = {
    "budget": {},  # 6 + 3 * 4 + 3 * 4 = 30 tokens: 4 ranks need a fill
    "threshold": {"threshold": 0.3, "balance": True, "buffer": 1, "edge_filter": 3},
    "learned": {"indicator": "learned", "coupling": "one_way"},
    "refine": {"indicator": "variance", "square": 2, "conv_width": 8},  # tokens between convolutions
}


def build(case: str) -> AMRViT | RefineModel:
    variables = ("dens", "uwnd", "wwnd")
    kind: Any = RefineConfig if case == "refine" else AMRConfig
    config = kind(
        embed_dim=16,
        depth=4,
        num_heads=4,
        patch_size=8,
        budgets=(0.5, 0.25),
        condition_dim=8,
        rotary_max_harmonic=2,
        head_depth=1,
        condition_on=("lead_time",),
        **{"ratios": (2, 2), **CASES[case]},
    )
    return RefineModel(config, variables, ()) if case == "refine" else AMRViT(config, variables)


class FlowTask:
    """Regression of fields; samples weigh unequally, so that means over ranks must be exact."""

    needs_double_backward = False

    def loss(self, model: Any, batch: Samples) -> LossOutput:
        lead = 20.0 + torch.arange(len(batch.inputs), dtype=torch.float32)
        error = (model(batch.inputs, None, lead, BOUNDARY) - batch.targets).square().mean(dim=(1, 2, 3))
        weights = 1 + batch.inputs[:, 0, 0, 0].abs()
        return LossOutput((error * weights).sum() / weights.sum(), weight=weights.sum().item())


def flows(step: int) -> Samples:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(GLOBAL_BATCH, 3, 14, 20, generator=generator)  # patches of 8 stick out of both ends
    return Samples(inputs, inputs.roll(1, dims=3) * 0.5 + 1)


def train(world: World, case: str, degrees: dict[str, Any]) -> list[tuple[float, float]]:
    """Losses and gradient norms of some steps on a mesh."""
    config = ParallelConfig(**degrees)
    mesh = Mesh(world, config.degrees(world.size))
    model = parallelize(lambda: build(case), mesh, config, seed=3, start=away_from_zero)
    engine, found = NativeEngine(model, OPTIMIZERS["sgd"]), []
    for step in range(STEPS):
        output = engine.train_step(FlowTask(), share(flows(step), mesh), OPTIMIZERS["sgd"].lr)
        found.append((output.loss, output.grad_norm))
    return found


def forecast(world: World, case: str, degrees: dict[str, Any]) -> Tensor:
    config = ParallelConfig(**degrees)
    mesh = Mesh(world, config.degrees(world.size))
    engine = NativeEngine(
        parallelize(lambda: build(case), mesh, config, seed=3, start=away_from_zero), OPTIMIZERS["sgd"]
    )
    with engine.evaluation() as model:
        return model(flows(0).inputs, None, torch.full((GLOBAL_BATCH,), 20.0), BOUNDARY)


@lru_cache
def alone(function: Any, case: str) -> Tensor:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = function(World(0, 1, torch.device("cpu")), case, {})
    torch.set_num_threads(threads)
    return torch.as_tensor(found)


def marked(case: str, mesh: str) -> Any:
    slow = mesh not in FAST or case in ("learned", "refine")
    return pytest.param(case, mesh, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(
    ("case", "mesh"),
    [
        marked(case, mesh)
        for case in CASES
        for mesh in MESHES
        if not (case == "learned" and "pp" in mesh) and not (case == "refine" and "zero_bubble" in mesh)
    ],
)
def test_losses_and_gradient_norms_are_those_of_one_process(ranks, case, mesh):
    expected = alone(train, case).double()
    for found in ranks(size_of(MESHES[mesh])).run(train, case, MESHES[mesh]):
        torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("mesh", sorted(FAST))
@pytest.mark.parametrize("case", ["budget", "threshold"])
def test_forecasts_are_those_of_one_process(ranks, case, mesh):
    for found in ranks(2).run(forecast, case, MESHES[mesh]):
        torch.testing.assert_close(found, alone(forecast, case), rtol=1e-4, atol=1e-5)
