import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from sciml.core.errors import ConfigError
from sciml.distributed.mesh import Mesh
from sciml.models.gpt import GPT, GPTConfig
from sciml.parallel.config import ParallelConfig
from sciml.parallel.model import parallelize
from sciml.parallel.placement import Placement
from sciml.parallel.plan import ShardingPlan, Stages
from sciml.training.config import OptimConfig
from sciml.training.ema import WeightAverage
from sciml.training.muon import shared_evenly
from sciml.training.optimizer import OPTIMIZERS, build_optimizer, optimizer_spec


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


class Blocks(nn.Module):
    plan = ShardingPlan({}, stages=Stages(blocks="blocks"))

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4)) for _ in range(2))


MUON = OptimConfig(name="muon", lr=0.1, momentum=0.9, weight_decay=0.01)


def made(build=Blocks, optim=MUON):
    model = parallelize(build, Mesh.alone(), ParallelConfig(), seed=0)
    parameters = dict(model.named_parameters())
    return model, parameters, build_optimizer(parameters, model.placements, optim)


def test_muon_moves_the_matrices_of_blocks_by_orthogonal_steps_and_the_rest_as_adamw_does():
    _, parameters, optimizer = made()
    _, others, adamw = made(optim=replace(MUON, name="adamw"))
    before = {name: p.detach().clone() for name, p in parameters.items()}
    torch.manual_seed(0)
    for name in parameters:
        parameters[name].grad = torch.randn_like(parameters[name])
        others[name].grad = parameters[name].grad.clone()
    optimizer.step()
    adamw.step()
    for name, parameter in parameters.items():
        if name.startswith("blocks.") and name.endswith("weight"):
            step = (before[name] * (1 - 0.1 * 0.01) - parameter).detach() / (0.1 * 0.2 * 6**0.5)
            assert torch.linalg.svdvals(step).sub(1).abs().max() < 0.5
            u, _, v = torch.linalg.svd(parameter.grad, full_matrices=False)
            assert torch.nn.functional.cosine_similarity(step.flatten(), (u @ v).flatten(), dim=0) > 0.95
        else:
            assert torch.equal(parameter, others[name])


def test_muon_agrees_with_torch_but_for_its_half_precision():
    _, parameters, optimizer = made(optim=replace(MUON, weight_decay=0.0))
    name = "blocks.0.0.weight"
    own = nn.Parameter(parameters[name].detach().clone())
    theirs = torch.optim.Muon([own], lr=0.1, momentum=0.9, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    torch.manual_seed(1)
    start = own.detach().clone()
    for _ in range(3):
        own.grad = torch.randn_like(own)
        for other, parameter in parameters.items():
            parameter.grad = own.grad.clone() if other == name else torch.zeros_like(parameter)
        optimizer.step()
        theirs.step()
    moved = (parameters[name] - start).norm()
    assert (parameters[name] - own).norm() < 0.03 * moved


def test_an_optimizer_says_what_it_keeps_of_each_parameter():
    for name in OPTIMIZERS:
        optim = replace(MUON, name=name)
        model, parameters, optimizer = made(optim=optim)
        for parameter in parameters.values():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        spec = optimizer_spec(optim)
        for key, parameter in parameters.items():
            rule = spec.rule(model.placements[key])
            kept = {k: v for k, v in optimizer.state[parameter].items() if isinstance(v, torch.Tensor)}
            assert kept.keys() == {*rule.state, *(["step"] if rule.counts_steps else [])}
            assert sum(v.nbytes for k, v in kept.items() if k != "step") == rule.state_bytes * parameter.numel()


def test_muon_is_refused_where_a_model_has_no_blocks():
    with pytest.raises(ConfigError, match=r"optim must be .* names no blocks; try optim=adamw"):
        made(lambda: nn.Linear(3, 4))


def test_muon_updates_what_is_left_where_all_blocks_are_frozen():
    def build() -> nn.Module:
        model = GPT(GPTConfig(embed_dim=8, depth=1, num_heads=2))
        model.trunk.blocks.requires_grad_(False)
        return model

    model = parallelize(build, Mesh.alone(), ParallelConfig(), seed=0)
    optimizer = build_optimizer(dict(model.named_parameters()), model.placements, MUON)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for value in model.module.parameters():
        value.grad = torch.ones_like(value) if value.requires_grad else None
    optimizer.step()
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if ".blocks." not in name}


def test_whole_matrices_are_shared_out_evenly():
    assert shared_evenly([5, 9, 4, 2], 2) == [[1, 3], [0, 2]]
    assert shared_evenly([1], 3) == [[0], [], []]


@pytest.mark.parametrize(
    "name", [name for name in OPTIMIZERS if optimizer_spec(OptimConfig(name=name)).skips_on_device]
)
def test_an_optimizer_that_is_told_so_on_the_device_leaves_weights_alone_and_else_steps_as_ever(name):
    (_, plain, alone), (_, watched, told) = (made(optim=replace(MUON, name=name)) for _ in range(2))
    for step, value in enumerate([1.0, 0.5, math.nan]):
        torch.manual_seed(step)
        for parameter, other in zip(plain.values(), watched.values(), strict=True):
            parameter.grad = value * torch.randn_like(parameter)
            other.grad = parameter.grad.clone()
        before = {key: parameter.detach().clone() for key, parameter in watched.items()}
        skips = math.isnan(value)
        told.found_inf = torch.tensor(float(skips))
        told.step()
        if skips:
            assert all(torch.equal(parameter, before[key]) for key, parameter in watched.items())
            return
        alone.step()
        assert all(torch.equal(parameter, plain[key]) for key, parameter in watched.items())
