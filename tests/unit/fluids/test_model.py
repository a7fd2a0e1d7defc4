"""The flow model: persistence at first, any grid, mixture of cases and variables, symmetric where it should be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from domains.fluids.amr.config import AMRConfig
from domains.fluids.amr.forest import PatchGeometry
from domains.fluids.amr.indicator_inputs import patch_means
from domains.fluids.amr.refinement import grow
from domains.fluids.amr.transformer import AMRViT
from domains.fluids.data.boundary import Boundary
from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.models.vit import ViT
from sciml.parallel.degrees import check_cut

from .flows import BOX, CHANNEL_FLOW, CHANNELS, SMALL, config, evidence, filled, flow, lead, model

VARIANTS = [
    {},
    {"ratios": (), "budgets": ()},
    {"ratios": (4,), "budgets": (0.5,), "coupling": "one_way"},
    {"ratios": (2, 2, 2), "budgets": (0.75, 0.75, 0.5), "coupling": "none", "balance": True},
    {"threshold": 0.3, "buffer": 1},
    {"indicator": "learned"},
    {"conditioning": "none", "rotary_axes": (), "position_features": ()},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_untrained_model_is_persistence(changes):
    out = model(trained=False, **changes)(flow(rows=11, columns=21), None, lead(), CHANNEL_FLOW)
    assert out.shape == (2, 4, 11, 21)
    assert not out.any()


@pytest.mark.parametrize("changes", VARIANTS)
def test_every_parameter_is_used(changes):
    made = model(**changes).train()
    made(flow(), None, lead(), CHANNEL_FLOW).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("changes", VARIANTS)
def test_samples_do_not_depend_on_order_or_company(changes):
    made = model(**changes)
    fields = flow(3)
    kinds = [CHANNEL_FLOW, BOX, Boundary.of(("wall", "open"), "wall")]
    with torch.no_grad():
        out = made(fields, None, lead(3), kinds)
        turned = made(fields.flip(0), None, lead(3).flip(0), kinds[::-1])
        torch.testing.assert_close(turned.flip(0), out, rtol=1e-9, atol=1e-9)
        for sample in range(3):
            one = slice(sample, sample + 1)
            alone = made(fields[one], None, lead(3)[one], kinds[sample])
            torch.testing.assert_close(alone, out[one], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("changes", [each for each in VARIANTS if each.get("rotary_axes") != ()])
def test_a_flow_moved_by_whole_patches_has_a_forecast_moved_with_it(changes):
    made, fields = model(**changes), flow()
    with torch.no_grad():
        out = made(fields, None, lead(), CHANNEL_FLOW, previous=fields * 0.9)
        moved = made(fields.roll(24, -1), None, lead(), CHANNEL_FLOW, previous=fields.roll(24, -1) * 0.9)
        elsewhere = made(fields.roll(3, -1), None, lead(), CHANNEL_FLOW)
    # Features of conditions and positions are made in float32.
    torch.testing.assert_close(moved, out.roll(24, -1), rtol=1e-5, atol=1e-5)
    assert (elsewhere - out.roll(3, -1)).abs().max() > 1e-2


def test_boundary_changes_the_forecast_through_ghost_cells():
    made = model(rotary_axes=(), position_features=())
    fields = flow()
    found = made.forest(made.evidence(fields, None, CHANNEL_FLOW))
    blind = model(rotary_axes=(), position_features=(), ghost_cells=0)
    with torch.no_grad():
        one, other = (made(fields, None, lead(), kind, forest=found) for kind in (CHANNEL_FLOW, BOX))
        assert (one - other).abs().amax((1, 2, 3)).min() > 1e-4
        one, other = (blind(fields, None, lead(), kind, forest=found) for kind in (CHANNEL_FLOW, BOX))
        assert torch.equal(one, other)


def test_budget_of_nothing_is_the_plain_transformer():
    """The same blocks on the coarsest patches alone, through the trunk's own forward pass."""
    made, fields = model(budgets=(0.0, 0.0)), flow()
    plain = model(ratios=(), budgets=())
    kept = set(plain.state_dict())
    plain.load_state_dict({name: value for name, value in made.state_dict().items() if name in kept})
    flow_pass = plain.forward_pass(fields, None, lead(), CHANNEL_FLOW)
    tokens, condition = flow_pass.embed()
    assert tokens.shape[1] == 8
    trunk = ViT(plain.config).double().eval()
    trunk.load_state_dict(plain.trunk.state_dict())
    pixels = plain.head.project[0](
        torch.nn.functional.gelu(plain.head.hidden[0](trunk(tokens, condition, flow_pass.context[0]))), CHANNELS
    )
    by_hand = pixels.view(2, 2, 4, 4, 8, 8).permute(0, 3, 1, 4, 2, 5).reshape(2, 4, 16, 32)
    out = made(fields, None, lead(), CHANNEL_FLOW)
    torch.testing.assert_close(out, by_hand)
    torch.testing.assert_close(plain(fields, None, lead(), CHANNEL_FLOW), by_hand)


