"""Matrices that stay learn a change of low rank; parameters that fit a pattern stay."""

import pytest
import torch
from torch import nn

from sciml.core.errors import ConfigError
from sciml.nn.initialization import initialize
from sciml.nn.low_rank import add_low_rank, freeze
from sciml.parallel.plan import Style, cut_dim, has_partial_gradient


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.SiLU(), nn.Linear(12, 12, bias=False), nn.Linear(12, 1))


def test_a_change_starts_at_zero_and_is_the_product_of_its_factors():
    model, x = network(), torch.randn(5, 8)
    before = model(x)
    add_low_rank(model, 2)
    initialize(model, 1)
    model.load_state_dict(network().state_dict(), strict=False)
    assert torch.equal(model(x), before)
    change = model[0].lora_down.detach()
    assert change.abs().max() > 0
    assert change.shape == (2, 8)
    with torch.no_grad():
        model[0].lora_up.normal_()
    moved = network()
    with torch.no_grad():
        moved[0].weight += model[0].lora_up @ model[0].lora_down
    torch.testing.assert_close(model(x), moved(x))
    assert not hasattr(model[3], "lora_up")  # as many numbers as its matrix


def test_matrices_stay_and_all_else_is_trained():
    model = network()
    add_low_rank(model, 2)
    freeze(model, ["3.*"])
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"0.bias", "0.lora_up", "0.lora_down", "2.lora_up", "2.lora_down"}


def test_what_fits_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"lora_rank: a change of rank 9 is no smaller .*; at most 5"):
        add_low_rank(network(), 9)
    add_low_rank(network(), 5)
    with pytest.raises(ConfigError, match=r"freeze: 'layers\.\*' fits no parameter"):
        freeze(network(), ["layers.*"])
    with pytest.raises(ConfigError, match=r"freeze: nothing is left to train"):
        freeze(network(), ["*"])


def test_the_factor_beside_the_cut_is_whole_and_knows_part_of_its_gradient():
    for style, cut, whole in ((Style.COLUMN, "lora_up", "lora_down"), (Style.ROW, "lora_down", "lora_up")):
        assert cut_dim(style, cut) == cut_dim(style, "weight")
        assert cut_dim(style, whole) is None
        assert has_partial_gradient(style, whole, False)
        assert not has_partial_gradient(Style.REPLICATE, whole, False)
