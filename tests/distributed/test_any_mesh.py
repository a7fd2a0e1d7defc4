"""A checkpoint written on any mesh opens on any other, and training goes on as if nothing had happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.parallel.config import ParallelConfig
from sciml.parallel.data import local
from sciml.training.checkpoint import CheckpointStore, read_manifest, read_tensors
from sciml.training.ema import WeightAverage
from sciml.training.engine import NativeEngine
from tests.distributed.cases import OPTIMIZERS, build, run_steps, train
from tests.distributed.test_parity import size_of

MESHES: dict[str, dict[str, Any]] = {
    "one": {},
    "tp2": {"tp": 2},
    "pp2": {"pp": 2},
    "zero3": {"shard": 2, "zero": 3},
    "tp2-zero2": {"tp": 2, "shard": 2, "zero": 2},
    "pp2-sp2-interleaved": {"pp": 2, "sp": 2, "schedule": "interleaved", "interleave": 2},
}
FIRST, LAST = 2, 4
FAST = {("one", "tp2-zero2"), ("tp2-zero2", "pp2"), ("pp2", "zero3")}


def _engine(
    world: World, degrees: dict[str, Any], case: str, optimizer: str
) -> tuple[NativeEngine, WeightAverage, Mesh]:
    config = ParallelConfig(**degrees)
    mesh = Mesh(world, config.degrees(world.size))
    engine = NativeEngine(build(case, mesh, config), OPTIMIZERS[optimizer])
    return engine, WeightAverage(engine.weights(), 0.9), mesh


def _state(engine: NativeEngine, average: WeightAverage) -> dict[str, Any]:
    return {**engine.state(), **{f"ema.{name}": engine.stored(name, v) for name, v in average.averages.items()}}


def write(world: World, degrees: dict[str, Any], folder: Path, case: str = "vit", optimizer: str = "adamw") -> None:
    engine, average, mesh = _engine(world, degrees, case, optimizer)
    run_steps(engine, case, mesh, optimizer, range(FIRST))
    average.update(engine.weights(), FIRST)
    CheckpointStore(folder, world).save(FIRST, _state(engine, average))


def go_on(
    world: World, degrees: dict[str, Any], folder: Path, case: str = "vit", optimizer: str = "adamw"
) -> tuple[list[tuple[float, float]], float]:
    """Losses and norms of the steps behind the checkpoint, and a number that says what average it held."""
    engine, average, mesh = _engine(world, degrees, case, optimizer)
    store = CheckpointStore(folder, world)
    path = store.newest_intact()
    assert path is not None
    assert read_manifest(path, store.group)["step"] == FIRST
    state = read_tensors(path, _state(engine, average), store.group)
    engine.load_state(state)
    sums = torch.zeros(2, dtype=torch.float64)
    for name in average.averages:
        part = local(state[f"ema.{name}"]).double() * engine.model.counts(name)
        sums[int(name in engine.model.cut_dims)] += (part * part.abs()).sum()
    mesh.add([sums], "shard")
    mesh.add([sums[1:]], "tp")
    total = sums.sum()
    mesh.add([total], "pp")
    return run_steps(engine, case, mesh, optimizer, range(FIRST, LAST)), total.item()


@pytest.fixture(scope="module")
def straight() -> torch.Tensor:
    alone = World(0, 1, torch.device("cpu"))
    return torch.tensor(train(alone, "vit", {}, "adamw", steps=LAST), dtype=torch.float64)[FIRST:]


@pytest.fixture(scope="module")
def written(ranks, tmp_path_factory):
    """Checkpoints by the name of the mesh that wrote them."""
    found: dict[str, Path] = {}

    def by(mesh: str) -> Path:
        if mesh not in found:
            found[mesh] = tmp_path_factory.mktemp(mesh)
            on(ranks, mesh, write, found[mesh])
        return found[mesh]

    return by


@pytest.fixture(scope="module")
def average(ranks, written) -> float:
    """What the average of a checkpoint holds that no mesh has cut."""
    ((_, total),) = on(ranks, "one", go_on, written("one"))
    return total


def on(ranks: Any, mesh: str, function: Any, folder: Path, *more: Any) -> list[Any]:
    size = size_of(MESHES[mesh])
    if size == 1:
        return [function(World(0, 1, torch.device("cpu")), MESHES[mesh], folder, *more)]
    return ranks(size).run(function, MESHES[mesh], folder, *more)


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        pytest.param(one, other, marks=[] if (one, other) in FAST else [pytest.mark.slow])
        for one in MESHES
        for other in MESHES
    ],
)
def test_training_goes_on_from_any_mesh_on_any_other(ranks, straight, average, written, writer, reader):
    for found, total in on(ranks, reader, go_on, written(writer)):
        torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), straight, rtol=1e-5, atol=0)
        assert total == pytest.approx(average, rel=1e-5)


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        pytest.param(*pair, marks=[] if pair == ("zero3", "tp2") else [pytest.mark.slow])
        for pair in (("zero3", "tp2"), ("tp2-zero2", "pp2"), ("pp2", "zero3"), ("tp2", "one"), ("one", "tp2-zero2"))
    ],
)
def test_momentum_that_is_made_orthogonal_goes_on_from_any_mesh_on_any_other(ranks, tmp_path, writer, reader):
    alone = World(0, 1, torch.device("cpu"))
    straight = torch.tensor(train(alone, "vit", {}, "muon", steps=LAST), dtype=torch.float64)[FIRST:]
    on(ranks, writer, write, tmp_path, "vit", "muon")
    for found, _ in on(ranks, reader, go_on, tmp_path, "vit", "muon"):
        torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), straight, rtol=1e-5, atol=0)
