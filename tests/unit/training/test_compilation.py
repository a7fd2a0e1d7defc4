"""Tests when blocks are compiled, and in which precision a training computes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sciml.core.errors import ConfigError
from sciml.distributed.mesh import Mesh
from sciml.models.vit import Block, ViTConfig
from sciml.training import compilation, precision
from sciml.training.compilation import PAYS_AFTER, WATCHED, Compilation, check_compile
from sciml.training.precision import chosen_precision

CPU = torch.device("cpu")


def blocks() -> nn.Module:
    return nn.ModuleList(Block(ViTConfig(embed_dim=8, num_heads=2, conditioning="none")) for _ in range(2))


def engine(module: nn.Module) -> SimpleNamespace:
    mesh = Mesh.alone()
    return SimpleNamespace(mesh=mesh, model=SimpleNamespace(mesh=mesh, module=module))


@pytest.fixture
def compiled(monkeypatch):
    """Models that were compiled."""
    found: list[nn.Module] = []
    monkeypatch.setattr(compilation, "compile_blocks", found.append)
    return found


def compiled_after(compiled, choice, seconds, steps_left, twice=False):
    """The step behind which blocks are compiled; None if never."""
    compiled.clear()
    one = Compilation(choice, engine(blocks()), SimpleNamespace(needs_double_backward=twice))
    for step in range(2 * WATCHED):
        if compiled:
            return step
        one.after_step(100.0 if step == 0 else seconds, steps_left - step)
    return None


def test_blocks_are_left_alone_or_compiled_at_once(compiled):
    assert compiled_after(compiled, False, 10.0, 10**6) is None
    assert compiled_after(compiled, True, 1e-3, 10) == 0


def test_blocks_are_compiled_where_the_time_left_pays(compiled):
    enough = int(2 * PAYS_AFTER)
    assert compiled_after(compiled, "auto", 1.0, enough) == WATCHED + 1
    assert compiled_after(compiled, "auto", 0.1, enough) is None


def refusal(model, twice=False):
    with pytest.raises(ConfigError, match=r"trainer\.compile") as caught:
        check_compile(True, engine(model).model, SimpleNamespace(needs_double_backward=twice))
    for choice in ("auto", False):
        check_compile(choice, engine(model).model, SimpleNamespace(needs_double_backward=twice))
    check_compile(True, engine(model).model, SimpleNamespace(needs_double_backward=twice), is_reference=True)
    return str(caught.value)


def test_what_cannot_be_compiled_is_left_alone_or_refused(compiled, monkeypatch):
    for choice in ("auto", True):
        assert compiled_after(compiled, choice, 10.0, 10**6, twice=True) is None
    assert "made of gradients" in refusal(blocks(), twice=True)
    assert "Linear has no transformer blocks" in refusal(nn.Linear(2, 2))
    monkeypatch.setattr(compilation, "can_compile", lambda device: False)
    assert "finds no compiler for cpu" in refusal(blocks())
    assert compiled_after(compiled, "auto", 10.0, 10**6) is None


def test_only_training_is_compiled(monkeypatch):
    calls = []

    def compiler(function, options):
        assert options == {"fallback_random": True}

        def call(*arguments):
            calls.append(len(arguments))
            return function(*arguments)

        return call

    monkeypatch.setattr(torch, "compile", compiler)
    block, tokens = blocks()[0], torch.randn(1, 4, 8)
    plain = block(tokens)
    names = [name for name, _ in block.named_parameters()]
    block.compile_tokens()
    assert [name for name, _ in block.named_parameters()] == names
    torch.testing.assert_close(block(tokens), plain)
    assert len(calls) == 1
    block.eval()(tokens)
    assert len(calls) == 1


def test_the_precision_follows_the_device_unless_it_is_named(monkeypatch):
    for fast, twice, expected in ((True, False, "bf16"), (True, True, "fp32"), (False, False, "fp32")):
        monkeypatch.setattr(precision, "multiplies_bf16", lambda device, fast=fast: fast)
        assert chosen_precision("auto", CPU, is_differentiated_twice=twice) == expected
        assert chosen_precision("fp16", CPU, is_differentiated_twice=twice) == "fp16"


@pytest.mark.parametrize(
    ("told", "expected"), [({"amx_bf16": True}, True), ({"avx512_f": True}, False), ({"bf16": True}, True), ({}, False)]
)
def test_processors_tell_whether_they_multiply_bf16(monkeypatch, told, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    assert precision.multiplies_bf16(CPU) is expected
