import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from sciml.core.errors import RunError
from sciml.distributed.mesh import Mesh
from sciml.domain.protocol import LossOutput
from sciml.parallel.config import ParallelConfig
from sciml.parallel.model import parallelize
from sciml.training.config import OptimConfig
from sciml.training.engine import NativeEngine
from sciml.training.finite_watch import EarlierStepError


@dataclass
class Batch:
    x: torch.Tensor
    y: torch.Tensor


class Regression:
    needs_double_backward = False

    def loss(self, model, batch):
        error = (model(batch.x) - batch.y).square().mean()
        return LossOutput(error, {"error": error.detach()}, weight=len(batch.x))


def make_engine(name="sgd", clip_norm=None, precision="fp32", **options):
    model = parallelize(lambda: nn.Linear(3, 1, dtype=torch.float64), Mesh.alone(), ParallelConfig(), seed=0)
    return NativeEngine(model, OptimConfig(name=name, clip_norm=clip_norm, **options), precision)


def data(count=12):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return Batch(x, x.sum(dim=1, keepdim=True) + 1)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("cuts", [[6, 6], [4, 4, 4], [1, 11], [3, 7, 2]])
def test_micro_batches_of_any_size_make_the_step_of_the_whole_batch(name, cuts):
    whole, parts = make_engine(name, clip_norm=0.5), make_engine(name, clip_norm=0.5)
    batch = data()
    pieces = [Batch(x, y) for x, y in zip(batch.x.split(cuts), batch.y.split(cuts), strict=True)]
    for _ in range(3):
        expected = whole.train_step(Regression(), [batch], lr=0.1)
        found = parts.train_step(Regression(), pieces, lr=0.1)
        assert found.loss == pytest.approx(expected.loss, rel=1e-12)
        assert found.grad_norm == pytest.approx(expected.grad_norm, rel=1e-12)
        assert found.parts["error"] == pytest.approx(expected.loss, rel=1e-12)
    torch.testing.assert_close(parts.model.module.weight, whole.model.module.weight, rtol=1e-12, atol=0)


def test_clipping_bounds_the_step_and_reports_the_norm_before_it():
    engine = make_engine(clip_norm=1e-3, momentum=0.0, weight_decay=0.0)
    before = torch.cat([p.detach().clone().flatten() for p in engine.model.module.parameters()])
    output = engine.train_step(Regression(), [data()], lr=1.0)
    after = torch.cat([p.detach().flatten() for p in engine.model.module.parameters()])
    assert output.grad_norm > 1
    assert (after - before).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_a_loss_that_is_not_finite_names_the_tensor_and_changes_nothing():
    engine, batch = make_engine(), data()
    before = engine.model.module.weight.detach().clone()
    batch.y[3] = float("nan")
    with pytest.raises(RunError, match="first in y of micro-batch 1"):
        engine.train_step(Regression(), [data(), batch], lr=0.1)
    assert torch.equal(engine.model.module.weight, before)


def test_a_step_that_was_not_finite_is_found_when_a_later_one_is_read_and_nothing_has_changed_since():
    engine, broken = make_engine("adamw"), data()
    broken.y[3] = float("nan")
    engine.train_step(Regression(), [data()], lr=0.1)
    state = {key: value.clone() for key, value in engine.state().items()}
    for batch in (broken, data()):
        engine.launch_step(Regression(), [batch], lr=0.1)
    with pytest.raises(EarlierStepError) as caught:
        engine.train_step(Regression(), [data()], lr=0.1)
    assert caught.value.steps_ago == 2
    assert all(torch.equal(value, engine.state()[key]) for key, value in state.items())
    with pytest.raises(RunError, match="first in y of micro-batch 0"):
        engine.train_step(Regression(), [broken], lr=0.1)


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_steps_are_the_same_whether_their_results_are_read_or_not(clip_norm):
    read, unread = (make_engine("adamw", clip_norm=clip_norm) for _ in range(2))
    for _ in range(4):
        expected = read.train_step(Regression(), [data()], lr=0.1)
        result = unread.launch_step(Regression(), [data()], lr=0.1)
    assert result() == expected
    assert all(torch.equal(value, unread.state()[key]) for key, value in read.state().items())


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_gradient_that_is_not_finite_is_named_as_it_came(name):
    class Overflows(Regression):
        def loss(self, model, batch):
            return LossOutput(super().loss(model, batch).loss + (0 * model.bias).sqrt().sum())

    engine = make_engine(name, clip_norm=1.0)
    before = engine.model.module.weight.detach().clone()
    with pytest.raises(RunError, match="the gradient is not finite: first in the parameter 'bias'"):
        engine.train_step(Overflows(), [data()], lr=0.1)
    assert torch.equal(engine.model.module.weight, before)


def test_a_broken_parameter_is_named():
    engine = make_engine()
    with torch.no_grad():
        engine.model.module.bias.fill_(float("inf"))
    with pytest.raises(RunError, match="first in parameter bias"):
        engine.train_step(Regression(), [data()], lr=0.1)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_restored_engine_goes_on_as_the_old_one(name):
    old, new = make_engine(name), make_engine(name)
    old.train_step(Regression(), [data()], lr=0.1)
    state = {key: value.clone() for key, value in old.state().items()}
    new.load_state(state)
    for engine in (old, new):
        engine.train_step(Regression(), [data()], lr=0.1)
    assert all(torch.equal(value, new.state()[key]) for key, value in old.state().items())


def test_half_precision_scales_the_loss_and_leaves_out_steps_that_overflow():
    model = parallelize(lambda: nn.Linear(3, 1), Mesh.alone(), ParallelConfig(), seed=0)
    engine = NativeEngine(model, OptimConfig(name="sgd", clip_norm=None), "fp16")
    batch = Batch(data().x.float(), data().y.float())
    assert engine.math.scale.value == 2**16
    before = model.module.weight.detach().clone()
    norms = [engine.train_step(Regression(), [batch], lr=1e-3).grad_norm for _ in range(12)]
    overflows = sum(not math.isfinite(norm) for norm in norms)
    assert 0 < overflows < 12
    assert engine.math.scale.value == 2 ** (16 - overflows)
    assert not torch.equal(model.module.weight, before)
    full = NativeEngine(
        parallelize(lambda: nn.Linear(3, 1), Mesh.alone(), ParallelConfig(), seed=0), OptimConfig("sgd")
    )
    assert norms[overflows] == pytest.approx(full.train_step(Regression(), [batch], lr=0.0).grad_norm, rel=1e-2)
