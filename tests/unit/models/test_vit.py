"""The trunk: its blocks against their formula, its configuration against nonsense."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.core.seeding import seed_step
from sciml.models.vit import Block, DropPath, ViT, ViTConfig
from sciml.nn.initialization import initialize

CONFIG = ViTConfig(embed_dim=12, depth=3, num_heads=3, condition_dim=5)


def test_conditioned_block_equals_its_formula():
    torch.manual_seed(0)
    block = Block(CONFIG).double()
    torch.nn.init.normal_(block.modulation.linear.weight)
    x, condition = torch.randn(2, 4, 12, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    parts = condition @ block.modulation.linear.weight.T + block.modulation.linear.bias
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = parts.view(2, 6, 1, 12).unbind(1)
    y = x + gate_a * block.attention(F.layer_norm(x, (12,)) * (1 + scale_a) + shift_a)
    y = y + gate_m * block.mlp(F.layer_norm(y, (12,)) * (1 + scale_m) + shift_m)
    torch.testing.assert_close(block(x, condition), y)


def test_conditioned_blocks_start_as_identity():
    trunk = ViT(CONFIG)
    initialize(trunk, 0)
    x = torch.randn(2, 4, 12)
    for block in trunk.blocks:
        assert torch.equal(block(x, torch.randn(2, 5)), x)


def test_unconditioned_trunk_takes_tokens_alone():
    trunk = ViT(replace(CONFIG, conditioning="none"))
    initialize(trunk, 0)
    x = torch.randn(2, 4, 12)
    y = x
    for block in trunk.blocks:
        y = block(y)
        assert not torch.equal(y, x)
    torch.testing.assert_close(trunk(x), F.layer_norm(y, (12,)))


def test_a_stage_is_a_slice_of_blocks():
    torch.manual_seed(0)
    trunk = ViT(CONFIG)
    for parameter in trunk.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, condition = torch.randn(2, 4, 12), torch.randn(2, 5)
    staged = x
    for stage in (trunk.blocks[:1], trunk.blocks[1:]):
        for block in stage:
            staged = block(staged, condition)
    assert torch.equal(trunk.finish(staged, condition), trunk(x, condition))


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
    seed_step(0, 0)
    drop = DropPath(0.25)
    factors = drop(torch.ones(4000, 2, 3))
    assert factors.shape == (4000, 1, 1)
    assert factors.mean().item() == pytest.approx(1.0, abs=0.05)
    assert (factors > 0).float().mean().item() == pytest.approx(0.75, abs=0.03)
    drop.eval()
    assert drop(torch.ones(4000, 2, 3)) is None


def test_a_block_leaves_out_whole_samples():
    seed_step(0, 1)
    block = Block(ViTConfig(embed_dim=8, num_heads=2, conditioning="none", condition_on=()), drop_path=0.75).train()
    x = torch.randn(50, 4, 8)
    unchanged = (block(x) == x).flatten(1)
    assert torch.equal(unchanged.any(dim=1), unchanged.all(dim=1))
    assert unchanged.all(dim=1).float().mean().item() == pytest.approx(0.75**2, abs=0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"embed_dim": 100, "num_heads": 3},
            r"model\.num_heads must divide model\.embed_dim, got 3 and 100; .*1, 2, 4, 5, 10",
        ),
        ({"embed_dim": 9, "num_heads": 3}, r"model\.num_heads: heads of 3 channels cannot be rotated"),
        ({"mlp": "gelo"}, r"model\.mlp must be one of gelu, swiglu, .*did you mean 'gelu'"),
        ({"qk_norm": "layers"}, r"model\.qk_norm must be one of .*did you mean 'layer'"),
        ({"conditioning": "adaln"}, r"model\.conditioning must be one of .*did you mean 'adaln_zero'"),
        ({"recompute": "ful"}, r"model\.recompute must be one of .*did you mean 'full'"),
        ({"depth": 0}, r"model\.depth must be at least 1, got 0; try model\.depth=4"),
        ({"mlp_ratio": -1.0}, r"model\.mlp_ratio must be above 0, got -1\.0; try model\.mlp_ratio=4\.0"),
        ({"head_depth": -1}, r"model\.head_depth must be at least 0, got -1; try model\.head_depth=2"),
        ({"dropout": 1.0}, r"model\.dropout must be below 1, got 1\.0; try model\.dropout=0"),
        ({"condition_on": ()}, r"model\.condition_on: nothing to condition on"),
    ],
)
def test_bad_configuration_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        build(ViTConfig, {**vars(CONFIG), **change}, prefix="model")


def test_configuration_is_built_from_plain_values():
    config = build(ViTConfig, {"embed_dim": 64, "rotary_axes": ["longitude"]}, prefix="model")
    assert config == ViTConfig(embed_dim=64, rotary_axes=("longitude",))


def test_plan_fits_every_variant():
    for change in ({}, {"mlp": "swiglu"}, {"conditioning": "none"}, {"qk_norm": "none"}):
        ViT.plan.styles(ViT(replace(CONFIG, **change)))
