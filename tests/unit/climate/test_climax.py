"""ClimaX: what the published code computes, in the domain's terms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from domains.climate.model.climax import ClimaX, ClimaXConfig
from domains.climate.model.climax_weights import ClimaXWeights
from sciml.core.errors import ConfigError
from sciml.core.seeding import seed_step
from sciml.models.vit import ViTConfig
from sciml.parallel.plan import owners

PUBLISHED = Path(__file__).resolve().parents[4] / "shared" / "data" / "climax"
needs_published = pytest.mark.skipif(
    not PUBLISHED.exists(), reason="the answers of the original code are not at ../shared/data/climax"
)
FORMS = ("loop", "parallel")
VARIABLES = (
    "land_sea_mask", "2m_temperature", "10m_u_component_of_wind", "geopotential_500", "geopotential_850",
    "temperature_850",
)  # fmt: skip
CHANNELS, CONSTANTS = VARIABLES[1:], VARIABLES[:1]
OUTPUTS = ("2m_temperature", "10m_u_component_of_wind", "geopotential_500", "temperature_850")
SUBSET = ("2m_temperature", "geopotential_500", "temperature_850", "10m_u_component_of_wind")
SMALL = ClimaXConfig(embed_dim=32, depth=2, num_heads=4, head_depth=1, dropout=0.0, drop_path=0.0)


def grid(rows: int = 8, columns: int = 16) -> dict[str, tuple[float, ...]]:
    step = 180 / rows
    return {
        "latitude": tuple(90 - step * (i + 0.5) for i in range(rows)),
        "longitude": tuple(360 / columns * i for i in range(columns)),
    }


def make(config: ClimaXConfig = SMALL, *, trained: bool = True) -> ClimaX:
    """A model in evaluation mode; ``trained`` fills in what starts at zero."""
    torch.manual_seed(0)
    model = ClimaX(config, ("z500", "t850", "t2m"), ("lsm",), **grid()).eval()
    if trained:
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
    return model


def inputs(rows: int = 8, columns: int = 16) -> dict:
    generator = torch.Generator().manual_seed(1)
    return {
        "fields": torch.randn(2, 3, rows, columns, generator=generator),
        "channel_names": ("z500", "t850", "t2m"),
        "lead_time": torch.tensor([72.0, 24.0]),
        "time": torch.tensor([420_000.0, 430_006.0], dtype=torch.float64),
        "constants": torch.randn(1, rows, columns, generator=generator),
    }


def published(form: str, **options) -> ClimaX:
    """The original's weights in our model, float64."""
    weights = ClimaXWeights.read(PUBLISHED / f"climax_tiny_{form}.safetensors")
    assert (weights.depth, weights.head_depth, weights.patch_size, weights.num_tokens) == (2, 2, 2, 32)
    model = ClimaX(replace(SMALL, head_depth=2), CHANNELS, CONSTANTS, **grid()).double().eval()
    model.load_state_dict(weights.converted(VARIABLES, CHANNELS, CONSTANTS, (8, 16), num_heads=4, **options))
    return model


@needs_published
@pytest.mark.parametrize("form", FORMS)
def test_answers_are_those_of_the_original(form):
    said = load_file(PUBLISHED / f"climax_tiny_{form}_io.safetensors")
    x, hours = said["x"], said["lead_time_hours_over_100"] * 100
    model = published(form)
    with torch.no_grad():
        out = model(x[:, 1:], CHANNELS, hours, hours, x[:, :1], output_names=OUTPUTS)
        few = model(said["x_subset"], SUBSET, hours, hours, output_names=OUTPUTS)
    torch.testing.assert_close(out, said["prediction"], rtol=0, atol=1e-10)
    torch.testing.assert_close(few, said["prediction_subset"], rtol=0, atol=1e-10)


@needs_published
def test_a_model_of_fields_from_the_south_is_turned_over():
    said = load_file(PUBLISHED / "climax_tiny_loop_io.safetensors")
    x, hours = said["x"].flip(2), said["lead_time_hours_over_100"] * 24
    model = published("loop", south_first=True, lead_time_unit_h=24.0)
    with torch.no_grad():
        out = model(x[:, 1:], CHANNELS, hours, hours, x[:, :1], output_names=OUTPUTS)
    torch.testing.assert_close(out.flip(2), said["prediction"], rtol=0, atol=1e-10)


def test_an_untrained_model_is_persistence():
    out = make(trained=False)(**inputs())
    assert out.shape == (2, 3, 8, 16)
    assert not out.any()


def test_every_parameter_is_used_and_has_one_rule():
    model = make()
    model(**inputs()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    assert set(ClimaX.plan.styles(model)) == {name for name, _ in owners(model)}


def test_lead_time_and_places_matter_and_the_time_does_not():
    model, given = make(), inputs()
    with torch.no_grad():
        out = model(**given)
        assert (model(**{**given, "lead_time": torch.tensor([72.0, 30.0])}) - out)[1].abs().max() > 1e-4
        assert torch.equal(model(**{**given, "time": given["time"] + 7}), out)
        turned = model(**{**given, "fields": given["fields"].roll(2, -1), "constants": given["constants"].roll(2, -1)})
    assert (turned - out.roll(2, -1)).abs().max() > 1e-3


def test_subset_of_variables_in_any_order():
    model, given = make(), inputs()
    few = {**given, "fields": given["fields"][:, [2, 0]], "channel_names": ("t2m", "z500"), "constants": None}
    swapped = {**few, "fields": few["fields"].flip(1), "channel_names": ("z500", "t2m")}
    with torch.no_grad():
        out = model(**few)
        torch.testing.assert_close(model(**swapped).flip(1), out, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model(**few, output_names=("z500",))[:, 0], out[:, 1], rtol=1e-4, atol=1e-5)


def test_another_grid_than_that_of_the_positions_is_refused():
    model = make()
    with pytest.raises(ConfigError, match=r"learned on a grid of 16x8, the fields are on another, of 24x12; .*16x8"):
        model(**inputs(12, 24), **grid(12, 24))
    shifted = {**grid(), "longitude": tuple(degrees + 5 for degrees in grid()["longitude"])}
    with pytest.raises(ConfigError, match="on another"):
        model(**inputs(), **shifted)


def test_recompute_changes_nothing():
    gradients = []
    for recompute in ("none", "full"):
        model = make(replace(SMALL, recompute=recompute, drop_path=0.3, dropout=0.1)).train()
        seed_step(5, 0)
        model(**inputs()).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for want, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_the_published_size_is_the_default():
    config = ClimaXConfig()
    assert isinstance(config.trunk, ViTConfig)
    with torch.device("meta"):
        model = ClimaX(config, tuple(f"z{n}" for n in range(46)), ("lsm", "orography"), **grid(32, 64))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(1.07e8, rel=0.03)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match=r"model\.num_heads"):
        replace(SMALL, num_heads=5)
