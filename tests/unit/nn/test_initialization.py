"""First values depend on the seed and the parameter's name, on nothing else."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from sciml.nn.initialization import Normal, generator_for, initialize, rule_of, starts_as, zeros


def test_values_do_not_depend_on_construction_order_or_global_state():
    first = nn.ModuleDict({"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)})
    second = nn.ModuleDict({"b": nn.Linear(4, 3), "a": nn.Linear(4, 3)})
    initialize(first, 3)
    torch.rand(7)
    initialize(second, 3)
    assert torch.equal(first["a"].weight, second["a"].weight)
    assert not torch.equal(first["a"].weight, first["b"].weight)
    initialize(second, 4)
    assert not torch.equal(first["a"].weight, second["a"].weight)


def test_a_slice_can_be_drawn_from_name_and_shape_alone():
    model = nn.Sequential(nn.Linear(6, 8))
    initialize(model, 11)
    whole = torch.empty(8, 6)
    rule_of(model[0], "weight")(whole, generator_for(11, "0.weight"))
    assert torch.equal(model[0].weight[4:], whole[4:])


def test_defaults_and_notes():
    model = nn.ModuleDict({"linear": nn.Linear(400, 400), "norm": nn.LayerNorm(5), "head": zeros(nn.Linear(3, 2))})
    starts_as(model["linear"], bias=Normal(2.0))
    initialize(model, 0)
    assert model["linear"].weight.std().item() == pytest.approx((1 / 400) ** 0.5, rel=0.02)
    assert model["linear"].bias.std().item() == pytest.approx(2.0, rel=0.1)
    assert torch.equal(model["norm"].weight, torch.ones(5))
    assert not model["norm"].bias.any()
    assert not model["head"].weight.any()
    assert not model["head"].bias.any()


def test_parameter_without_a_rule_is_refused():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.entries = nn.Parameter(torch.empty(2))

    with pytest.raises(ValueError, match="Table does not say how its parameter 'entries' starts"):
        initialize(Table(), 0)


def test_meta_parameters_are_left_alone_and_models_can_be_pickled():
    with torch.device("meta"):
        model = starts_as(nn.Linear(3, 2), weight=Normal(1.0))
    initialize(model, 0)
    assert model.weight.is_meta
    assert pickle.loads(pickle.dumps(Normal(1.0))) == Normal(1.0)
