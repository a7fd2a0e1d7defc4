"""Every way of cutting a GPT trains it as one process does: vocabulary, tied embedding and all."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.parallel.config import ParallelConfig
from sciml.parallel.data import local
from sciml.training.engine import NativeEngine
from tests.distributed.cases import OPTIMIZERS, STEPS, build, gpt, run_steps, train, words
from tests.distributed.test_any_mesh import FIRST, LAST, go_on, on, write
from tests.distributed.test_parity import size_of

ALONE = World(0, 1, torch.device("cpu"))
MESHES: dict[str, dict[str, Any]] = {
    "tp2": {"tp": 2},
    "pp2": {"pp": 2},
    "sp2": {"sp": 2},
    "dp2": {"dp": 2},
    "cp2": {"cp": 2},
    "cp2-sp2": {"cp": 2, "sp": 2},
    "cp2-tp2": {"cp": 2, "tp": 2},
    "cp4": {"cp": 4},
    "cp2-pp2": {"cp": 2, "pp": 2},
    "zero3": {"shard": 2, "zero": 3},
    "tp2-pp2": {"tp": 2, "pp": 2},
    "tp2-sp2": {"tp": 2, "sp": 2},
    "pp2-zero1": {"pp": 2, "shard": 2, "zero": 1},
    "pp4": {"pp": 4},
    "pp2-sp2": {"pp": 2, "sp": 2},
    "pp2-interleaved": {"pp": 2, "schedule": "interleaved", "interleave": 2},
    "pp2-zero_bubble": {"pp": 2, "schedule": "zero_bubble", "interleave": 2},
    "pp2-zero3": {"pp": 2, "shard": 2, "zero": 3},
}
FAST = {
    *((mesh, "gpt", "sgd") for mesh in ("pp2", "dp2", "zero3", "tp2-sp2", "pp2-zero1")),
    *((mesh, "gpt-untied", "sgd") for mesh in ("tp2", "pp2")),
    ("tp2-pp2", "gpt", "adamw"),
    *((mesh, "gpt-untied", "sgd") for mesh in ("cp2", "cp2-sp2")),
}
ROUNDING = 1e-10
"""Of losses and norms in float64, relative."""


@lru_cache
def alone(case: str, optimizer: str, steps: int = STEPS) -> torch.Tensor:
    """The same training in one process."""
    return torch.tensor(train(ALONE, case, {}, optimizer, steps), dtype=torch.float64)


def assert_as_alone(answers: list[Any], case: str, optimizer: str, steps: int = STEPS) -> None:
    for found in answers:
        expected = alone(case, optimizer, steps)
        torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected, rtol=ROUNDING, atol=0)


@pytest.mark.parametrize(
    ("mesh", "case", "optimizer"),
    [
        pytest.param(*chosen, marks=[] if chosen in FAST else [pytest.mark.slow])
        for chosen in ((m, c, o) for m in MESHES for c in ("gpt", "gpt-untied") for o in OPTIMIZERS)
    ],
)
def test_losses_and_gradient_norms_are_those_of_one_process(ranks, mesh, case, optimizer):
    degrees = MESHES[mesh]
    assert_as_alone(ranks(size_of(degrees)).run(train, case, degrees, optimizer), case, optimizer)


TALK = {"tp": 2, "pp": 2, "shard": 2, "zero": 1}
"""Tensor parallelism, a pipeline, and data parallelism whose optimizer is sharded."""


@pytest.mark.slow
@pytest.mark.parametrize("steps", [10, 100])
def test_all_kinds_of_parallelism_together_train_as_one_process(ranks, steps):
    assert_as_alone(ranks(8).run(train, "gpt", TALK, "adamw", steps), "gpt", "adamw", steps)


def outputs(world: World, degrees: dict[str, Any]) -> tuple[int, list[str], torch.Tensor, torch.Tensor]:
    """Parameters, further tensors, and what the whole model says of a batch."""
    config = ParallelConfig(**degrees)
    mesh = Mesh(world, config.degrees(world.size))
    engine = NativeEngine(build("gpt", mesh, config), OPTIMIZERS["sgd"])
    batch = words(0)
    with engine.evaluation() as model:
        logits, losses = model(batch.inputs), model(batch.inputs, batch.targets)
    return engine.model.num_parameters(), list(engine.model.buffers()), logits, losses


@pytest.mark.parametrize("mesh", ["tp2", "pp2", "sp2", "tp2-pp2", "tp2-sp2"])
def test_logits_are_those_of_the_whole_model_on_every_rank(ranks, mesh):
    _, _, logits, losses = outputs(ALONE, {})
    for found in ranks(size_of(MESHES[mesh])).run(outputs, MESHES[mesh]):
        assert found[:2] == (sum(p.numel() for p in gpt().parameters()), [])
        torch.testing.assert_close(found[2], logits)
        torch.testing.assert_close(found[3], losses)


def embedding_after(world: World, degrees: dict[str, Any], steps: int) -> torch.Tensor | None:
    """This rank's part of the embedding after some steps; None where it has none."""
    config = ParallelConfig(**degrees)
    mesh = Mesh(world, config.degrees(world.size))
    engine = NativeEngine(build("gpt", mesh, config), OPTIMIZERS["adamw"])
    run_steps(engine, "gpt", mesh, "adamw", range(steps))
    found = dict(engine.model.named_parameters()).get("embed.weight")
    return None if found is None else local(found.detach()).clone()


