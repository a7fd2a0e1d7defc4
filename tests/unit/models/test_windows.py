"""Models whose tokens attend within windows: on the sphere, in planes, with options that contradict each other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from domains.climate.model.field_model import ClimateFieldModel
from domains.climate.model.forecaster import ClimateViT
from domains.fluids.amr.config import AMRConfig
from domains.fluids.data.boundary import Boundary
from domains.fluids.field_model import FlowFieldModel
from sciml.core.errors import ConfigError
from sciml.models.uvit import UViTConfig
from sciml.models.vit import ViTConfig
from sciml.nn.topology import Side

COMMON = {
    "embed_dim": 16, "depth": 4, "num_heads": 2, "patch_size": 2, "condition_dim": 8, "condition_on": ("lead_time",),
    "position_features": ("latitude",), "rotary_axes": ("longitude",), "rotary_max_harmonic": 3,
    "attention": "window", "window": (2, 2),
}  # fmt: skip
LATITUDE = tuple(90.0 - 180 * (i + 0.5) / 10 for i in range(10))
LONGITUDE = tuple(360 * i / 16 for i in range(16))
NAMES = ("t500", "u500")


def started(model: nn.Module) -> nn.Module:
    """Returns the model in float64 with weights of which none are zero."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.double()


def kinds(**changes):
    grid = {"latitude": LATITUDE, "longitude": LONGITUDE}
    yield ClimateViT(ViTConfig(**{**COMMON, **changes}), NAMES, **grid)
    yield ClimateFieldModel(UViTConfig(**{**COMMON, **changes}, square=1, conv_width=8, token_convs=1), NAMES, **grid)


@pytest.mark.parametrize("which", [0, 1], ids=["vit", "uvit"])
@pytest.mark.parametrize("every", [None, 3])
def test_turning_the_planet_by_whole_windows_turns_the_forecast(which, every):
    model = started(list(kinds(global_every=every))[which])
    state = torch.randn(1, 2, 10, 16, dtype=torch.float64)
    lead = torch.tensor([72.0], dtype=torch.float64)
    found = model(state.roll(4, 3), None, lead, lead)
    torch.testing.assert_close(found, model(state, None, lead, lead).roll(4, 3), rtol=1e-9, atol=1e-9)


def test_news_spreads_by_windows_and_over_the_pole():
    """Two blocks: a token hears its window's neighbors, and beyond a pole those on the other side."""
    model = started(next(kinds(depth=2, window=(3, 2))))
    state = torch.randn(1, 2, 10, 32, dtype=torch.float64)
    where = {"longitude": tuple(360 * i / 32 for i in range(32))}
    lead = torch.tensor([72.0], dtype=torch.float64)
    other = state.clone()
    other[..., 0, 0] += 1
    change = (model(other, None, lead, lead, **where) - model(state, None, lead, lead, **where)).abs().sum((0, 1))
    heard = change.unflatten(1, (-1, 2)).sum(2).unflatten(0, (-1, 2)).sum(1) > 1e-12  # by tokens, 5 x 16
    assert heard[0].nonzero().flatten().tolist() == [0, 1, 2, 7, 8, 9, 10, 15]  # from 0 and 1, here and half a turn on
    assert not heard[-1].any()
    assert next(kinds(depth=3, global_every=3)).trunk.blocks[2].pattern == "global"


def test_samples_in_planes_of_their_own_have_windows_of_their_own():
    config = UViTConfig(**{**COMMON, "position_features": (), "rotary_axes": ()}, square=1, conv_width=8)
    model = started(FlowFieldModel(config, NAMES))
    boundaries = [Boundary((x, x), (Side.WALL, Side.WALL)) for x in (Side.PERIODIC, Side.OPEN)]
    state, lead = torch.randn(2, 2, 10, 14, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    together = model(state, None, lead, boundaries)
    for number, boundary in enumerate(boundaries):
        alone = model(state[number : number + 1], None, lead[:1], [boundary])
        torch.testing.assert_close(together[number : number + 1], alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (ViTConfig, {"window": (4,)}, r"model\.window must be rows and columns of tokens, got \[4\]"),
        (ViTConfig, {"global_every": 2}, r"model\.global_every: all blocks attend globally already"),
        (AMRConfig, {"attention": "window"}, r"model\.attention: patches of several sizes lie on no grid"),
    ],
)
def test_options_that_contradict_each_other_are_refused(config, changes, message):
    with pytest.raises(ConfigError, match=message):
        config(**changes)
