"""The model that corrects a solver: what it starts from, where it refines, what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from domains.fluids.data.batch import FlowSample, Start, collate
from domains.fluids.data.schema import DataSet, FluidsSchema, FluidsStatistics
from domains.fluids.forecast.task import FluidsTask
from domains.fluids.forecast.task_config import FluidsTaskConfig
from domains.fluids.refine.coarse_solver import CoarseSolver
from domains.fluids.refine.config import RefineConfig
from domains.fluids.refine.model import RefineModel
from domains.fluids.solver import VARIABLES, SolverGrid
from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.run.compose import compose
from sciml.run.spec import RunSpec

from .flows import filled
from .test_coarse_solver import profiles, start
from .test_task import SIDES, scale

DATA = DataSet(VARIABLES, (), (16, 32), 625.0, 625.0, 20.0, SIDES)
SMALL = {"conv_width": 8, "embed_dim": 16, "num_heads": 2, "depth": 2, "patch_size": 8, "condition_dim": 8,
         "rotary_max_harmonic": 2, "budgets": (0.25,)}  # fmt: skip


def config(**changes) -> RefineConfig:
    return RefineConfig(**{**SMALL, **changes})


def task(model: RefineConfig, data_set: DataSet = DATA, **changes) -> FluidsTask:
    statistics = FluidsStatistics({"flow": scale(4, 20.0, data_set.shape)})
    settings = build(FluidsTaskConfig, changes, prefix="task")
    return FluidsTask(FluidsSchema({"flow": data_set}), statistics, settings, refine=model)


def refine(one: RefineConfig) -> RefineModel:
    torch.manual_seed(0)
    return RefineModel(one, VARIABLES, VARIABLES)


def batch(steps: int = 1):
    state = start("collision")[0][0].float()
    air = profiles(0.0)[0].float()
    targets = torch.stack([state + number for number in range(1, steps + 1)])
    sample = FlowSample(Start("flow", 0, 0), state, state, (20.0,) * steps, targets, profiles=air)
    return collate([sample, replace(sample, state=state.roll(8, -1))])


def test_an_untrained_model_is_the_solver_and_a_trained_one_is_not():
    one = config()
    work, model = task(one, conserve=["dens"]), refine(one)
    part = batch().parts["flow"]
    solved = work._stepped("flow", part).fields
    torch.testing.assert_close(work.predict(model, batch()).values["flow"], solved, rtol=1e-5, atol=1e-6)
    corrected = work.predict(filled(model), batch()).values["flow"]
    assert (corrected - solved).abs().max() > 1e-3
    assert (corrected - part.state)[:, 0].mean((1, 2)).abs().max() < 1e-6  # mass is kept


def test_it_refines_where_two_solvers_differ_and_moves_with_the_flow():
    one = config()
    prediction = task(one).predict(filled(refine(one)), batch())
    refined = prediction.forests["flow"].is_refined(0).view(2, 2, 4)
    assert refined.sum((1, 2)).tolist() == [2, 2]
    assert torch.equal(refined[1], refined[0].roll(1, -1))
    torch.testing.assert_close(
        prediction.values["flow"][1], prediction.values["flow"][0].roll(8, -1), rtol=1e-4, atol=1e-4
    )


def test_every_parameter_learns_through_unrolled_steps():
    one = config(indicator="learned")
    model = filled(refine(one))
    loss = task(one, unroll=2, pushforward=0).loss(model, batch(2)).loss
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_gradients_go_through_the_steps_before():
    """One long step back: the first step's correction is learned from the second step's error, too."""
    one = config(ratios=(), budgets=())
    model, whole = filled(refine(one)), batch(2)

    def gradient(part):
        model.zero_grad()
        task(one, unroll=part.parts["flow"].steps.shape[1]).loss(model, part).loss.backward()
        return model.net.head.bias.grad.clone()

    first = batch(1)
    assert (gradient(whole) - gradient(first) / 2).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"variables": ("dens", "uwnd", "wwnd")}, "the solver steps dens, uwnd, wwnd, theta"),
        ({"sides": {"x": ("open", "open"), "z": ("wall", "wall")}}, "periodic along x and has walls"),
        ({"shape": (18, 34)}, "34x18 cells of flow cannot be coarsened by 2"),
    ],
)
def test_data_that_no_solver_can_step(changes, match):
    with pytest.raises(ConfigError, match=match):
        task(config(), replace(DATA, **changes))


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (["parallel.tp=2", "task.unroll=2"], "task.unroll"),
        (["parallel.pp=2", "task.pushforward=0", "parallel.schedule=zero_bubble"], "parallel.schedule"),
    ],
)
def test_ways_of_sharding_that_cannot_work(overrides, match):
    config = compose("train", ["domain=fluids", "model=refine", "reference_models=null", *overrides]).config
    with pytest.raises(ConfigError, match=match):
        RunSpec.build(config)


@pytest.mark.parametrize(
    ("changes", "match"), [({"coarsen": 3}, "power of two"), ({"square": 4, "patch_size": 4}, "finest patches")]
)
def test_a_configuration_that_does_not_fit(changes, match):
    with pytest.raises(ConfigError, match=match):
        config(**changes)


@pytest.mark.parametrize(("shape", "factor"), [((8, 16), 1), ((16, 32), 2), ((32, 64), 4)])
def test_on_any_grid_it_corrects_the_solver_that_it_learned_to_correct(shape, factor):
    one = config(ratios=(), budgets=())
    cell = 20000 / shape[1]
    data_set = replace(DATA, shape=shape, dx=cell, dz=cell)
    statistics = FluidsStatistics({"flow": scale(4, 20.0, DATA.shape)})
    work = FluidsTask(FluidsSchema({"flow": data_set}), statistics, FluidsTaskConfig(), refine=one)
    grid = SolverGrid(shape[1], shape[0])
    state, air = start("collision", grid)[0][:1].float(), profiles(0.0, grid)[:1].float()
    seconds = torch.tensor([20.0])
    expected = CoarseSolver(cell, cell, factor, 20.0)(state, air, seconds)
    torch.testing.assert_close(work.priors["flow"](state, air, seconds).fields, expected)


def test_grids_on_which_the_solver_would_be_another_are_refused():
    statistics = FluidsStatistics({"flow": scale(4, 20.0, DATA.shape)})
    schema = FluidsSchema({"flow": replace(DATA, shape=(20, 40))})
    with pytest.raises(ConfigError, match=r"16x8 cells, to which the 40x20 cells of flow cannot be halved"):
        FluidsTask(schema, statistics, FluidsTaskConfig(), refine=config())
    FluidsTask(schema, statistics, build(FluidsTaskConfig, {"resample": False}, prefix="task"), refine=config())


def test_without_a_judge_the_grid_is_halved_no_further():
    shape = replace(DATA, shape=(18, 36))
    task(config(ratios=(), budgets=()), shape)
    with pytest.raises(ConfigError, match="and, to judge it, by 2 more"):
        task(config(), shape)
