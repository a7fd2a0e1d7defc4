"""The decoder-only transformer: causal, tied, rotated by distance, of the published sizes, and checked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.models.gpt import GPT, GPTConfig
from sciml.nn.position import rotate, sequence_rotary
from sciml.parallel.degrees import check_cut
from sciml.parallel.plan import ShardingPlan
from sciml.run.compose import compose
from sciml.run.spec import RunSpec

SMALL = GPTConfig(embed_dim=12, depth=2, num_heads=3, context=10, vocabulary_size=17)


def model(config: GPTConfig = SMALL) -> GPT:
    """A GPT in float64 with weights large enough for every path to matter."""
    torch.manual_seed(0)
    found = GPT(config).double().eval()
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return found


def words(batch: int = 2, count: int = 9) -> torch.Tensor:
    return torch.randint(0, SMALL.vocabulary_size, (batch, count), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_a_later_token_changes_nothing_before_it(positions):
    gpt, tokens = model(replace(SMALL, positions=positions)), words()
    other = tokens.clone()
    other[:, 5] = (other[:, 5] + 1) % SMALL.vocabulary_size
    one, two = gpt(tokens), gpt(other)
    assert torch.equal(one[:, :5], two[:, :5])
    assert (one[:, 5:] != two[:, 5:]).flatten(2).any(2).all()


def test_an_earlier_token_changes_everything_behind_it():
    gpt, tokens = model(), words()
    other = tokens.clone()
    other[:, 2] = (other[:, 2] + 1) % SMALL.vocabulary_size
    assert ((gpt(tokens) - gpt(other))[:, 2:].abs().amax(2) > 1e-9).all()


def test_the_loss_is_the_cross_entropy_of_the_logits():
    gpt, tokens, targets = model(), words(), words().flip(1)
    expected = F.cross_entropy(gpt(tokens).transpose(1, 2), targets, reduction="none")
    torch.testing.assert_close(gpt(tokens, targets), expected)


def test_the_loss_is_float32_whatever_the_logits_are_and_finite_for_large_ones():
    gpt = GPT(SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        assert gpt(words(), words()).dtype == torch.float32
    gpt = model()
    gpt.head.weight.data *= 1e4
    assert torch.isfinite(gpt(words(), words())).all()


def test_a_tied_embedding_is_one_parameter_with_both_gradients():
    tied, untied = model(), model(replace(SMALL, tied_embedding=False))
    untied.load_state_dict({**tied.state_dict(), "head.weight": tied.embed.weight.detach().clone()})
    assert "head.weight" not in dict(tied.named_parameters())
    for gpt in (tied, untied):
        gpt(words(), words().flip(1)).mean().backward()
    torch.testing.assert_close(tied.embed.weight.grad, untied.embed.weight.grad + untied.head.weight.grad)


def test_a_tied_embedding_starts_as_one_of_its_name():
    torch.manual_seed(5)
    tied = GPT(SMALL)
    torch.manual_seed(5)
    untied = GPT(replace(SMALL, tied_embedding=False))
    assert torch.equal(tied.embed.weight, untied.embed.weight)
    assert not torch.equal(untied.head.weight, untied.embed.weight)


def test_rotations_depend_on_distances_alone():
    generator = torch.Generator().manual_seed(2)
    query, key = (torch.randn(1, 1, 1, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    rotary = sequence_rotary(40, 8)
    queries, keys = (rotate(x.expand(1, 40, 1, 8), rotary)[0, :, 0] for x in (query, key))
    products = queries @ keys.T
    for distance in (0, 1, 7):
        torch.testing.assert_close(
            products.diagonal(distance), products[0, distance].expand(40 - distance), rtol=0, atol=1e-5
        )
    assert (products.diagonal(1) - products.diagonal(0)[:-1]).abs().min() > 1e-3
    angle = torch.atan2(rotary.sin, rotary.cos)[1, 0]
    torch.testing.assert_close(angle, 10000.0 ** -torch.tensor([0, 0.25, 0.5, 0.75]))


def test_a_forward_pass_cut_between_its_blocks_is_the_same():
    gpt, tokens, targets = model(), words(), words().flip(1)
    forward_pass = gpt.forward_pass(tokens, targets)
    activations = forward_pass.embed()
    for block in gpt.trunk.blocks:
        activations = gpt.forward_pass(tokens, targets).run_blocks([block], activations)
    assert torch.equal(gpt.forward_pass(tokens, targets).head(*activations), gpt(tokens, targets))


def num_parameters(config: GPTConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in GPT(config).parameters())


def test_parameters_are_as_many_as_the_formula_says():
    width, depth, seen, vocabulary = 96, 5, 40, 300
    config = GPTConfig(
        embed_dim=width, depth=depth, num_heads=4, positions="learned", context=seen, vocabulary_size=vocabulary
    )
    formula = 12 * depth * width**2 * (1 + 13 / (12 * width) + (vocabulary + seen) / (12 * depth * width)) + 2 * width
    assert num_parameters(config) == round(formula)


@pytest.mark.parametrize(("name", "billions"), [("22b", 22.07), ("175b", 174.6), ("1t", 1008.0)])
def test_published_shapes_have_their_sizes(name, billions):
    config = RunSpec.build(compose("train", ["domain=language", f"model=gpt_{name}"]).config).model
    assert num_parameters(config) / 1e9 == pytest.approx(billions, rel=1e-3)


def test_weights_start_as_in_gpt2():
    gpt = GPT(GPTConfig(embed_dim=128, depth=8))
    for name, expected in {"attention.wq": 0.02, "mlp.up": 0.02, "attention.wo": 0.005, "mlp.down": 0.005}.items():
        assert gpt.get_parameter(f"trunk.blocks.3.{name}.weight").std().item() == pytest.approx(expected, rel=0.05)
    assert gpt.embed.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_words_out_of_the_vocabulary_are_not_taken_for_nothing():
    with pytest.raises(IndexError):
        model()(torch.full((1, 3), SMALL.vocabulary_size))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 5}, "model.num_heads must divide model.embed_dim, got 5 and 12; try one of 1, 2, 3, 4, 6, 12"),
        ({"num_heads": 4}, "model.num_heads: heads of 3 channels cannot be rotated"),
        ({"positions": "sine"}, "model.positions must be one of rotary, learned, got 'sine'"),
        ({"context": 0}, "model.context must be at least 1, got 0; try model.context=128"),
        ({"vocabulary_size": -1}, "model.vocabulary_size must be at least 1, got -1; try model.vocabulary_size=256"),
        ({"mlp": "relu"}, "model.mlp must be one of gelu, swiglu, got 'relu'"),
        ({"dropout": 1.5}, "model.dropout must be below 1, got 1.5; try model.dropout=0"),
    ],
)
def test_nonsense_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(GPTConfig, {**vars(SMALL), **changes}, prefix="model")


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        (17, "parallel.tp: 3 ranks cannot share a vocabulary of 17 words evenly; degrees that work: 1"),
        (18, None),
    ],
)
def test_a_vocabulary_that_ranks_cannot_share_is_refused(vocabulary, message):
    plan: ShardingPlan = GPT.plan
    gpt = GPT(replace(SMALL, vocabulary_size=vocabulary))
    if message is None:
        check_cut(plan, gpt, matrices=3)
        return
    with pytest.raises(ConfigError, match=message):
        check_cut(plan, gpt, matrices=3)