def test_another_resolution_takes_the_same_weights():
    made = model()
    fine = flow(rows=32, columns=64)
    with torch.no_grad():
        out = made(fine, None, lead(), CHANNEL_FLOW)
        found = made.forest(made.evidence(fine, None, CHANNEL_FLOW))
    assert out.shape == (2, 4, 32, 64)
    assert [level.num_tokens for level in found.levels] == [32, 32, 64]
    assert out.std() > 0.1


def test_grid_that_patches_do_not_divide_is_padded_by_the_boundary():
    """A flow of 12 rows between open ends is one of 16 whose last rows repeat, as far as tokens can tell."""
    ends = Boundary.of("periodic", "open")
    made = model(budgets=(1.0, 1.0), rotary_axes=(), position_features=())
    fields = flow(rows=12)
    longer = torch.cat([fields, fields[:, :, -1:].expand(-1, -1, 4, -1)], dim=2)
    short = made.forward_pass(fields, None, lead(), ends).embed()[0]
    full = made.forward_pass(longer, None, lead(), ends).embed()[0]
    torch.testing.assert_close(short, full)
    with torch.no_grad():
        out = made(fields, None, lead(), ends)
        again = made(fields, None, lead(), Boundary.of("periodic", "wall"))
    assert out.shape == fields.shape
    assert (out - again).abs().max() > 1e-3


def test_finer_levels_leave_the_means_of_coarse_patches():
    made, fields = model(), flow(rows=13, columns=29)
    with torch.no_grad():
        out = made(fields, None, lead(), CHANNEL_FLOW)
        for projection in made.head.project[1:]:
            projection.weight.zero_()
            projection.bias.zero_()
        coarse = made(fields, None, lead(), CHANNEL_FLOW)
    geometry = PatchGeometry((13, 29), (8,))
    means = [patch_means(each, geometry, 0)[0] for each in (out, coarse)]
    torch.testing.assert_close(*means, rtol=0, atol=1e-12)
    assert (out - coarse).abs().max() > 1e-2


def test_cell_size_matters_to_a_model_that_is_conditioned_on_it():
    told, fields = model(condition_on=("lead_time", "cell_size")), flow()
    with torch.no_grad():
        fine, coarse = (
            told(fields, None, lead(), CHANNEL_FLOW, cell_size=torch.full((2,), size)) for size in (100.0, 200.0)
        )
        assert (fine - coarse).abs().max() > 1e-4
        assert torch.equal(
            model()(fields, None, lead(), CHANNEL_FLOW, cell_size=torch.ones(2)),
            model()(fields, None, lead(), CHANNEL_FLOW),
        )


def test_lead_time_and_the_frame_before_matter():
    made, fields = model(indicator="increment"), flow()
    with torch.no_grad():
        out = made(fields, None, lead(), CHANNEL_FLOW, previous=flow(seed=3))
        later = made(fields, None, lead() + torch.tensor([0.0, 10.0]), CHANNEL_FLOW, previous=flow(seed=3))
        other = made(fields, None, lead(), CHANNEL_FLOW, previous=flow(seed=4))
    torch.testing.assert_close(out[0], later[0])
    assert (out - later)[1].abs().max() > 1e-4
    assert (out - other).abs().max() > 1e-4
    with pytest.raises(ConfigError, match="the frame before is not known"):
        made(fields, None, lead(), CHANNEL_FLOW)


def test_oracle_looks_at_the_truth_only_to_refine():
    made, fields = model(indicator="oracle"), flow()
    with torch.no_grad():
        out = made(fields, None, lead(), CHANNEL_FLOW, truth=flow(seed=3))
        scaled = made(fields, None, lead(), CHANNEL_FLOW, truth=fields + 2 * (flow(seed=3) - fields))
        other = made(fields, None, lead(), CHANNEL_FLOW, truth=flow(seed=4))
    torch.testing.assert_close(out, scaled)
    assert (out - other).abs().max() > 1e-4


