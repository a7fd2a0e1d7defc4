"""First values depend on the seed and the parameter's name, on nothing else."""

from __future__ import annotations

import pickle
from collections.abc import Callable

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


class Table(nn.Module):
    """A module that does not say how its parameters start."""

    def __init__(self, **shapes: tuple[int, ...]):
        super().__init__()
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.empty(shape)))


@pytest.mark.parametrize("name", ["entries", "weight", "bias"])
def test_parameter_without_a_rule_is_refused(name):
    """Names alone say nothing."""
    said = rf"Table does not say how its parameter '{name}' starts; add starts_as\(self, {name}=Normal\(0.02\)\)"
    with pytest.raises(ValueError, match=said):
        initialize(nn.Sequential(Table(**{name: (2,)})), 0)


def test_torch_modules_without_a_rule_are_refused():
    with pytest.raises(ValueError, match="Bilinear does not say how its parameter 'weight' starts"):
        initialize(nn.Bilinear(2, 2, 2), 0)


CONVOLUTIONS: dict[str, Callable[[], nn.Module]] = {
    "line": lambda: nn.Conv1d(64, 64, 5),
    "plane": lambda: nn.Conv2d(32, 64, 3, stride=2),
    "groups": lambda: nn.Conv2d(64, 64, 3, groups=16),
    "wide": lambda: nn.Conv2d(64, 64, 3, dilation=2),
    "volume": lambda: nn.Conv3d(16, 32, 3),
    "transposed line": lambda: nn.ConvTranspose1d(64, 64, 4, stride=2),
    "transposed plane": lambda: nn.ConvTranspose2d(64, 32, 3, stride=2),
    "transposed groups": lambda: nn.ConvTranspose2d(64, 64, 2, stride=2, groups=16),
    "transposed volume": lambda: nn.ConvTranspose3d(32, 16, 2, stride=2),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions_keep_the_variance_of_what_passes_through_them(kind):
    layer = CONVOLUTIONS[kind]()
    initialize(layer, 0)
    dims = layer.weight.ndim - 2
    x = torch.randn(
        8, layer.in_channels, *[(4096, 48, 16)[dims - 1]] * dims, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        inner = layer(x)[(..., *[slice(4, -4)] * dims)]  # the border of a transposed one adds up less
    assert not layer.bias.any()
    assert inner.var().item() == pytest.approx(1.0, rel=0.1)


def test_embeddings_have_rows_of_unit_variance_and_none_for_padding():
    table = nn.Embedding(500, 64, padding_idx=3)
    initialize(table, 0)
    assert not table.weight[3].any()
    assert table.weight.var().item() == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(4), nn.RMSNorm(4), nn.GroupNorm(2, 4), nn.BatchNorm2d(4), nn.InstanceNorm1d(4, affine=True)]
)
def test_norms_start_without_gain_or_offset(norm):
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.fill_(7.0)
    initialize(norm, 0)
    assert torch.equal(norm.weight, torch.ones(4))
    assert getattr(norm, "bias", None) is None or not norm.bias.any()


def convolutional() -> nn.Module:
    """A small network of convolutions, down and up again, with classes beside the field."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.kind = nn.Embedding(3, 16)
            self.down = nn.Sequential(nn.Conv2d(2, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.SiLU())
            self.inner = nn.Sequential(nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.SiLU())
            self.up = nn.ConvTranspose2d(16, 2, 2, stride=2)

        def forward(self, x, kind):
            return self.up(self.inner(self.down(x) + self.kind(kind)[:, :, None, None]))

    return Network()


def test_a_convolutional_network_starts_sanely_and_trains():
    """With weights of 1 its first outputs were in the hundreds, and it diverged."""
    model = convolutional()
    initialize(model, 0)
    generator = torch.Generator().manual_seed(0)
    x, kind = torch.randn(16, 2, 16, 16, generator=generator), torch.arange(16) % 3
    target = x.roll(1, -1) * (kind - 1.0)[:, None, None, None]
    assert 0.1 < model(x, kind).std().item() < 3.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = (model(x, kind) - target).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.6 * target.square().mean().item()
    assert max(losses[10:]) < losses[0]


def test_meta_parameters_are_left_alone_and_models_can_be_pickled():
    with torch.device("meta"):
        model = starts_as(nn.Linear(3, 2), weight=Normal(1.0))
    initialize(model, 0)
    assert model.weight.is_meta
    assert pickle.loads(pickle.dumps(Normal(1.0))) == Normal(1.0)
