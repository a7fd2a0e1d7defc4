"""Coupling between levels: against loops, and what each kind lets through."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from domains.fluids.amr.coupling import Coupling
from domains.fluids.amr.token_shard import TokenShard
from sciml.models.vit import Block
from sciml.nn.initialization import initialize

from .flows import CHANNEL_FLOW as BOUNDARY
from .flows import filled, flow, lead, model
from .test_forest import forest


def couple(two_way: bool) -> Coupling:
    torch.manual_seed(0)
    coupling = Coupling(6, two_way).double()
    initialize(coupling, 0)
    return filled(coupling)


def by_loops(coupling: Coupling, x: torch.Tensor, found) -> torch.Tensor:
    out = x.clone()

    def told(linear, value):
        return F.linear(F.layer_norm(value, (6,)), linear.weight, linear.bias)

    for sample in range(len(x)):
        for index, level in enumerate(found.levels[:-1]):
            start, below = found.offsets[index], found.offsets[index + 1]
            count = found.geometry.num_children(index)
            for slot, place in enumerate(level.refined[sample].tolist()):
                if level.refines is not None and not level.refines[sample, slot]:
                    continue
                children = range(below + slot * count, below + (slot + 1) * count)
                for child in children:
                    out[sample, child] += told(coupling.down, x[sample, start + place])
                if coupling.up is not None:
                    out[sample, start + place] += told(coupling.up, x[sample, list(children)].mean(0))
    return out


@pytest.mark.parametrize("two_way", [False, True])
@pytest.mark.parametrize("changes", [{}, {"ratios": (4,), "budgets": (0.5,)}, {"threshold": 0.3}])
def test_coupling_is_what_loops_say(two_way, changes):
    coupling, found = couple(two_way), forest(flow(2), **changes)
    x = torch.randn(2, found.num_tokens, 6, dtype=torch.float64)
    out, expected = coupling(x, found, TokenShard(0, found.num_tokens, 0)), by_loops(coupling, x, found)
    present = slice(None) if found.mask is None else found.mask
    torch.testing.assert_close(out[present], expected[present])
    assert (out - x).abs().max() > 0.1


def test_coupling_starts_as_identity():
    coupling, found = Coupling(6, True), forest(flow(2))
    initialize(coupling, 0)
    x = torch.randn(2, found.num_tokens, 6)
    assert torch.equal(coupling(x, found, TokenShard(0, found.num_tokens, 0)), x)


@pytest.mark.parametrize("kind", ["none", "one_way", "two_way"])
def test_blocks_without_attention_let_through_what_the_coupling_says(kind):
    """With silent attention, a refined coarse token learns of its children in the two-way kind alone."""
    made = model(coupling=kind, depth=1)
    for parameter in made.trunk.blocks[0].attention.parameters():
        torch.nn.init.zeros_(parameter)
    fields = flow()
    found = made.forest(made.evidence(fields, None, BOUNDARY))
    flow_pass = made.forward_pass(fields, None, lead(), BOUNDARY, forest=found)
    tokens, condition = flow_pass.embed()
    changed = tokens.clone()
    fine, parent = found.offsets[1], found.levels[0].refined[0, 0]
    changed[0, fine : fine + 4] += 1.0 + torch.arange(tokens.shape[-1])
    one, other = (flow_pass.run_blocks(made.trunk.blocks, (each, condition))[0] for each in (tokens, changed))
    heard = (one - other).abs().amax(-1)[0] > 1e-9
    assert heard[parent] == (kind == "two_way")
    changed = tokens.clone()
    changed[0, parent] += 1.0 + torch.arange(tokens.shape[-1])
    other = flow_pass.run_blocks(made.trunk.blocks, (changed, condition))[0]
    heard = (one - other).abs().amax(-1)[0] > 1e-9
    assert bool(heard[fine : fine + 4].all()) == (kind != "none")
    assert not heard[fine + 4 : found.offsets[2]].any()


def test_kinds_differ_and_none_is_the_blocks_alone():
    fields, outputs = flow(), {}
    for kind in ("none", "one_way", "two_way"):
        made = model(coupling=kind)
        outputs[kind] = made(fields, None, lead(), BOUNDARY)
        if kind == "none":
            flow_pass = made.forward_pass(fields, None, lead(), BOUNDARY)
            tokens, condition = flow_pass.embed()
            rotary = flow_pass.context[0]
            alone = flow_pass.head(_trunk_alone(made, tokens, condition, rotary), condition)
            torch.testing.assert_close(outputs[kind], alone, rtol=0, atol=0)
    assert (outputs["none"] - outputs["one_way"]).abs().max() > 1e-3
    assert (outputs["one_way"] - outputs["two_way"]).abs().max() > 1e-3


def _trunk_alone(made, tokens, condition, rotary):
    """The plain blocks of the shared ViT, with the same weights, without what a domain adds."""
    for block in made.trunk.blocks:
        plain = Block(made.config).double().eval()
        plain.load_state_dict(block.state_dict())
        tokens = plain(tokens, condition, rotary)
    return tokens