def test_several_physics_share_a_model():
    """A batch may hold any of the variables, in any order, and another's are not touched."""
    made = model(channels=(*CHANNELS, "tracer"))
    fields = flow()
    with torch.no_grad():
        out = made(fields, CHANNELS, lead(), CHANNEL_FLOW)
        turned = made(fields.flip(1), CHANNELS[::-1], lead(), CHANNEL_FLOW)
        one = made(fields, CHANNELS, lead(), CHANNEL_FLOW, output_names=("theta",))
        passive = made(fields[:, :1], ("tracer",), lead(), BOX)
    torch.testing.assert_close(turned.flip(1), out, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(one, out[:, 3:])
    assert passive.shape == (2, 1, 16, 32)
    with pytest.raises(ConfigError, match=r"data\.variables: the model has no variable 'tracers'"):
        made(fields[:, :1], ("tracers",), lead(), BOX)


def test_rows_of_variables_are_named():
    made, fewer = model(channels=("theta", "tracer")), model()
    rows = fewer.variable_rows()
    with torch.no_grad():
        for name, channels in made.variable_rows().items():
            ours, theirs = (m.get_parameter(name).view(len(n), -1) for m, n in ((made, channels), (fewer, rows[name])))
            ours[0] = theirs[CHANNELS.index("theta")]
        for name, parameter in made.named_parameters():
            if name not in rows:
                parameter.copy_(fewer.get_parameter(name))
        fields = flow()[:, 3:]
        out = fewer(fields, ("theta",), lead(), CHANNEL_FLOW)
        torch.testing.assert_close(made(fields, ("theta",), lead(), CHANNEL_FLOW), out)


def test_hysteresis_follows_the_forest_before():
    made = model(hysteresis=100.0, indicator="random")
    fields = flow()
    first = made.forest(made.evidence(fields, None, CHANNEL_FLOW))
    second = made.forest(made.evidence(flow(seed=5), None, CHANNEL_FLOW), before=first)
    free = made.forest(made.evidence(flow(seed=5), None, CHANNEL_FLOW))
    assert torch.equal(second.is_refined(0), first.is_refined(0))
    assert not torch.equal(free.is_refined(0), first.is_refined(0))
    with torch.no_grad():
        given = made(flow(seed=5), None, lead(), CHANNEL_FLOW, before=first)
        decided = made(flow(seed=5), None, lead(), CHANNEL_FLOW, forest=second)
    assert torch.equal(given, decided)


def test_learned_choice_is_gated_alike_with_and_without_gradients():
    made, fields = model(indicator="learned"), flow()
    with torch.no_grad():
        out = made(fields, None, lead(), CHANNEL_FLOW)
    torch.testing.assert_close(made(fields, None, lead(), CHANNEL_FLOW), out)
    with torch.no_grad():
        made.indicator.second.bias.add_(3.0)
        assert (made(fields, None, lead(), CHANNEL_FLOW) - out).abs().max() > 1e-3


def test_a_rollout_can_be_learned_through():
    """The state of the second step depends on the parameters; what is refined is decided without gradients."""
    made, fields = model(), flow().requires_grad_()
    state = fields + made(fields, None, lead(), CHANNEL_FLOW)
    (state + made(state, None, lead(), CHANNEL_FLOW, previous=fields)).square().sum().backward()
    assert torch.isfinite(fields.grad).all()
    assert made.forest(made.evidence(state, None, CHANNEL_FLOW)).levels[0].gates is None


def test_threshold_without_a_limit_that_bites_is_the_budget():
    """Masked tokens change nothing: a full budget, reached by threshold, equals the dense one."""
    fields = flow()
    dense = model(ratios=(2,), budgets=(0.5,))
    masked = model(ratios=(2,), budgets=(1.0,), threshold=0.0)
    wanted = dense.forest(evidence(fields))
    scores = wanted.is_refined(0).double()
    geometry = wanted.geometry
    sparse = grow(masked.config, geometry, lambda level: scores, evidence(fields).periodic)
    assert sparse.num_tokens == 8 + 8 * 4
    assert sparse.mask.sum(1).tolist() == [8 + 4 * 4] * 2
    out = dense(fields, None, lead(), CHANNEL_FLOW, forest=wanted)
    torch.testing.assert_close(masked(fields, None, lead(), CHANNEL_FLOW, forest=sparse), out, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_recompute_changes_nothing(mode):
    gradients = []
    for recompute in ("none", mode):
        made = model(recompute=recompute, threshold=0.3).train()
        made(flow(), None, lead(), CHANNEL_FLOW).square().sum().backward()
        gradients.append([parameter.grad for parameter in made.parameters()])
    for want, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_head_stays_float32_under_autocast():
    made, fields = filled(AMRViT(config(), CHANNELS)).eval(), flow().float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = made(fields, None, lead(), CHANNEL_FLOW)
    assert out.dtype == torch.float32
    with torch.no_grad():
        exact = made(fields, None, lead(), CHANNEL_FLOW)
    assert (out - exact).square().mean().sqrt() < 0.05 * exact.std()


@pytest.mark.parametrize("changes", VARIANTS)
def test_every_module_has_exactly_one_rule(changes):
    made = model(**changes)
    AMRViT.plan.styles(made)
    check_cut(AMRViT.plan, made, matrices=3, tokens=1, stages=2)


def test_it_is_built_on_the_meta_device():
    with torch.device("meta"):
        made = AMRViT(config(), CHANNELS)
    assert all(parameter.is_meta for parameter in made.parameters())
    assert not list(made.buffers())


def test_configuration_is_built_from_plain_values():
    found = build(AMRConfig, {**SMALL, "ratios": [2, 2], "budgets": [0.25, 0.5]}, prefix="model")
    assert found == config()
    assert found.patch_sizes == (8, 4, 2)
    assert replace(found, ratios=(4,), budgets=(0.5,)).patch_sizes == (8, 2)
