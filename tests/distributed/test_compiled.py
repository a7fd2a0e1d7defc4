"""Tests that compiled blocks train as others do, however the model is cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sciml.core.compiler import can_compile
from sciml.distributed.world import World
from sciml.models.compiled import blocks_of, compile_blocks
from sciml.training.engine import NativeEngine
from tests.distributed import cases
from tests.distributed.test_parity import MESHES, alone, size_of

CUT = ("dp2", "tp2", "sp2", "cp2", "pp2", "zero3", "tp2-zero3", "tp2-pp2")


def train(world: World, case: str, degrees: dict[str, Any], traced_only: bool) -> Any:
    """Losses and gradient norms of some steps with blocks that are compiled, or only traced."""
    compile_function = torch.compile
    if traced_only:
        torch.compile = lambda function, **_: compile_function(function, backend="aot_eager")
    try:
        cases.NativeEngine = _compiled
        return cases.train(world, case, degrees, "sgd")
    finally:
        torch.compile, cases.NativeEngine = compile_function, NativeEngine


def _compiled(model: Any, *args: Any) -> NativeEngine:
    assert blocks_of(model.module)
    compile_blocks(model.module)
    return NativeEngine(model, *args)


@pytest.mark.parametrize(
    ("mesh", "traced_only"),
    [pytest.param(mesh, True, marks=[pytest.mark.slow] if mesh != "tp2" else []) for mesh in CUT]
    + [pytest.param("tp2", False, marks=pytest.mark.slow), pytest.param("pp2", False, marks=pytest.mark.slow)],
)
def test_compiled_blocks_train_as_others_do(ranks, mesh, traced_only):
    if not traced_only and not can_compile(torch.device("cpu")):
        pytest.skip("no C++ compiler here")
    expected = alone("vit", "sgd")
    for found in ranks(size_of(MESHES[mesh])).run(train, "vit", MESHES[mesh], traced_only):
        torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected, rtol=1e-5, atol=0)
