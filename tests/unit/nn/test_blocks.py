"""Feed-forward parts, conditioning, patches, normalization, recomputation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sciml.core.errors import ConfigError
from sciml.nn.conditioning import ConditionEmbedding, CycleEncoding, Modulation, WaveEncoding, modulate
from sciml.nn.mlp import GatedMLP, make_mlp
from sciml.nn.norm import HeadNorm, qk_norm
from sciml.nn.patch import check_patches, patchify, unpatchify
from sciml.nn.recompute import recompute


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_gated_mlp_equals_its_formula():
    torch.manual_seed(0)
    mlp = GatedMLP(6, 8).double()
    x = torch.randn(3, 6, dtype=torch.float64)
    gate = x @ mlp.gate.weight.T + mlp.gate.bias
    hidden = (x @ mlp.up.weight.T + mlp.up.bias) * gate / (1 + torch.exp(-gate))
    torch.testing.assert_close(mlp(x), hidden @ mlp.down.weight.T + mlp.down.bias)


def test_both_mlps_have_about_the_same_size():
    plain, gated = make_mlp("gelu", 384, 4.0), make_mlp("swiglu", 384, 4.0)
    assert plain.up.out_features == 1536
    assert gated.up.out_features % 32 == 0
    assert count(gated) == pytest.approx(count(plain), rel=0.02)


def test_head_norm_keeps_gains_apart():
    torch.manual_seed(0)
    norm = HeadNorm(2, 4)
    with torch.no_grad():
        norm.weight[1] = 3.0
    x = torch.randn(1, 5, 2, 4) * 10
    out = norm(x)
    torch.testing.assert_close(out[:, :, 0], F.layer_norm(x[:, :, 0], (4,)))
    torch.testing.assert_close(out[:, :, 1], 3 * F.layer_norm(x[:, :, 1], (4,)))
    assert isinstance(qk_norm("none", 2, 4), nn.Identity)


def test_patches_are_pixels_of_a_square_and_invert():
    fields = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    patches = patchify(fields, 2)
    assert patches.shape == (2, 6, 3, 4)
    assert torch.equal(patches[1, 4, 2], fields[1, 2, 2:4, 2:4].flatten())
    assert torch.equal(unpatchify(patches, (4, 6), 2), fields)


@pytest.mark.parametrize(
    ("grid", "patch", "hint"), [((32, 64), 3, "1, 2, 4, 8, 16, 32"), ((181, 360), 2, "sizes that do: 1; prepare")]
)
def test_patch_size_is_checked(grid, patch, hint):
    with pytest.raises(ConfigError, match=f"model.patch_size: .*{hint}"):
        check_patches(grid, patch)
    check_patches(grid, 1)


def test_modulation_starts_as_nothing():
    from sciml.nn.initialization import initialize

    modulation = Modulation(4, 6, 2)
    initialize(modulation, 0)
    x = torch.randn(2, 3, 6)
    shift, scale = modulation(torch.randn(2, 4))
    assert shift.shape == (2, 1, 6)
    assert torch.equal(modulate(x, shift, scale), x)
    torch.testing.assert_close(modulate(x, shift + 1, scale + 2), 3 * x + 1)


def test_cycles_repeat_and_tell_hours_apart():
    hours = torch.tensor([0.0, 6.0, 24.0 * 20_000], dtype=torch.float64)
    features = CycleEncoding(24.0, 2)(hours)
    torch.testing.assert_close(features[2], features[0])
    assert features[1].tolist() == pytest.approx([1.0, 0.0, 0.0, -1.0], abs=1e-6)


def test_times_keep_their_minutes():
    """Half a million hours since 1970 leave float32 a resolution of two minutes."""
    now = torch.tensor([490_000.0], dtype=torch.float64)
    step = CycleEncoding(24.0, 1)(now + 1 / 60) - CycleEncoding(24.0, 1)(now)
    assert step.norm().item() == pytest.approx(2 * math.pi / 24 / 60, rel=1e-3)


def test_scalar_features_span_their_wavelengths():
    features = WaveEncoding(960.0, 12.0, 16)(torch.tensor([0.0, 12.0, 960.0]))
    assert features.shape == (3, 16)
    torch.testing.assert_close(features[1, 7], features[0, 7], atol=1e-6, rtol=0)  # a turn of the fastest
    torch.testing.assert_close(features[2, 0], features[0, 0], atol=1e-6, rtol=0)  # a turn of the slowest
    assert ConditionEmbedding(16, 5)(features).shape == (3, 5)


@pytest.mark.parametrize(("mode", "products"), [("none", 2), ("selective", 2), ("full", 4)])
def test_recompute_repeats_what_it_says(mode, products):
    """Counts the products and GELUs of a forward and backward pass, and compares the gradients."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.ops: list[str] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.ops.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    torch.manual_seed(0)
    mlp = make_mlp("gelu", 8, 4.0)
    x = torch.randn(3, 8, requires_grad=True)
    expected = torch.autograd.grad(mlp(x).square().sum(), (x, *mlp.parameters()))
    counter = Count()
    with counter:
        out = recompute(mode, mlp, x).square().sum()
        gradients = torch.autograd.grad(out, (x, *mlp.parameters()))
    for want, got in zip(expected, gradients, strict=True):
        torch.testing.assert_close(got, want)
    # The last product of a full recomputation is only stopped early where nothing needs its output.
    assert counter.ops.count("addmm") in ({products, products - 1} if mode == "full" else {products})
    assert counter.ops.count("gelu") == (1 if mode == "none" else 2)
