"""Indicators: against their formulas, and where they point."""

from __future__ import annotations

import pytest
import torch

from domains.fluids.amr.forest import PatchGeometry
from domains.fluids.amr.indicators import INDICATORS, OUTSIDE, LearnedIndicator
from domains.fluids.data.boundary import Boundary
from sciml.core.errors import ConfigError

from .flows import BOX, CHANNELS, evidence, flow

PERIODIC = Boundary.of("periodic", "periodic")
GEOMETRY = PatchGeometry((16, 32), (8, 4))


def patches(cells: torch.Tensor, size: int) -> torch.Tensor:
    """(..., node, cell) of (..., z, x)."""
    cut = cells.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))
    return cut.transpose(-3, -2).flatten(-4, -3).flatten(-2)


def wave(rows: int = 16, columns: int = 32) -> torch.Tensor:
    x = torch.arange(columns, dtype=torch.float64) * 2 * torch.pi / columns
    z = torch.arange(rows, dtype=torch.float64) * 2 * torch.pi / rows
    return torch.stack([f * torch.ones(rows, columns) for f in (x.sin(), x.cos(), (2 * x).sin(), z.cos()[:, None])])


@pytest.mark.parametrize("level", [0, 1])
def test_variance_is_that_inside_a_patch(level):
    fields = flow()
    expected = patches(fields, GEOMETRY.patch_sizes[level]).var(-1, correction=0).mean(1)
    torch.testing.assert_close(INDICATORS["variance"](evidence(fields), GEOMETRY, level), expected)


def test_increment_and_oracle_are_changes():
    fields, other = flow(seed=0), flow(seed=1)
    expected = patches((other - fields).square(), 8).mean((1, 3))
    torch.testing.assert_close(INDICATORS["increment"](evidence(fields, previous=other), GEOMETRY, 0), expected)
    torch.testing.assert_close(INDICATORS["oracle"](evidence(fields, truth=other), GEOMETRY, 0), expected)


def test_gradient_and_vorticity_are_central_differences():
    fields = wave()[None]
    along_x = (fields.roll(-1, -1) - fields.roll(1, -1)) / 2
    along_z = (fields.roll(-1, -2) - fields.roll(1, -2)) / 2
    given = evidence(fields, PERIODIC)
    squares = (along_x.square() + along_z.square()).mean(1)
    torch.testing.assert_close(INDICATORS["gradient"](given, GEOMETRY, 1), patches(squares, 4).mean(-1))
    curl = (along_x[:, 2] - along_z[:, 1]).square()
    torch.testing.assert_close(INDICATORS["vorticity"](given, GEOMETRY, 1), patches(curl, 4).mean(-1))


def test_gradient_at_an_edge_follows_the_boundary():
    fields = flow()
    periodic, walled = (INDICATORS["gradient"](evidence(fields, kind), GEOMETRY, 1) for kind in (PERIODIC, BOX))
    differs = (periodic - walled).abs().view(2, 4, 8).amax(0) > 1e-6
    assert differs[0].all()
    assert differs[:, 0].all()
    assert not differs[1:-1, 1:-1].any()


