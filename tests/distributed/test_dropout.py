"""Dropout on every axis: masks differ wherever ranks hold different things, and losses have the same distribution."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from domains.climate.model.forecaster import ClimateViT
from sciml.core.seeding import seed_step
from sciml.distributed.axes import Role
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.models.vit import DropPath, ViTConfig
from sciml.parallel.config import ParallelConfig
from sciml.parallel.model import parallelize
from sciml.training.engine import NativeEngine
from tests.distributed.cases import LATITUDE, LONGITUDE, OPTIMIZERS, FieldTask, away_from_zero, fields, share

MESHES: dict[str, dict[str, Any]] = {
    "tp": {"tp": 2},
    "sp": {"sp": 2},
    "pp": {"pp": 2},
    "dp": {"dp": 2},
    "shard": {"shard": 2, "zero": 3},
}
STEPS = 40
CONFIG = ViTConfig(
    embed_dim=16, depth=4, num_heads=4, patch_size=2, rotary_max_harmonic=2, condition_dim=8, dropout=0.5, drop_path=0.5
)


def vit() -> nn.Module:
    return ClimateViT(CONFIG, ["a", "b", "c"], latitude=LATITUDE, longitude=LONGITUDE)


def train(world: World, degrees: dict[str, Any], steps: int, recompute: str = "none") -> tuple[Tensor, dict, dict]:
    """Losses and gradient norms of steps that change nothing, and the masks and the factors of drop path, by block."""
    config = ParallelConfig(**degrees)
    mesh = Mesh(world, config.degrees(world.size))

    def build() -> nn.Module:
        return ClimateViT(replace(CONFIG, recompute=recompute), ["a", "b", "c"], latitude=LATITUDE, longitude=LONGITUDE)

    model = parallelize(build, mesh, config, seed=3, start=away_from_zero)
    engine = NativeEngine(model, OPTIMIZERS["sgd"])
    masks: dict[str, list[Tensor]] = {}
    paths: dict[str, list[Tensor]] = {}

    def note_mask(name: str, inputs: Tensor, output: Tensor) -> None:
        masks.setdefault(name, []).append(((output == 0) & (inputs != 0)).detach())

    for name, module in model.module.named_modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda m, inputs, out, name=name: note_mask(name, inputs[0], out))
        elif isinstance(module, DropPath) and module.probability:
            module.register_forward_hook(lambda m, inputs, out, name=name: paths.setdefault(name, []).append(out))
    found = []
    for step in range(steps):
        seed_step(1, step, world.rank, shared=(mesh.data_rank, mesh.rank(Role.STAGE)))
        output = engine.train_step(FieldTask(), share(fields(0), mesh), 0.0)
        found.append((output.loss, output.grad_norm))
    return torch.tensor(found), *({name: torch.stack(of) for name, of in noted.items()} for noted in (masks, paths))


def agreement(one: Tensor, other: Tensor) -> float:
    count = min(len(one), len(other))  # stages may be tried before a step
    return (one[:count] == other[:count]).float().mean().item()


@pytest.mark.parametrize("mesh", MESHES)
def test_masks_differ_where_ranks_hold_different_things(ranks, mesh):
    (found, masks, paths), (others, other_masks, other_paths) = ranks(2).run(train, MESHES[mesh], 1)
    for one, other in zip(sorted(masks), sorted(other_masks), strict=True):  # in a pipeline: at the same place
        assert 0.4 < masks[one].float().mean() < 0.6
        assert 0.4 < agreement(masks[one], other_masks[other]) < 0.6
    torch.testing.assert_close(found, others, rtol=1e-5, atol=0)
    if mesh in ("tp", "sp"):  # both hold tokens or heads of the same samples, which are left out as a whole
        assert all(torch.equal(paths[name], other_paths[name]) for name in paths)
    else:
        drawn, other = (torch.cat([factors.flatten() for factors in of.values()]) for of in (paths, other_paths))
        assert agreement(drawn, other) < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_losses_have_the_distribution_of_one_process(ranks, mesh):
    alone = train(World(0, 1, torch.device("cpu")), {}, STEPS)[0][:, 0]
    found = ranks(2).run(train, MESHES[mesh], STEPS)[0][0][:, 0]
    error = ((alone.var() + found.var()) / STEPS).sqrt()
    assert error > 0
    assert abs(alone.mean() - found.mean()) < 4 * error
    assert 0.5 < alone.std() / found.std() < 2


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_what_is_computed_again_is_dropped_again(ranks, recompute):
    kept, again = (ranks(2).run(train, MESHES["tp"], 1, mode)[0][0] for mode in ("none", recompute))
    # Gradients of what is computed again round differently; other masks would change them by some percent.
    torch.testing.assert_close(again, kept, rtol=1e-3, atol=0)
