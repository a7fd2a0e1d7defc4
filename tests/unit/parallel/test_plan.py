"""Sharding plans as tables."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sciml.core.errors import ConfigError
from sciml.models.field_model import Variables
from sciml.models.gpt import GPT, GPTConfig
from sciml.models.uvit import UViT, UViTConfig
from sciml.nn.conditioning import WaveEncoding
from sciml.parallel.config import ParallelConfig
from sciml.parallel.degrees import check_cut
from sciml.parallel.model import cut
from sciml.parallel.plan import ShardingPlan, Style, cut_dim, owners
from sciml.planning.fake_mesh import fake_mesh

PLAN = ShardingPlan({"blocks.*.w[qk]": Style.COLUMN, "blocks.*.wo": "row", "head": "replicate"})


@pytest.mark.parametrize(
    ("name", "style"), [("blocks.0.wq", Style.COLUMN), ("blocks.11.wo", Style.ROW), ("head", Style.REPLICATE)]
)
def test_style_of(name, style):
    assert PLAN.style_of(name) is style


@pytest.mark.parametrize("name", ["blocks.0.wv", "blocks.0.deep.wq", "wq", "head.0"])
def test_module_without_rule_is_refused(name):
    with pytest.raises(ValueError, match="no rule for module"):
        PLAN.style_of(name)


def test_module_with_two_rules_is_refused():
    with pytest.raises(ValueError, match=r"2 rules \(a\.\*, \*\.b\)"):
        ShardingPlan({"a.*": "row", "*.b": "column"}).style_of("a.b")


def test_unknown_style_is_refused():
    with pytest.raises(ValueError, match="diagonal"):
        ShardingPlan({"a": "diagonal"})


def test_plans_nest_and_join():
    joined = PLAN.within("trunk") | ShardingPlan({"stem": "sequence"})
    assert joined.style_of("trunk.blocks.3.wk") is Style.COLUMN
    assert joined.style_of("stem") is Style.REPLICATE_PARTIAL_GRAD
    tied = ShardingPlan({}, tied={"head.weight": "embed.weight"})
    assert (joined | tied.within("inner")).tied == {"inner.head.weight": "inner.embed.weight"}
    with pytest.raises(ValueError, match="no rule"):
        joined.style_of("head")


@pytest.mark.parametrize(
    ("style", "weight", "bias"),
    [(Style.COLUMN, 0, 0), (Style.ROW, 1, None), (Style.REPLICATE_PARTIAL_GRAD, None, None),
     (Style.REPLICATE, None, None), (Style.VOCABULARY, 0, 0)],
)  # fmt: skip
def test_cut_dims(style, weight, bias):
    assert cut_dim(style, "weight") == weight
    assert cut_dim(style, "bias") == bias


def test_owners_are_modules_with_parameters_of_their_own():
    model = nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Sequential(nn.LayerNorm(2)))
    assert [name for name, _ in owners(model)] == ["0", "2.0"]


def test_check_names_degrees_that_work():
    model = nn.Sequential(nn.Linear(3, 12), nn.Linear(12, 5))
    plan = ShardingPlan({"0": "column", "1": "row"})
    check_cut(plan, model, matrices=6)
    with pytest.raises(ConfigError, match=r"parallel.tp: 5 ranks .*degrees that work: 1, 2, 3, 4, 6, 12"):
        check_cut(plan, model, matrices=5)


def test_check_names_the_vocabulary_that_cannot_be_shared():
    model = nn.Sequential(nn.Linear(4, 30), nn.Linear(4, 8))
    plan = ShardingPlan({"0": "vocabulary", "1": "column"})
    check_cut(plan, model, matrices=2)
    with pytest.raises(ConfigError, match=r"parallel.tp: 4 ranks cannot share a vocabulary of 30 words .*work: 1, 2"):
        check_cut(plan, model, matrices=4)
    with pytest.raises(ConfigError, match=r"parallel.tp: 3 ranks cannot share the model's heads and channels"):
        check_cut(plan, model, matrices=3)


@pytest.mark.parametrize(
    ("heads", "says"), [(1, "1 attention head of keys and values evenly; .*work: 1$"), (2, "2 attention heads of keys")]
)
def test_check_names_the_heads_of_keys_that_cannot_be_shared(heads, says):
    with torch.device("meta"):
        model = GPT(GPTConfig(embed_dim=32, depth=1, num_heads=4, num_kv_heads=heads, vocabulary_size=16))
    check_cut(GPT.plan, model, matrices=heads)
    with pytest.raises(ConfigError, match=f"parallel.tp: 4 ranks cannot share {says}"):
        check_cut(GPT.plan, model, matrices=4)


def test_ranks_share_the_channels_between_two_convolutions():
    """Groups that are normalized together stay whole on a rank."""
    config = UViTConfig(embed_dim=48, num_heads=12, conv_width=24, token_convs=1, head_depth=0, rotary_axes=())
    with torch.device("meta"):
        model = UViT(config, Variables(("a", "b"), ("a",), {"lead_time": WaveEncoding(100.0, 10.0, 4)}, ()))
    check_cut(UViT.plan, model, matrices=4)
    with pytest.raises(ConfigError, match=r"degrees that work: 1, 2, 4"):
        check_cut(UViT.plan, model, matrices=3)  # divides the channels, but not the groups of them
    with fake_mesh({"tp": 4}) as mesh:
        cut(model, mesh, ParallelConfig(tp=4))
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if name.startswith("down.0.")}
        assert shapes["down.0.first.weight"] == (6, 24, 3, 3)
        assert shapes["down.0.middle_norm.weight"] == shapes["down.0.first.bias"] == (6,)
        assert shapes["down.0.second.weight"] == (24, 6, 3, 3)
        assert shapes["down.0.second.bias"] == shapes["down.0.norm.weight"] == (24,)
