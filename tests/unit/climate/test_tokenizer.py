"""The folded tokenizer is the plain one, written in fewer operations."""

from __future__ import annotations

import pytest
import torch

from domains.climate.model.tokenizer import PlainTokenizer, VariableTokenizer, fold
from sciml.core.errors import ConfigError
from sciml.nn.patch import patchify

NAMES = ("z500", "t850", "t2m", "u10", "lsm")
PATCH, DIM, HEADS = 2, 12, 3


@pytest.fixture
def plain() -> PlainTokenizer:
    torch.manual_seed(0)
    tokenizer = PlainTokenizer(NAMES, PATCH, DIM, HEADS).double()
    torch.nn.init.normal_(tokenizer.attention.in_proj_bias)  # zero by default, which would hide their part
    torch.nn.init.normal_(tokenizer.attention.out_proj.bias)
    return tokenizer


def folded(plain: PlainTokenizer, fields: torch.Tensor, names: tuple[str, ...] | None) -> torch.Tensor:
    tokenizer = VariableTokenizer(NAMES, PATCH, DIM, HEADS).double()
    return torch.func.functional_call(tokenizer, fold(plain), (patchify(fields, PATCH), names))


@pytest.mark.parametrize("names", [None, ("t2m", "z500"), ("u10",), ("lsm", "u10", "t2m", "t850", "z500")])
def test_equals_plain_form_in_values_and_gradients(plain, names):
    fields = torch.randn(2, len(names or NAMES), 4, 6, dtype=torch.float64, requires_grad=True)
    inputs = (fields, *plain.parameters())
    weight = torch.randn(2, 6, DIM, dtype=torch.float64)
    expected, actual = plain(fields, names), folded(plain, fields, names)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)

    wanted, gotten = (
        torch.autograd.grad((out * weight).sum(), inputs, allow_unused=True) for out in (expected, actual)
    )
    for (name, parameter), want, got in zip(plain.named_parameters(), wanted[1:], gotten[1:], strict=True):
        want, got = (torch.zeros_like(parameter) if g is None else g for g in (want, got))
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(gotten[0], wanted[0], rtol=1e-10, atol=1e-10)


def test_attention_is_not_uniform(plain):
    """Guards the test above: were the scores equal, a wrong softmax would pass."""
    fields = torch.randn(1, len(NAMES), 4, 6, dtype=torch.float64)
    uniform = {**fold(plain), "score.weight": torch.zeros(HEADS, DIM, dtype=torch.float64)}
    tokenizer = VariableTokenizer(NAMES, PATCH, DIM, HEADS).double()
    out = torch.func.functional_call(tokenizer, uniform, (patchify(fields, PATCH),))
    assert (out - plain(fields)).abs().max() > 0.1


def test_order_of_variables_does_not_matter():
    torch.manual_seed(0)
    tokenizer = VariableTokenizer(NAMES, PATCH, DIM, HEADS)
    torch.nn.init.normal_(tokenizer.embedding.weight)
    patches = torch.randn(2, 6, len(NAMES), PATCH**2)
    order = [3, 0, 4, 2, 1]
    torch.testing.assert_close(
        tokenizer(patches[:, :, order], [NAMES[i] for i in order]), tokenizer(patches), rtol=1e-5, atol=1e-6
    )


def test_unknown_variable_is_refused_with_the_nearest():
    tokenizer = VariableTokenizer(NAMES, PATCH, DIM, HEADS)
    with pytest.raises(ConfigError, match=r"no variable 't580'.*did you mean 't850'"):
        tokenizer(torch.randn(1, 6, 1, 4), ("t580",))
