"""Facts of a model from passes on a fake mesh, beside formulas and beside passes that are real."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from domains.climate.model.forecaster import ClimateViT
from domains.fluids.amr.config import AMRConfig
from domains.fluids.amr.transformer import AMRViT
from domains.materials.training.heads import TargetConfig
from domains.materials.training.potential import MaterialsGNN
from sciml.models.gnn import GNNConfig
from sciml.models.vit import ViTConfig
from sciml.nn.topology import Sphere
from sciml.nn.window import windows_on
from sciml.planning.costs import AffineCost
from sciml.planning.degrees import Degrees
from sciml.planning.model_facts import ModelFacts
from tests.distributed.cases import LATITUDE, LONGITUDE, FieldTask, fields
from tests.distributed.test_volume import model
from tests.unit.planning.models import small

DIM, TOKENS, CONDITION, DEPTH = 16, 15, 8, 4
GRID = {"latitude": (67.5, 22.5, -22.5, -67.5), "longitude": tuple(60.0 * i for i in range(6))}
MODELS = {
    "climate": lambda: ClimateViT(ViTConfig(embed_dim=32, num_heads=4, patch_size=2), ("a", "b"), ("c",), **GRID),
    "materials": lambda: MaterialsGNN(GNNConfig(num_channels=16), (24, 26), {"energy": TargetConfig(kind="energy")}),
    "fluids": lambda: AMRViT(AMRConfig(embed_dim=32, num_heads=4), ("dens", "uwnd", "wwnd", "theta")),
}


@dataclass
class Nothing:
    """A batch of which nobody asks anything."""

    values: Tensor


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_of_a_real_build(name):
    facts = ModelFacts(name, MODELS[name], lambda *_: None, lambda n: Nothing(torch.zeros(n, 3)))
    real = MODELS[name]()
    assert facts.parameters == sum(parameter.numel() for parameter in real.parameters())
    assert facts.batch_bytes == 12
    whole, half = facts.layout(1), facts.layout(2)
    total = [p.embed.numel + sum(block.numel for block in p.blocks) + p.head.numel for p in (whole, half)]
    assert total[0] == facts.parameters
    assert total[1] == facts.parameters - facts.cut_parameters() // 2
    assert len(whole.blocks) == facts.depth == {"climate": 4, "materials": 0, "fluids": 4}[name]


def test_operations_of_a_block_are_those_of_the_formula():
    """24 n d^2 of matrices, 4 n^2 d of attention, and the modulation's 12 c d."""
    block = small().profile(1, 1, "fp32", "none").block
    forward, backward = block.forward.flops, block.backward.flops
    modulation = 12 * CONDITION * DIM
    assert forward == AffineCost(per_sample=24 * TOKENS * DIM**2 + 4 * TOKENS**2 * DIM + modulation)
    # twice in the matrices; attention computes its weights once more
    assert backward(1) == 2 * forward(1) + 2 * TOKENS**2 * DIM


@pytest.mark.parametrize(("recompute", "times"), [("selective", 0), ("full", 1)])
def test_computing_again_costs_what_it_must(recompute, times):
    """No product, or a whole forward pass: the gate of a block's last branch needs what that gave."""
    plain, again = (small().profile(1, 1, "fp32", how).block for how in ("none", recompute))
    more = again.backward.flops(1) - plain.backward.flops(1)
    assert more == times * plain.forward.flops(1)
    assert again.backward.other_bytes(1) > plain.backward.other_bytes(1)
    assert again.backward.kernels > plain.backward.kernels


def test_attention_counts():
    assert small().attention_flops() == DEPTH * 4 * TOKENS**2 * DIM


@pytest.mark.parametrize(("every", "share"), [(None, 0.0), (2, 0.5), (4, 0.25)])
def test_attention_within_windows_costs_what_its_windows_do(every, share):
    """Plain windows of 3 x 5 tokens are of 1 or 2 x 2 or 3; shifted ones meet around and not over poles."""
    config = ViTConfig(
        embed_dim=DIM, depth=DEPTH, num_heads=4, patch_size=2, rotary_max_harmonic=2, condition_dim=CONDITION,
        attention="window", window=(2, 3), global_every=every,
    )  # fmt: skip
    build = partial(ClimateViT, config, ["a", "b", "c"], latitude=LATITUDE, longitude=LONGITUDE)
    facts = ModelFacts("window", build, FieldTask().loss, lambda samples: fields(0)[:samples])
    plain, shifted = (
        sum(number * size**2 for number, size in partition.sizes) for partition in windows_on(Sphere(), (3, 5), (2, 3))
    )
    assert plain == sum(rows**2 * columns**2 for rows in (1, 2) for columns in (2, 3))
    assert facts.global_blocks == share
    pairs = share * TOKENS**2 + (1 - share) * (plain + shifted) / 2
    assert facts.attention_flops() == pytest.approx(DEPTH * 4 * pairs * DIM)
    block, whole = (f.profile(1, 1, "fp32", "none").block.forward.flops(1) for f in (facts, small()))
    shifted_share = share * TOKENS**2 + (1 - share) * shifted  # the second of the profiled blocks
    assert whole - block == pytest.approx(4 * (TOKENS**2 - shifted_share) * DIM)


