"""A grid that is seen tile by tile: what lies within the halo counts, and nothing beyond."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from sciml.core.errors import ConfigError
from sciml.models.tiles import Tiles
from sciml.models.uvit import UViTConfig
from sciml.nn.topology import Plane, Side
from sciml.planning.op_meter import Meter
from tests.unit.models.test_field_models import CONFIGS, PLANES, drawn, fields_of, inputs_of

# Every token attends to itself alone, so the model sees no further than its convolutions.
LOCAL = replace(CONFIGS["uvit"], token_convs=0, attention="window", window=(1, 1), rotary_axes=())
GLOBAL = replace(CONFIGS["uvit"], rotary_axes=("z", "x"))


class NoNorm(nn.Module):
    def forward(self, x, topology):
        return x


def without_means(model):
    """Leaves out the normalizations of convolutions, which know the mean over a tile."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, NoNorm())
    return model


@pytest.mark.parametrize(("tiles", "grid"), [((2, 4), (16, 32)), ((1, 3), (16, 24)), ((3, 1), (24, 16))])
def test_a_model_that_sees_no_further_than_the_halo_gives_the_same(tiles, grid):
    everywhere = Plane((Side.PERIODIC,) * 2, (Side.PERIODIC,) * 2)
    inputs = inputs_of(fields_of(*grid), everywhere)
    whole, tiled = (without_means(drawn(config))(inputs) for config in (LOCAL, replace(LOCAL, tiles=tiles, halo=4)))
    torch.testing.assert_close(tiled, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("topology", PLANES.values(), ids=PLANES)
def test_far_from_edges_it_does_not_matter_what_lies_beyond_them(topology):
    inputs = inputs_of(fields_of(48, 48), topology)
    whole, tiled = (without_means(drawn(config))(inputs) for config in (LOCAL, replace(LOCAL, tiles=(2, 2), halo=4)))
    inner = slice(16, -16)
    torch.testing.assert_close(tiled[..., inner, inner], whole[..., inner, inner], rtol=1e-10, atol=1e-12)


def test_what_lies_beyond_the_halo_is_out_of_sight():
    model, fields = drawn(replace(GLOBAL, tiles=(1, 4), halo=1)), fields_of(8, 64, count=1)
    changed = fields.clone()
    changed[..., 32] += 1
    differs = (model(inputs_of(changed)) - model(inputs_of(fields))).abs().amax((0, 1, 2)) > 0
    # The third of four tiles has the column, the halo of the second has it too.
    assert differs[16:48].all()
    assert not differs[:16].any()
    assert not differs[48:].any()
    everywhere = drawn(GLOBAL)
    assert ((everywhere(inputs_of(changed)) - everywhere(inputs_of(fields))).abs().amax((0, 1, 2)) > 0).all()


@pytest.mark.parametrize(("rows", "columns"), [(16, 32), (13, 30), (10, 17)])
def test_any_grid_is_cut_and_joined(rows, columns):
    fields = fields_of(rows, columns)
    tiles = Tiles((rows, columns), (2, 3), 2, 4)
    inputs = inputs_of(fields)
    cut = tiles.cut(inputs)
    assert len(cut.fields) == 2 * 6
    assert torch.equal(tiles.join(cut.fields), fields)
    for name, angle in inputs.angles.items():
        assert torch.equal(tiles.join(cut.angles[name][:, None])[0, 0], angle)
    assert cut.scalars["lead_time"].tolist() == [10.0] * 6 + [20.0] * 6


def test_attention_costs_as_many_times_more_as_there_are_tiles():
    def attention(config, columns):
        meter = Meter()
        model, inputs = drawn(config), inputs_of(fields_of(16, columns, count=1))
        with meter:
            model(inputs)
        return meter.attention

    tiled = replace(GLOBAL, tiles=(1, 2), halo=1)
    assert attention(replace(tiled, tiles=(1, 4)), 128) == 2 * attention(tiled, 64)
    assert attention(GLOBAL, 128) == 4 * attention(GLOBAL, 64)


def test_tiles_that_a_grid_cannot_have_are_refused():
    for tiles in ((3, 1), (1, 9)):
        with pytest.raises(ConfigError, match=r"model.tiles: 8 rows and 32 columns cannot be cut into"):
            drawn(replace(GLOBAL, tiles=tiles, halo=0))(inputs_of(fields_of(8, 32)))
    with pytest.raises(ConfigError, match="with halos of 12 cells"):
        drawn(replace(GLOBAL, tiles=(1, 2), halo=3))(inputs_of(fields_of(8, 32)))
    with pytest.raises(ConfigError, match=r"model\.tiles must be two numbers"):
        UViTConfig(tiles=(2,))
