import pytest
import torch
from torch import nn

from sciml.distributed.mesh import Mesh
from sciml.parallel.placement import Placement
from sciml.training.config import OptimConfig
from sciml.training.ema import WeightAverage
from sciml.training.optimizer import build_optimizer, learning_rate


def test_the_learning_rate_warms_up_and_falls_like_a_cosine():
    config = OptimConfig(lr=2.0, warmup_steps=10, min_lr_ratio=0.1)
    rates = [learning_rate(config, step, 110) for step in range(111)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert rates[110] == pytest.approx(0.2)


def test_vectors_are_not_decayed():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    placements = {name: Placement(Mesh.alone(), tuple(p.shape)) for name, p in model.named_parameters()}
    optimizer = build_optimizer(dict(model.named_parameters()), placements, OptimConfig(weight_decay=0.3))
    matrices, vectors = optimizer.param_groups
    assert [tuple(p.shape) for p in matrices["params"]] == [(4, 3)]
    assert matrices["weight_decay"] == 0.3
    assert len(vectors["params"]) == 3
    assert vectors["weight_decay"] == 0


def weights(model):
    return {name: p.detach() for name, p in model.named_parameters()}


def test_the_average_follows_the_weights_and_gives_them_back():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(weights(model), decay=0.5)
    expected = 0.0
    for step in range(20):
        nn.init.constant_(model.weight, step)
        average.update(weights(model), step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    with average.applied(weights(model)):
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 19


def test_the_average_is_taken_in_place():
    model = nn.Linear(2, 2)
    average = WeightAverage(weights(model), decay=0.9)
    assert all(
        not torch.equal(a, p) or a.data_ptr() != p.data_ptr()
        for a, p in zip(average.averages.values(), model.parameters(), strict=True)
    )
