"""A rank keeps its share of what one process keeps: of what it gathers its part, of what ranks add up the sums."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.models.compiled import compile_blocks
from sciml.models.gpt import GPT, GPTConfig
from sciml.models.vit import Block
from sciml.nn.low_rank import add_low_rank
from sciml.parallel.config import ParallelConfig
from sciml.parallel.model import parallelize
from sciml.planning.op_meter import Meter

EMBED, DEPTH, HEADS, SAMPLES, TOKENS = 32, 3, 4, 2, 64
MESHES = {"tp2": {"tp": 2}, "tp2-sp2": {"tp": 2, "sp": 2}, "tp4": {"tp": 4}}


def model(recompute: str, rank: int = 0) -> nn.Module:
    gpt = GPT(GPTConfig(embed_dim=EMBED, depth=DEPTH, num_heads=HEADS, recompute=recompute))
    add_low_rank(gpt, rank)
    return gpt


def passed(
    world: World, degrees: dict[str, int], recompute: str, rank: int = 0, precision: torch.dtype | None = None
) -> tuple[float, dict[str, torch.Tensor], float]:
    """Returns the loss, this rank's gradients, and the bytes that the forward pass leaves of each block."""
    config = ParallelConfig(**degrees)
    cut: Any = parallelize(lambda: model(recompute, rank), Mesh(world, config.degrees(world.size)), config, seed=3)
    tokens = torch.randint(0, 200, (SAMPLES, TOKENS), generator=torch.Generator().manual_seed(1))
    parameters = dict(cut.module.named_parameters())
    meter = Meter([tokens, *parameters.values()], weights=parameters.values())
    for number, block in enumerate(m for m in cut.module.modules() if isinstance(m, Block)):
        block.register_forward_pre_hook(lambda *_, at=number: setattr(meter, "scope", ("forward", str(at))))
        block.register_forward_hook(lambda *_: setattr(meter, "scope", ("forward", "head")))
    with meter:
        with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
            loss = cut.module(tokens, tokens).mean()
        alive = dict(meter.alive)
        loss.backward()
    gradients = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
    return loss.item(), gradients, alive["1"]


def compiled(world: World, recompute: str) -> dict[str, torch.Tensor]:
    """Returns this rank's gradients with blocks that are traced as for the compiler."""
    compile_function = torch.compile
    config = ParallelConfig(tp=world.size)
    cut: Any = parallelize(lambda: model(recompute), Mesh(world, config.degrees(world.size)), config, seed=3)
    torch.compile = lambda function, **_: compile_function(function, backend="aot_eager")
    try:
        compile_blocks(cut.module)
    finally:
        torch.compile = compile_function
    tokens = torch.randint(0, 200, (SAMPLES, TOKENS), generator=torch.Generator().manual_seed(1))
    cut.module.train()(tokens, tokens).mean().backward()
    return {name.replace("_orig_mod.", ""): p.grad for name, p in cut.module.named_parameters()}


@pytest.mark.slow
def test_compiled_blocks_keep_their_sums_too(ranks):
    kept = ranks(2).run(passed, MESHES["tp2"], "none")
    for gradients, (_, others, _) in zip(ranks(2).run(compiled, "selective"), kept, strict=True):
        for name, gradient in others.items():
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("rank", [0, 2], ids=["plain", "low-rank"])
@pytest.mark.parametrize(
    "mesh", [pytest.param(mesh, marks=[pytest.mark.slow] if mesh != "tp2" else []) for mesh in MESHES]
)
def test_gradients_are_those_of_a_rank_that_keeps_all(ranks, mesh, rank):
    size = 2 if mesh == "tp2" else 4
    kept, again = (ranks(size).run(passed, MESHES[mesh], how, rank) for how in ("none", "selective"))
    for (loss, gradients, _), (expected, others, _) in zip(again, kept, strict=True):
        assert loss == expected
        assert gradients.keys() == others.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, others[name], rtol=1e-5, atol=1e-7, msg=name)


def test_a_rank_keeps_its_share_of_what_one_process_keeps(ranks):
    """Korthikanti et al. (2022), https://doi.org/10.48550/arXiv.2205.05198: all of it is cut over the ranks."""
    alone = passed(World(0, 1, torch.device("cpu")), {}, "selective", 0, torch.bfloat16)[2]
    numbers = SAMPLES * TOKENS * EMBED
    # In half precision: the block's input, queries, keys, values, mixtures, outputs, and 4 + 1 of the feed-forward
    # part, two bytes each.
    assert 20 <= alone / numbers < 24
    for _, _, cut in ranks(2).run(passed, MESHES["tp2"], "selective", 0, torch.bfloat16):
        assert cut == pytest.approx(alone / 2, rel=0.05)


@pytest.mark.parametrize("recompute", ["none", "attention"])
def test_of_what_it_gathers_a_rank_keeps_its_part(ranks, recompute):
    alone = passed(World(0, 1, torch.device("cpu")), {}, recompute, 0, torch.bfloat16)[2]
    for _, _, cut in ranks(2).run(passed, MESHES["tp2"], recompute, 0, torch.bfloat16):
        assert cut == pytest.approx(alone / 2, rel=0.05)
