"""The conditioned ViT on a grid: options, staging, and variables."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sciml.core.errors import ConfigError
from sciml.models.grid_vit import GridViT, HiddenLayers, check_grid_options
from sciml.models.vit import ViTConfig
from sciml.nn.conditioning import WaveEncoding
from sciml.nn.initialization import initialize
from sciml.nn.variables import VariableProjection, variable_index

ENCODINGS = {"lead_time": WaveEncoding(960.0, 12.0, 8)}
SMALL = {"embed_dim": 16, "depth": 2, "num_heads": 2, "condition_on": ("lead_time",)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rotary_axes": ("longitud",)}, r"model\.rotary_axes: .*'longitud'.*did you mean 'longitude'"),
        ({"position_features": ("height",)}, r"model\.position_features: toy has no 'height'"),
        ({"condition_on": ("lead_tme",)}, r"model\.condition_on: .*did you mean 'lead_time'"),
    ],
)
def test_options_that_a_domain_does_not_have_are_refused(changes, message):
    config = ViTConfig(**{**SMALL, **changes})
    with pytest.raises(ConfigError, match=message):
        check_grid_options(config, "toy", ("latitude", "longitude"), ENCODINGS)


class PointwiseViT(GridViT):
    """Takes each point of a row as a token."""

    def __init__(self, config: ViTConfig) -> None:
        head = nn.Sequential(HiddenLayers(config.embed_dim, 1), nn.Linear(config.embed_dim, 1))
        super().__init__(config, nn.Linear(1, config.embed_dim), head, ENCODINGS)

    def forward_pass(self, row, lead_time):
        coordinates = {"longitude": torch.arange(row.shape[1]) * 0.1, "latitude": torch.zeros(row.shape[1])}

        def embed():
            tokens = self.tokenizer(row[..., None])
            return tokens if self.position is None else tokens + self.position(self.position_features(coordinates))

        return self.staged(embed, {"lead_time": lead_time}, self.head, self.rotary(coordinates))


@pytest.mark.parametrize("conditioning", ["adaln_zero", "none"])
@pytest.mark.parametrize("axes", [(), ("longitude", "latitude")])
def test_a_forward_pass_run_at_once_equals_its_parts(conditioning, axes):
    torch.manual_seed(0)
    config = ViTConfig(**SMALL, conditioning=conditioning, rotary_axes=axes, position_features=axes)
    model = PointwiseViT(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    row, lead = torch.randn(2, 5), torch.tensor([6.0, 72.0])
    tokens = model.tokenizer(row[..., None])
    if axes:
        at = {"longitude": torch.arange(5) * 0.1, "latitude": torch.zeros(5)}
        tokens = tokens + model.position(model.position_features(at))
        rotary = model.rotary(at)
    else:
        rotary = None
        assert model.position is None
    condition = model.embed_condition({"lead_time": lead})
    expected = model.head(model.trunk(tokens, condition, rotary))
    torch.testing.assert_close(model(row, lead), expected)
    other = model(row, torch.tensor([6.0, 24.0]))
    assert torch.equal(other[0], model(row, lead)[0])
    assert torch.equal(other[1], model(row, lead)[1]) == (conditioning == "none")


def test_a_projection_gives_the_rows_of_the_variables_that_are_asked_for():
    projection = VariableProjection(("t", "u", "v"), 4, 8)
    initialize(projection, 0)
    assert projection(torch.randn(1, 2, 8)).abs().max() == 0
    nn.init.normal_(projection.weight)
    nn.init.normal_(projection.bias)
    tokens = torch.randn(1, 2, 8)
    everything = projection(tokens)
    assert everything.shape == (1, 2, 3, 4)
    torch.testing.assert_close(projection(tokens, ("v", "t")), everything[:, :, [2, 0]])


def test_unknown_variables_are_refused_with_the_nearest():
    assert variable_index(("t", "u"), ("t", "u")) is None
    assert variable_index(("t", "u"), ("u",)) == [1]
    with pytest.raises(ConfigError, match=r"data\.variables: .*'tt'.*did you mean 't'"):
        variable_index(("t", "u"), ("tt",))
