"""The climate model: persistence at first, any grid, any variables, symmetric where it should be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from domains.climate.data.schema import ClimateSchema
from domains.climate.model.climax import ClimaX, ClimaXConfig
from domains.climate.model.field_model import ClimateFieldModel
from domains.climate.model.forecaster import ClimateViT
from domains.climate.model.topology import odd_of, topology_of
from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.core.seeding import seed_step
from sciml.models.uvit import UViTConfig
from sciml.models.vit import ViTConfig
from sciml.nn.patch import pad_to_patches, patchify, unpatchify

CONF = Path(__file__).resolve().parents[3] / "conf" / "model"
CHANNELS = ("z500", "t850", "t2m")
SMALL = ViTConfig(embed_dim=32, depth=2, num_heads=4, patch_size=2, condition_dim=8)


def grid(rows: int = 8, columns: int = 16) -> dict[str, tuple[float, ...]]:
    step = 180 / rows
    return {
        "latitude": tuple(90 - step * (i + 0.5) for i in range(rows)),
        "longitude": tuple(360 / columns * i for i in range(columns)),
    }


def make(config: ViTConfig = SMALL, constants: tuple[str, ...] = (), *, trained: bool = True) -> ClimateViT:
    """A model in evaluation mode; ``trained`` fills in what starts at zero."""
    torch.manual_seed(0)
    model = ClimateViT(config, CHANNELS, constants, **grid()).eval()
    if trained:
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
    return model


def inputs(batch: int = 2, rows: int = 8, columns: int = 16) -> dict:
    generator = torch.Generator().manual_seed(1)
    return {
        "fields": torch.randn(batch, len(CHANNELS), rows, columns, generator=generator),
        "channel_names": CHANNELS,
        "lead_time": torch.tensor([72.0, 24.0])[:batch],
        "time": torch.tensor([420_000.0, 430_006.0], dtype=torch.float64)[:batch],
    }


def load(name: str) -> UViTConfig:
    def read(stem):
        values = OmegaConf.load(CONF / f"{stem}.yaml")
        bases = [base for base in values.pop("defaults", []) if base != "_self_"]
        return OmegaConf.merge(*map(read, bases), values)

    return build(UViTConfig, OmegaConf.to_container(read(name)), prefix="model")


@pytest.mark.parametrize("conditioning", ["adaln_zero", "none"])
def test_untrained_model_is_persistence(conditioning):
    model = make(replace(SMALL, conditioning=conditioning), trained=False)
    out = model(**inputs())
    assert out.shape == (2, 3, 8, 16)
    assert not out.any()


def test_every_parameter_is_used():
    model = make(constants=("lsm",))
    model(**inputs(), constants=torch.randn(1, 8, 16)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("change", [{"lead_time": torch.tensor([72.0, 30.0])}, {"time": torch.tensor([1.0, 7.0])}])
def test_lead_time_and_time_matter(change):
    model, given = make(), inputs()
    with torch.no_grad():
        assert (model(**given) - model(**{**given, **change}))[1].abs().max() > 1e-4


def test_time_of_day_repeats_after_a_day():
    model, given = make(replace(SMALL, condition_on=("time_of_day",))), inputs()
    later = {**given, "time": given["time"] + 24 * 1000}
    with torch.no_grad():
        torch.testing.assert_close(model(**later), model(**given))


def test_subset_of_variables_in_any_order():
    model, given = make(), inputs()
    names = ("t2m", "z500")
    few = {**given, "fields": given["fields"][:, [2, 0]], "channel_names": names}
    with torch.no_grad():
        out = model(**few)
        swapped = model(**{**few, "fields": few["fields"][:, [1, 0]], "channel_names": names[::-1]})
        wanted = model(**few, output_names=("z500", "t850"))
    assert out.shape[1] == 2
    torch.testing.assert_close(swapped[:, [1, 0]], out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(wanted[:, 0], out[:, 1], rtol=1e-4, atol=1e-5)


def test_constants_are_read_by_name_with_or_without_batch():
    model, given = make(constants=("lsm", "sun")), inputs()
    constants = torch.randn(2, 8, 16)
    with torch.no_grad():
        out = model(**given, constants=constants)
        batched = model(**given, constants=constants.expand(2, -1, -1, -1))
        named = model(**given, constants=constants.flip(0), constant_names=("sun", "lsm"))
        without = model(**given)
    torch.testing.assert_close(batched, out)
    torch.testing.assert_close(named, out, rtol=1e-4, atol=1e-5)
    assert (without - out).abs().max() > 1e-3


def test_another_grid_takes_the_same_weights():
    model = make()
    fine = inputs(rows=12, columns=24)
    out = model(**fine, **grid(12, 24))
    assert out.shape == (2, 3, 12, 24)
    other = ClimateViT(SMALL, CHANNELS, **grid(12, 24)).eval()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(**fine), out)


@pytest.mark.parametrize("axes", [("longitude", "latitude"), ("longitude",)])
def test_turning_the_state_turns_the_forecast(axes):
    """With positions by latitude and rotations by longitude, whole-patch turns around the axis commute."""
    model = make(replace(SMALL, position_features=("latitude",), rotary_axes=axes)).double()
    given = inputs()
    fields, shift = given.pop("fields").double(), 3 * SMALL.patch_size
    with torch.no_grad():
        turned = model(fields.roll(shift, -1), **given)
        out = model(fields, **given)
    # Features of positions and conditions are made in float32.
    torch.testing.assert_close(turned, out.roll(shift, -1), rtol=1e-5, atol=1e-5)
    assert (turned - out).abs().max() > 1e-2


@pytest.mark.parametrize("change", [{"position_features": ("latitude", "longitude")}, {"rotary_axes": ()}])
def test_other_positions_are_told_apart(change):
    """Guards the symmetry above: absolute longitudes break it, and without rotations tokens could trade places."""
    config = replace(SMALL, position_features=("latitude",))
    model = make(replace(config, **change))
    given = inputs()
    fields = given.pop("fields")
    swapped = fields.clone()
    swapped[..., 0:2], swapped[..., 6:8] = fields[..., 6:8], fields[..., 0:2]  # two patches of each row
    with torch.no_grad():
        out, moved = model(fields, **given), model(swapped, **given)
        rotated = make(config)(fields, **given), make(config)(swapped, **given)
    if "rotary_axes" in change:
        torch.testing.assert_close(moved[..., 8:], out[..., 8:], rtol=1e-4, atol=1e-5)
        assert (rotated[0] - rotated[1])[..., 8:].abs().max() > 1e-3
    else:
        shifted = model(fields.roll(6, -1), **given)
        assert (shifted - out.roll(6, -1)).abs().max() > 1e-2


def test_head_stays_float32_under_autocast():
    model, given = make(), inputs()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = model(**given)
    assert out.dtype == torch.float32
    assert (out != out.bfloat16().float()).float().mean() > 0.9  # not rounded on the way either
    with torch.no_grad():
        exact = model(**given)
    assert (out - exact).square().mean().sqrt() < 0.05 * exact.std()


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_recompute_changes_nothing(mode):
    gradients = []
    for recompute in ("none", mode):
        model = make(replace(SMALL, recompute=recompute, drop_path=0.3, dropout=0.1)).train()
        seed_step(5, 0)
        model(**inputs()).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for want, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["vit", "climax"])
@pytest.mark.parametrize(("rows", "columns", "patch"), [(9, 16, 4), (8, 16, 3), (7, 10, 4)])
def test_every_grid_works_at_every_patch_size(kind, rows, columns, patch):
    where = {"latitude": np.linspace(90, -90, rows), "longitude": 360 / columns * np.arange(columns)}
    if kind == "vit":
        model = ClimateViT(replace(SMALL, patch_size=patch), CHANNELS, **where)
    else:
        model = ClimaX(ClimaXConfig(patch_size=patch, embed_dim=32, depth=1, num_heads=2), CHANNELS, **where)
    with torch.no_grad():
        model.head.project.weight.normal_(std=0.1)
    out = model(**inputs(rows=rows, columns=columns))
    assert out.shape == (2, 3, rows, columns)
    assert out.isfinite().all()


def test_rows_beyond_the_pole_are_those_on_the_other_side():
    """A patch that reaches over the south pole sees what the half-turn finds there, and both winds turned around."""
    names = ("t2m", "u10")
    topology = topology_of(np.linspace(90, -90, 5), np.arange(0, 360, 45.0))
    fields = torch.randn(1, 2, 5, 8)
    padded = pad_to_patches(fields, 4, topology, odd_of(names))
    assert padded.shape == (1, 2, 8, 8)
    for beyond, row in ((5, 3), (6, 2), (7, 1)):  # the pole itself is row 4
        assert torch.equal(padded[0, 0, beyond], fields[0, 0, row].roll(4))
        assert torch.equal(padded[0, 1, beyond], -fields[0, 1, row].roll(4))
    assert torch.equal(unpatchify(patchify(padded, 4), (5, 8), 4), fields)


def test_a_patch_larger_than_the_grid_is_refused():
    with pytest.raises(ConfigError, match=r"patch_size: patches of 16x16 are larger than the grid of 8x16; at m"):
        ClimateViT(replace(SMALL, patch_size=16), CHANNELS, **grid())(**inputs())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"condition_on": ("leadtime",)}, r"model.condition_on: .*did you mean 'lead_time'"),
        ({"position_features": ("latitudes",)}, r"model.position_features: .*did you mean 'latitude'"),
        ({"rotary_axes": ("lon",)}, r"model.rotary_axes: .*'longitude'"),
    ],
)
def test_unknown_names_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        ClimateViT(replace(SMALL, **change), CHANNELS, **grid())


def test_from_schema_reads_statics_and_forcings():
    schema = ClimateSchema(CHANNELS, ("lsm",), **grid(), step_hours=12.0)
    model = ClimateViT.from_schema(SMALL, schema, ("sun",))
    assert model.channels == CHANNELS
    assert model.constants == ("lsm", "sun")


@pytest.mark.parametrize(
    ("name", "billions"),
    [("vit_115m", 0.108), ("vit_1b", 0.931), ("vit_2b", 1.927), ("vit_5b", 4.888), ("vit_10b", 8.916)],
)
def test_sizes_are_those_of_their_names(name, billions):
    """Parameter counts with 48 variables, counted on the meta device."""
    channels = [f"v{i}" for i in range(48)]
    with torch.device("meta"):
        model = ClimateFieldModel(load(name), channels, **grid(32, 64))
    assert all(p.is_meta for p in model.parameters())
    assert not list(model.buffers())
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, rel=0.002)


@pytest.mark.parametrize("name", ["vit_tiny", "vit_small"])
def test_small_sizes_run(name):
    config = replace(load(name), condition_on=("lead_time",), position_features=("latitude",))
    model = ClimateFieldModel(config, CHANNELS, **grid(32, 64))
    assert model(**inputs(rows=32, columns=64)).shape == (2, 3, 32, 64)


def test_weights_depend_on_seed_and_name_alone():
    torch.manual_seed(7)
    first = ClimateViT(SMALL, CHANNELS, **grid())
    torch.manual_seed(7)
    torch.rand(5)  # the state of the global generator has no part in it
    deeper = ClimateViT(replace(SMALL, depth=3), CHANNELS, **grid())
    ours, theirs = first.state_dict(), deeper.state_dict()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    torch.manual_seed(8)
    other = ClimateViT(SMALL, CHANNELS, **grid()).state_dict()
    assert not torch.equal(other["tokenizer.value.weight"], ours["tokenizer.value.weight"])