def test_tokens_calls_and_blocks():
    facts = small()
    assert (facts.tokens, facts.calls, facts.depth, facts.loss_parts) == (TOKENS, 1, DEPTH, 1)
    assert facts.profile(1, 1, "fp32", "none").stage_activations == (4.0 * TOKENS * DIM, 4.0 * CONDITION)


@pytest.mark.parametrize("samples", [1, 3])
def test_what_is_kept_is_what_autograd_saves_in_a_real_pass(samples):
    real = model("none")
    known = {parameter.untyped_storage().data_ptr() for parameter in real.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = FieldTask().loss(real, fields(0)[:samples])
    profile = small().profile(1, 1, "fp32", "none")
    predicted = (
        profile.embed.saved_activations(samples)
        + DEPTH * profile.block.saved_activations(samples)
        + profile.head.saved_activations(samples)
    )
    assert predicted == pytest.approx(sum(saved.values()), rel=0.03)
    assert output.loss.isfinite()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recomputing_keeps_less_and_needs_more_besides(precision):
    blocks = {mode: small().profile(1, 1, precision, mode).block for mode in ("none", "selective", "full")}
    sizes = [block.saved_activations(2) for block in blocks.values()]
    assert sizes == sorted(sizes, reverse=True)
    width = 4 if precision == "fp32" else 2
    assert (
        blocks["full"].saved_activations(2) <= 2 * 1.1 * width * TOKENS * DIM
    )  # the input of the next block, and little else
    assert blocks["full"].backward_workspace(2) > blocks["none"].backward_workspace(2)


def test_half_precision_keeps_weights_that_it_has_cast():
    """Two bytes for each number of a block's matrices, whatever the batch; with full recomputation none."""
    numel = sum(p.numel() for p in model("none").trunk.blocks[0].parameters() if p.ndim == 2 and len(p) > 4)
    none, full = (small().profile(1, 1, "bf16", mode).block for mode in ("none", "full"))
    assert none.cast_weights.fixed == pytest.approx(2 * numel, rel=0.1)
    assert full.saved_activations.fixed == 0
    assert none.forward.cast_bytes.fixed > 5.9 * numel  # four bytes read, two written


@pytest.mark.parametrize(("tp", "sp", "cp"), [(4, 1, 1), (1, 4, 1), (2, 2, 1), (1, 1, 8), (2, 4, 2)])
def test_degrees_between_the_corners_are_met(tp, sp, cp):
    """With 16 tokens, which all degrees divide, and two heads a rank at least, corners tell all work."""
    config = ViTConfig(embed_dim=32, depth=2, num_heads=8, patch_size=2, condition_dim=8, rotary_max_harmonic=2)
    grid = {"latitude": [78.75 - 22.5 * i for i in range(8)], "longitude": [45.0 * i for i in range(8)]}
    build = partial(ClimateViT, config, ["a", "b", "c"], **grid)

    def batch(samples: int):
        one = fields(0)[:samples]
        one.inputs = one.targets = torch.zeros(samples, 3, 8, 8)
        return one

    facts = ModelFacts("square", build, FieldTask().loss, batch)
    found = facts.profile(tp, sp, "fp32", "none", cp)
    there = facts.exact_profile(Degrees(tp, sp, cp), "fp32", "none")
    for part in ("embed", "block", "head"):
        ours, real = getattr(found, part), getattr(there, part)
        assert ours.forward.flops(2) == pytest.approx(real.forward.flops(2))
        assert ours.backward.flops(2) == pytest.approx(real.backward.flops(2))
        assert (tp, sp) != (1, 1) or ours.forward.kernels == real.forward.kernels
        for name in ("forward_messages", "backward_messages"):
            counts = {key: (c.calls, c.bytes, c.wire_bytes) for key, c in getattr(real, name).items()}
            assert {key: (c.calls, c.bytes, c.wire_bytes) for key, c in getattr(ours, name).items()} == counts
    # One rank has no exchanges, whose copies others have: along sp a corner without is a few percent too high.
    for part in ("block", "head"):
        assert (
            -0.01
            < getattr(found, part).saved_activations(2) / getattr(there, part).saved_activations(2) - 1
            < (0.08 if sp > 2 else 0.01)
        )


def test_a_model_without_a_plan_has_no_blocks_and_cannot_be_cut():
    facts = ModelFacts("plain", lambda: nn.Linear(3, 2), lambda *_: None, lambda n: Nothing(torch.zeros(n)))
    assert (facts.parameters, facts.depth, facts.cut_parameters(), facts.recomputes) == (8, 0, 0, ("none",))
