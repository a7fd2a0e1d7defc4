"""The climate model's sharding plan, executed by hand for two ranks on one process."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from domains.climate.model.forecaster import ClimateViT
from sciml.core.errors import ConfigError
from sciml.models.vit import ViTConfig
from sciml.nn.norm import HeadNorm
from sciml.parallel.degrees import check_cut
from sciml.parallel.plan import Style, cut_dim, owners

RANKS = 2
BASE = ViTConfig(embed_dim=32, depth=2, num_heads=4, patch_size=2, condition_dim=8)
GRID = {"latitude": (67.5, 22.5, -22.5, -67.5), "longitude": (0.0, 60.0, 120.0, 180.0, 240.0, 300.0)}
CONFIGS = [
    BASE,
    replace(BASE, mlp="swiglu", qk_norm="rms"),
    replace(BASE, conditioning="none", qk_norm="none", rotary_axes=()),
]


def make(config: ViTConfig) -> ClimateViT:
    torch.manual_seed(0)
    model = ClimateViT(config, ("z500", "t2m"), ("lsm",), **GRID).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def shard(model: nn.Module, plan, rank: int) -> dict[str, torch.Tensor]:
    """What a rank holds; the bias of a row cut is left out, because it is added once after the sum."""
    held = {}
    for name, module in owners(model):
        style = plan.style_of(name)
        for key, parameter in module.named_parameters(recurse=False):
            dim = cut_dim(style, key)
            held[f"{name}.{key}"] = parameter if dim is None else parameter.chunk(RANKS, dim)[rank]
            if style is Style.ROW and key == "bias":
                held[f"{name}.{key}"] = torch.zeros_like(parameter)
    return held


def summed(module: nn.Module, row: str, held: list[dict[str, torch.Tensor]], *inputs) -> torch.Tensor:
    """Outputs of a module with a row cut at its end, summed over ranks, the bias added once."""
    partials = [torch.func.functional_call(module, weights, inputs) for weights in held]
    return torch.stack(partials).sum(0) + module.get_submodule(row).bias


@pytest.mark.parametrize("config", CONFIGS)
def test_every_linear_has_exactly_one_rule(config):
    model = make(config)
    styles = ClimateViT.plan.styles(model)
    assert {name for name, module in model.named_modules() if isinstance(module, nn.Linear)} <= set(styles)
    assert all(isinstance(model.get_submodule(n), nn.Linear) for n, s in styles.items() if s is Style.ROW)


def test_every_rule_is_used_by_some_configuration():
    names = {name for config in CONFIGS for name, _ in owners(make(config))}
    for pattern, style in ClimateViT.plan.rules.items():
        single = type(ClimateViT.plan)({pattern: style})
        fits = 0
        for name in names:
            try:
                single.style_of(name)
                fits += 1
            except ValueError:
                pass
        assert fits, pattern


@pytest.mark.parametrize("config", CONFIGS)
def test_two_ranks_compute_what_one_does(config):
    """Tokenizer, attention and feed-forward part from the ranks' slices alone, summed where a row cut ends."""
    model = make(config)
    held = [shard(model, ClimateViT.plan, rank) for rank in range(RANKS)]
    inputs = torch.randn(2, 2, 4, 6, dtype=torch.float64), None, torch.tensor([24.0, 72.0]), torch.tensor([0.0, 7.0])
    constants = torch.randn(1, 4, 6, dtype=torch.float64)
    expected = model(*inputs, constants)

    def of(prefix: str) -> list[dict[str, torch.Tensor]]:
        cut = len(prefix) + 1
        return [{k[cut:]: v for k, v in h.items() if k.startswith(prefix + ".")} for h in held]

    def run_cut(prefix: str, row: str) -> None:
        module = model.get_submodule(prefix)
        whole = module.forward
        weights = of(prefix)

        def forward(*args):
            module.forward = whole
            try:
                return summed(module, row, weights, *args)
            finally:
                module.forward = forward

        module.forward = forward

    run_cut("tokenizer", "out")
    for i in range(config.depth):
        run_cut(f"trunk.blocks.{i}.attention", "wo")
        run_cut(f"trunk.blocks.{i}.mlp", "down")
    torch.testing.assert_close(model(*inputs, constants), expected, rtol=1e-9, atol=1e-9)


def test_slices_are_whole_heads():
    model = make(BASE)
    held = shard(model, ClimateViT.plan, 1)
    attention = model.trunk.blocks[0].attention
    assert isinstance(attention.query_norm, HeadNorm)
    torch.testing.assert_close(held["trunk.blocks.0.attention.query_norm.weight"], attention.query_norm.weight[2:])
    torch.testing.assert_close(
        held["trunk.blocks.0.attention.wq.weight"], attention.wq.weight.view(4, 8, 32)[2:].flatten(0, 1)
    )
    torch.testing.assert_close(
        held["trunk.blocks.0.attention.wo.weight"], attention.wo.weight.view(32, 4, 8)[:, 2:].flatten(1)
    )


def test_degree_is_checked_against_heads():
    model = make(BASE)
    check_cut(ClimateViT.plan, model, matrices=4)
    with pytest.raises(ConfigError, match=r"parallel.tp: 8 ranks .*degrees that work: 1, 2, 4"):
        check_cut(ClimateViT.plan, model, matrices=8)