@pytest.mark.parametrize("name", [name for name in INDICATORS if name not in ("random", "learned")])
def test_every_indicator_points_to_the_rough_spot(name):
    generator = torch.Generator().manual_seed(0)
    fields = 0.01 * flow(3)
    truth = fields.clone()
    for sample, node in enumerate((0, 5, 7)):
        row, column = divmod(node, 4)
        spot = 2.0 * torch.randn(4, 8, 8, generator=generator, dtype=torch.float64)
        fields[sample, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += spot
        truth[sample, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] -= spot
    scores = INDICATORS[name](evidence(fields, previous=truth, truth=truth, residual=fields - truth), GEOMETRY, 0)
    assert scores.argmax(1).tolist() == [0, 5, 7]
    assert (scores >= 0).all()


def test_hybrid_adds_relative_terms_that_are_known():
    fields, before = flow(seed=0), flow(seed=1)
    given = evidence(fields, previous=before)

    def relative(name):
        scores = INDICATORS[name](given, GEOMETRY, 0)
        return scores / scores.mean(1, keepdim=True)

    hybrid = INDICATORS["hybrid"]
    expected = relative("variance") + relative("vorticity")
    torch.testing.assert_close(hybrid(evidence(fields), GEOMETRY, 0), expected)
    torch.testing.assert_close(hybrid(given, GEOMETRY, 0), expected + relative("increment"))
    windless = evidence(fields[:, :1])
    scores = INDICATORS["variance"](windless, GEOMETRY, 0)
    torch.testing.assert_close(hybrid(windless, GEOMETRY, 0), scores / scores.mean(1, keepdim=True))


def test_random_is_a_function_of_the_state_alone():
    fields = flow(3)
    scores = INDICATORS["random"](evidence(fields), GEOMETRY, 1)
    assert torch.equal(INDICATORS["random"](evidence(fields.flip(0)), GEOMETRY, 1).flip(0), scores)
    assert ((scores >= 0) & (scores < 1)).all()
    assert scores.std(1).min() > 0.2
    correlation = torch.corrcoef(torch.cat([scores, INDICATORS["random"](evidence(fields + 1e-3), GEOMETRY, 1)]))
    assert (correlation - torch.eye(6)).abs().max() < 0.6
    assert len(scores.unique()) == scores.numel()


@pytest.mark.parametrize("name", [name for name in INDICATORS if name != "learned"])
def test_cells_outside_the_grid_do_not_count(name):
    fields, geometry = flow(rows=9, columns=19), PatchGeometry((9, 19), (8, 4))
    other = flow(rows=9, columns=19, seed=1)
    scores = INDICATORS[name](evidence(fields, previous=other, truth=other, residual=other), geometry, 1).view(2, 4, 6)
    assert (scores[:, :3, :5] >= 0).all()
    assert (scores[:, 3:] == OUTSIDE).all()
    assert (scores[:, :, 5:] == OUTSIDE).all()
    if name == "variance":
        torch.testing.assert_close(scores[:, 2, 4], fields[:, :, 8:, 16:].flatten(2).var(2, correction=0).mean(1))


def test_learned_scores_lie_between_zero_and_one_and_learn():
    torch.manual_seed(0)
    indicator = LearnedIndicator().double()
    fields = flow(rows=9, columns=19).requires_grad_()
    scores = indicator(evidence(fields), PatchGeometry((9, 19), (8, 4)), 1)
    inside = scores != OUTSIDE
    assert inside.view(2, 4, 6)[:, :3, :5].all()
    assert inside.sum() == 2 * 15
    assert ((scores[inside] > 0) & (scores[inside] < 1)).all()
    scores[inside].square().sum().backward()
    assert all(parameter.grad.any() for parameter in indicator.parameters())
    assert fields.grad is None


@pytest.mark.parametrize(
    ("name", "channels", "message"),
    [
        ("increment", 4, r"model\.indicator: the frame before is not known"),
        ("oracle", 4, r"model\.indicator: the truth is not known"),
        ("vorticity", 2, r"model\.indicator: there is no vorticity of dens, uwnd; use variance"),
    ],
)
def test_what_cannot_be_known_is_refused(name, channels, message):
    with pytest.raises(ConfigError, match=message):
        INDICATORS[name](evidence(flow()[:, :channels]), GEOMETRY, 0)


def test_winds_are_found_by_name():
    fields = flow()
    given = evidence(fields)
    turned = evidence(fields.flip(1))
    turned = type(turned)(turned.fields, CHANNELS[::-1], turned.boundaries)
    scores = (INDICATORS["vorticity"](each, GEOMETRY, 0) for each in (given, turned))
    torch.testing.assert_close(*scores)