@pytest.mark.parametrize(
    "mesh", [pytest.param("pp2-zero1", marks=pytest.mark.slow), "tp2-pp2", pytest.param("pp4", marks=pytest.mark.slow)]
)
def test_the_first_and_the_last_stage_keep_one_embedding_to_the_bit(ranks, mesh):
    found = ranks(4).run(embedding_after, MESHES[mesh], 5)
    stage = 4 // MESHES[mesh]["pp"]  # ranks of one
    for first, last in zip(found[:stage], found[-stage:], strict=True):
        assert torch.equal(first, last)
    assert [part is None for part in found] == [stage == 1 and rank in (1, 2) for rank in range(4)]


@pytest.mark.parametrize(
    ("writer", "reader"),
    [pytest.param("pp2", "one", marks=pytest.mark.slow), ("tp2", "pp2"), ("pp2", "tp2-zero2")],
)
def test_a_tied_embedding_goes_on_on_another_mesh(ranks, tmp_path, writer, reader):
    on(ranks, writer, write, tmp_path / "there", "gpt")
    on(ranks, "one", write, tmp_path / "alone", "gpt")
    ((_, average),) = on(ranks, "one", go_on, tmp_path / "alone", "gpt")
    expected = alone("gpt", "adamw", LAST)[FIRST:]
    for found, total in on(ranks, reader, go_on, Path(tmp_path / "there"), "gpt"):
        torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected, rtol=ROUNDING, atol=0)
        assert total == pytest.approx(average, rel=1e-9)


def with_large_logits(world: World, degrees: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses, and the embedding's gradient, of a model sure of itself, in training; no rank may join logits."""
    config = ParallelConfig(**degrees)
    module = build("gpt", Mesh(world, config.degrees(world.size)), config).module

    def refuse(logits: torch.Tensor) -> torch.Tensor:
        raise AssertionError("all logits stand on one rank")

    module.head.join = refuse
    with torch.no_grad():
        module.trunk.norm.weight.mul_(1e4)
    batch = words(0)
    losses = module(batch.inputs, batch.targets)
    losses.mean().backward()
    return losses.detach(), module.embed.weight.grad


def test_large_logits_overflow_nowhere_and_are_never_together_in_training(ranks):
    losses, gradient = with_large_logits(ALONE, {})
    assert losses.max() > 1000
    found = ranks(2).run(with_large_logits, {"tp": 2})
    for rank, (own, part) in enumerate(found):
        torch.testing.assert_close(own, losses)
        torch.testing.assert_close(part, gradient.chunk(2)[rank])
