"""Models from fields to fields: persistence at first, any grid and variables, symmetric where their inputs are."""

from __future__ import annotations

import math

import pytest
import torch

from sciml.core.errors import ConfigError
from sciml.models.convnext_unet import ConvNeXtUNetConfig
from sciml.models.field_model import FieldInputs, Variables, mean_angle
from sciml.models.field_models import build_field_model
from sciml.models.fno import FNOConfig
from sciml.models.unet import UNetConfig
from sciml.models.uvit import UViTConfig
from sciml.nn.conditioning import WaveEncoding
from sciml.nn.initialization import initialize
from sciml.nn.topology import Plane, Side, Sphere

VARIABLES = Variables(("a", "b", "mask"), ("a", "b"), {"lead_time": WaveEncoding(100.0, 10.0, 4)}, ("z", "x"))
ON_Z = {"position_features": ("z",), "position_harmonics": 2, "condition_dim": 8}
CONFIGS = {
    "unet": UNetConfig(widths=(8, 16), **ON_Z),
    "unet of squares": UNetConfig(square=2, widths=(8, 16), **ON_Z),
    "convnext_unet": ConvNeXtUNetConfig(widths=(8, 16), kernel=5, **ON_Z),
    "fno": FNOConfig(width=8, depth=2, modes=(3, 4), **ON_Z),
    "uvit": UViTConfig(
        square=2, patch_size=4, conv_width=8, embed_dim=16, depth=2, num_heads=2, token_convs=1, head_depth=0,
        rotary_axes=("z", "x"), rotary_max_harmonic=2, **ON_Z,
    ),
}  # fmt: skip
PLANES = {
    "sphere": Sphere(),
    "channel": Plane((Side.PERIODIC,) * 2, (Side.WALL,) * 2),
    "open": Plane((Side.OPEN,) * 2, (Side.OPEN,) * 2),
}


def inputs_of(fields, topology=PLANES["channel"], names=None, outputs=None):
    rows, columns = fields.shape[-2:]
    z, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    angles = {"z": math.pi * z / rows, "x": 2 * math.pi * x / columns}
    scalars = {"lead_time": torch.arange(len(fields)) * 10.0 + 10}
    return FieldInputs(fields, names, outputs, scalars, angles, topology)


def drawn(config, dtype=torch.float64):
    """A model with random weights everywhere, also where it would start at zero."""
    model = build_field_model(config, VARIABLES).to(dtype)
    initialize(model, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=dtype))
    return model


def fields_of(rows=8, columns=16, count=2):
    return torch.randn(count, 3, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


each = pytest.mark.parametrize("kind", CONFIGS)


@each
@pytest.mark.parametrize("topology", PLANES.values(), ids=PLANES)
def test_an_untrained_model_says_that_nothing_changes(kind, topology):
    model = build_field_model(CONFIGS[kind], VARIABLES).double()
    initialize(model, 0)
    found = model(inputs_of(fields_of(), topology))
    assert found.shape == (2, 2, 8, 16)
    assert not found.any()


@each
def test_every_parameter_gets_a_gradient(kind):
    model = drawn(CONFIGS[kind])
    model(inputs_of(fields_of())).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@each
@pytest.mark.parametrize("topology", [PLANES["sphere"], PLANES["channel"]], ids=["sphere", "channel"])
def test_turning_the_state_by_a_patch_turns_the_forecast(kind, topology):
    model, fields = drawn(CONFIGS[kind]), fields_of()
    turned = model(inputs_of(fields.roll(4, -1), topology))
    torch.testing.assert_close(turned, model(inputs_of(fields, topology)).roll(4, -1), rtol=1e-6, atol=1e-6)


@each
@pytest.mark.parametrize(("rows", "columns"), [(16, 32), (10, 15), (9, 11)])
def test_the_same_weights_serve_other_grids(kind, rows, columns):
    found = drawn(CONFIGS[kind])(inputs_of(fields_of(rows, columns)))
    assert found.shape == (2, 2, rows, columns)
    assert found.isfinite().all()


@each
def test_any_variables_in_any_order(kind):
    model, fields = drawn(CONFIGS[kind]), fields_of()
    whole = model(inputs_of(fields))
    order = model(inputs_of(fields[:, [2, 0, 1]], names=("mask", "a", "b"), outputs=("b",)))
    torch.testing.assert_close(order, whole[:, 1:])
    assert model(inputs_of(fields[:, :1], names=("a",), outputs=("a", "b"))).shape == (2, 2, 8, 16)
    with pytest.raises(ConfigError, match="no variable 'c'"):
        model(inputs_of(fields[:, :1], names=("c",), outputs=("a",)))


@each
def test_the_lead_time_counts(kind):
    model, fields = drawn(CONFIGS[kind]), fields_of(count=1).expand(2, -1, -1, -1)
    one, other = model(inputs_of(fields))
    assert (one - other).abs().max() > 1e-3


def test_unknown_coordinates_and_scalars_are_refused():
    for changed in ({"position_features": ("latitude",)}, {"condition_on": ("time",)}):
        with pytest.raises(ConfigError, match="the data have no"):
            build_field_model(UNetConfig(**changed), VARIABLES)


def test_sizes_that_cannot_be_are_refused():
    for make, says in (
        (lambda: ConvNeXtUNetConfig(kernel=6), "a kernel of 6 cells has no middle"),
        (lambda: UNetConfig(widths=()), "must be widths of at least 1"),
        (lambda: UViTConfig(square=3, patch_size=4), "model.square"),
        (lambda: UViTConfig(modes=(3,)), "must be two numbers of waves"),
    ):
        with pytest.raises(ConfigError, match=says):
            make()


def test_angles_of_squares_across_a_full_turn():
    angles = torch.tensor([350.0, 10.0], dtype=torch.float64).deg2rad().expand(2, 2)
    assert mean_angle(angles, 2).item() == pytest.approx(0.0, abs=1e-12)


def test_waves_of_a_spectral_layer_are_those_of_the_field_without_ends():
    """A wave along a channel between walls leaves the layer as a multiple of itself, up to its ends."""
    layer = drawn(FNOConfig(width=1, depth=1, modes=(3, 3), condition_on=())).layers[0].spectral.double()
    z = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[..., 0] = 2.0
    wave = torch.cos(math.pi * 2 * z)[None, None, :, None].expand(1, 1, 8, 12)
    torch.testing.assert_close(layer(wave, PLANES["channel"]), 2 * wave)
