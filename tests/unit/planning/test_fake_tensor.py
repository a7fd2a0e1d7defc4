"""Tensors without memory: they have the layouts of real ones, and a plan computes nothing besides."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sciml.app.plan import facts_of
from sciml.planning import pass_profile
from sciml.planning.fake_tensor import (
    LARGE,
    FakeTensor,
    ReadsValuesError,
    fake_batch,
    fake_like,
    storage_of,
    without_values,
)
from sciml.planning.op_meter import Meter
from sciml.run.compose import compose
from sciml.run.spec import RunSpec
from tests.unit.planning.models import cluster

MOST_REAL_BYTES = 2**20


def layouts(outputs):
    return [(tuple(t.shape), t.stride(), t.dtype) for t in outputs]


def block(x, weight):
    y = F.layer_norm(x, x.shape[-1:]) @ weight
    y = F.gelu(y).unflatten(-1, (2, -1)).transpose(1, 2)
    y = F.scaled_dot_product_attention(y, y, y).transpose(1, 2).flatten(-2)
    z = torch.empty_like(y).copy_(y)
    return [y, z.mul_(2.0), y[:, :2].float().softmax(-1), (x.sum() + 1).to(torch.bfloat16)]


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_layouts_are_those_of_real_tensors(dtype):
    real = [torch.randn(3, 4, 8, requires_grad=True), torch.randn(8, 8, requires_grad=True)]
    fake = [fake_like(tensor).requires_grad_() for tensor in real]
    results = []
    for tensors in (real, fake, fake):  # the second time from what was remembered
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            outputs = block(*tensors)
        grads = torch.autograd.grad(outputs[0].float().sum(), tensors)
        results.append(layouts([*outputs, *grads]))
    assert results[0] == results[1] == results[2]


def test_views_share_memory_and_writes_keep_the_tensor():
    x = fake_like(torch.zeros(4, 6))
    assert storage_of(x.view(24)[3:]) is storage_of(x)
    assert storage_of(x + 1) is not storage_of(x)
    assert x.add_(1) is x
    assert isinstance(torch.zeros(6) + x, FakeTensor)


def test_values_cannot_be_read():
    x = fake_batch({"x": torch.zeros(3)})["x"]
    for read in (lambda: x.sum().item(), lambda: x.nonzero(), lambda: x[x > 0], x.tolist, x.numpy):
        with pytest.raises(ReadsValuesError):
            read()


class _Largest(TorchDispatchMode):
    """Keeps the size of the largest real tensor that an operator makes."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and not isinstance(leaf, FakeTensor) and not leaf.is_meta:
                self.size = max(self.size, leaf.untyped_storage().nbytes())
        return result


def test_a_plan_of_a_trillion_parameters_computes_nothing_and_reads_no_text(monkeypatch):
    def refuse(*_):
        raise AssertionError("a plan opened a text")

    monkeypatch.setattr("domains.language.domain.find_files", refuse)
    spec = RunSpec.build(compose("train", ["domain=language", "model=gpt_1t"]).config)
    with _Largest() as largest:
        facts = facts_of(spec, cluster("frontier"))
        forward, _ = facts.sample_flops()
    assert forward == pytest.approx(4.18e15, rel=1e-2)
    assert 0 < largest.size < MOST_REAL_BYTES


WEATHER = ["domain=climate", "data.channels=[z500,t850]", "model.embed_dim=32", "model.depth=2", "model.num_heads=2"]


def weather(grid):
    spec = RunSpec.build(compose("train", [*WEATHER, f"data.grid={grid}", "model.patch_size=4"]).config)
    return facts_of(spec, cluster("h100"))


def test_positions_of_a_quarter_degree_are_not_computed():
    """A coordinate of all cells takes 8 MB, the rotations of all tokens more."""
    with _Largest() as largest:
        facts = weather("1440x720")
        profile = facts.profile(1, 1, "bf16", "selective")
    assert profile.block.saved_activations(1) > 1440 * 720 / 16 * 32 * 2
    assert 0 < largest.size < MOST_REAL_BYTES


def test_a_profile_is_the_same_whether_positions_are_computed_or_not(monkeypatch):
    spared = weather("192x96").profile(2, 1, "bf16", "selective")
    monkeypatch.setattr(pass_profile, "without_values", lambda func, args, kwargs: func(*args, **kwargs))
    assert weather("192x96").profile(2, 1, "bf16", "selective") == spared


def test_what_is_small_or_tells_a_shape_is_computed():
    with Meter(run=without_values):
        large = torch.zeros(LARGE)
        assert isinstance(large, FakeTensor)
        assert isinstance(large.sin()[:3], FakeTensor)
        assert torch.arange(3.0).sum().item() == 3
    real = torch.arange(2 * LARGE) % 7
    with Meter(run=without_values):
        assert isinstance(real * 2, FakeTensor)
        assert len(real.unique()) == 7
        assert not isinstance(real[::2], FakeTensor)


def test_parameters_stay_parameters():
    layer = nn.Linear(3, 2, device="meta")
    assert isinstance(nn.Parameter(fake_like(layer.weight)), nn.Parameter)
