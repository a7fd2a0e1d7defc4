"""The flow task: normalized increments, what is conserved, obstacles, steps from the model's own states, scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from domains.fluids.data.batch import FlowBatch, FlowSample, Start, collate
from domains.fluids.data.data_config import FlowSplits, FluidsDataConfig
from domains.fluids.data.datasets import open_flows
from domains.fluids.data.readers import open_sources
from domains.fluids.data.samples import FlowSamples
from domains.fluids.data.schema import DataSet, FluidsSchema, FluidsStatistics, Scale
from domains.fluids.forecast.example import FlowExample
from domains.fluids.forecast.example_rollout import read_example
from domains.fluids.forecast.forecast_file import ForecastFile
from domains.fluids.forecast.metrics import CONSERVATION_ERROR, VRMSE, FluidsMetrics
from domains.fluids.forecast.task import FluidsTask
from domains.fluids.forecast.task_config import FluidsTaskConfig
from domains.fluids.solver import CASES, Background, Schedule, run, totals
from domains.fluids.solver.grid import SolverGrid
from domains.fluids.solver.step import Solver
from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.domain.protocol import Prediction
from sciml.forecast.rollout import rollout

from . import flow_files
from .flows import CHANNELS
from .flows import model as small_model

SIDES = {"x": ("periodic", "periodic"), "z": ("wall", "wall")}
WEATHER = DataSet(CHANNELS, (), (16, 32), 100.0, 100.0, 20.0, SIDES)
OPEN = {"x": ("open", "open"), "z": ("wall", "wall")}
CHANNEL = DataSet(
    ("uwnd", "wwnd"), ("obstacle",), (8, 16), 1.0, 1.0, 2.0, {"x": ("open", "open"), "z": ("wall", "wall")}
)


def scale(count: int, interval: float, cells: tuple[int, int], seed: int = 0) -> Scale:
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(3, count, generator=generator) + 0.5
    seconds = torch.tensor([1.0, 2.0]).double() * interval
    return Scale(torch.zeros(count), positive[0], seconds, positive[1:], torch.tensor(cells))


def task(data_sets=None, grid=None, **changes) -> FluidsTask:
    data_sets = data_sets or {"flow": WEATHER}
    statistics = {name: scale(len(d.variables), d.interval, grid or d.shape) for name, d in data_sets.items()}
    settings = build(FluidsTaskConfig, {"strides": [1, 2], **changes}, prefix="task")
    return FluidsTask(FluidsSchema(data_sets), FluidsStatistics(statistics), settings)


def sample(name="flow", data_set=WEATHER, steps=1, stride=1, seed=0, own=0) -> FlowSample:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(steps + 2, len(data_set.variables), *data_set.shape, generator=generator)
    fluid = None
    if "obstacle" in data_set.constants:
        fluid = torch.ones(1, *data_set.shape, dtype=torch.bool)
        fluid[:, 2:5, 3:6] = False
        states = states * fluid
    seconds = (stride * data_set.interval,) * steps
    return FlowSample(Start(name, 0, 0), states[1], states[0], seconds, states[2:], fluid, pushforward_steps=own)


class Says(nn.Module):
    """A model that says what it is told."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.calls = answer, []

    def forward(self, fields, names, lead, boundary, **options):
        self.calls.append((fields, names, lead, boundary, options))
        return self.answer(fields) if callable(self.answer) else self.answer


def test_the_model_sees_standardized_states_and_its_answer_is_denormalized():
    one, batch = task(), collate([sample(), sample(stride=2, seed=1)])
    part, known = batch.parts["flow"], one.statistics.scales["flow"]
    model = Says(torch.ones(2, 4, 16, 32))
    prediction = one.predict(model, batch)
    fields, names, lead, boundary, options = model.calls[0]
    std = known.std[:, None, None]
    torch.testing.assert_close(fields, part.state / std)
    torch.testing.assert_close(options["previous"], part.previous / std)
    assert names == CHANNELS
    assert lead.tolist() == [20.0, 40.0]
    assert boundary == WEATHER.boundary
    moved = prediction.values["flow"] - part.state
    torch.testing.assert_close(moved[0], known.increment_std[0][:, None, None].expand(4, 16, 32), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moved[1], known.increment_std[1][:, None, None].expand(4, 16, 32), rtol=1e-4, atol=1e-5)


def test_a_perfect_answer_has_no_loss():
    one, batch = task(), collate([sample(), sample(stride=2, seed=1)])
    part = batch.parts["flow"]
    truth = (part.targets[:, 0] - part.state) / one.statistics.scales["flow"].increments_over(part.steps[:, 0])
    assert one.loss(Says(truth), batch).loss.item() < 1e-12
    nothing = one.loss(Says(torch.zeros_like(truth)), batch)
    torch.testing.assert_close(nothing.loss, truth.square().mean())
    assert nothing.weight == 2


def test_the_mean_of_what_is_conserved_does_not_change():
    one, batch = task(conserve=["dens"]), collate([sample(), sample(seed=3)])
    answer = torch.randn(2, 4, 16, 32, generator=torch.Generator().manual_seed(0)) + 1
    moved = one.predict(Says(answer), batch).values["flow"] - batch.parts["flow"].state
    means = moved.mean((-2, -1))
    assert means[:, 0].abs().max() < 1e-6
    assert (means[:, 1:] > 0.3).all()


def test_obstacles_stay_zero_are_told_and_do_not_count():
    one, batch = task({"flow": CHANNEL}), collate([sample(data_set=CHANNEL)])
    part = batch.parts["flow"]
    model = Says(torch.ones(1, 2, 8, 16))
    prediction = one.predict(model, batch).values["flow"]
    fields, names, *_ = model.calls[0]
    assert names == ("uwnd", "wwnd", "obstacle")
    assert torch.equal(fields[:, 2:].bool(), ~part.fluid)
    hidden = ~part.fluid.expand_as(prediction)
    assert not prediction[hidden].any()
    scales = one.statistics.scales["flow"].increments_over(part.steps[:, 0])
    squared = (((part.targets[:, 0] - part.state) / scales) - 1).square()
    expected = squared[part.fluid.expand_as(squared)].mean()
    torch.testing.assert_close(one.loss(model, batch).loss, expected)


def test_what_never_changes_stays():
    one, batch = task(), collate([sample()])
    one.statistics.scales["flow"].increment_std[:, 1] = 0
    part = batch.parts["flow"]
    moved = one.predict(Says(torch.ones(1, 4, 16, 32)), batch).values["flow"] - part.state
    assert not moved[:, 1].any()
    assert (moved[:, [0, 2, 3]] != 0).all()
    assert one.loss(Says(torch.zeros(1, 4, 16, 32)), batch).loss.isfinite()


def test_states_on_another_grid_may_go_through_that_of_the_training():
    fine = replace(WEATHER, shape=(32, 64), dx=50.0, dz=50.0)
    batch = collate([sample(data_set=fine)])
    part = batch.parts["flow"]
    answer = torch.randn(1, 4, 16, 32, generator=torch.Generator().manual_seed(0))
    model = Says(answer)
    one = task({"flow": fine}, grid=(16, 32))
    moved = one.predict(model, batch).values["flow"] - part.state
    fields, *_, options = model.calls[0]
    std = one.statistics.scales["flow"].std[:, None, None]
    means = part.state.unflatten(3, (32, 2)).mean(4).unflatten(2, (16, 2)).mean(3)
    torch.testing.assert_close(fields, means / std)
    assert options["cell_size"].tolist() == [100.0]
    scales = one.statistics.scales["flow"].increments_over(part.steps[:, 0])
    coarse = (moved / scales).unflatten(3, (32, 2)).mean(4).unflatten(2, (16, 2)).mean(3)
    assert torch.corrcoef(torch.stack([coarse.flatten(), answer.flatten()]))[0, 1] > 0.9
    plain = Says(torch.zeros(1, 4, 32, 64))
    task({"flow": fine}, grid=(16, 32), resample=False).predict(plain, batch)
    assert plain.calls[0][0].shape == (1, 4, 32, 64)
    assert plain.calls[0][4]["cell_size"].tolist() == [50.0]


def test_a_batch_of_several_data_sets_is_the_mean_over_samples():
    data_sets = {"weather": WEATHER, "channel": CHANNEL}
    one = task(data_sets)
    samples = [sample("weather"), sample("channel", CHANNEL, seed=1), sample("weather", seed=2)]

    def zeros(fields):
        return torch.zeros(len(fields), 4 if fields.shape[1] == 4 else 2, *fields.shape[2:])

    together = one.loss(Says(zeros), collate(samples))
    alone = [one.loss(Says(zeros), collate([s])).loss for s in samples]
    torch.testing.assert_close(together.loss, torch.stack(alone).mean())
    assert set(together.parts) == {"loss_weather", "loss_channel"}
    torch.testing.assert_close(sum(together.parts.values()), together.loss)
    of_one = one.loss(Says(zeros), collate(samples[:1]))  # another rank has the other
    assert list(of_one.parts) == list(together.parts)
    assert of_one.parts["loss_weather"] == of_one.loss
    assert of_one.parts["loss_channel"] == 0
    found = one.metrics()
    for step, prediction in rollout(one, Says(zeros), collate(samples)):
        found.update(prediction, step)
    assert {score.variable for score in found.compute()} == {
        *(f"weather.{name}" for name in CHANNELS), "channel.uwnd", "channel.wwnd",
    }  # fmt: skip


@pytest.mark.parametrize("own", [0, 1, 2])
def test_pushforward_starts_from_as_many_steps_of_the_model(own):
    """The loss of a sample with two steps before the one that is learned, by hand."""
    one, made = task(pushforward=2), small_model().float()
    batch = collate([sample(steps=3, own=own)])
    part = batch.parts["flow"]
    truth = [part.state, *part.targets[0].split(1)]
    seconds = part.steps[:, 0]
    scales = one.statistics.scales["flow"].increments_over(seconds)

    def alone(state, previous):
        next_step = replace(part, state=state, previous=previous, steps=part.steps[:, :1], targets=None)
        plain = replace(batch, parts={"flow": next_step})
        return one.predict(made, plain).values["flow"]

    with torch.no_grad():
        states = [truth[0], truth[1], truth[2]]
        for step in range(2 - own, 2):
            before = part.previous if step == 0 else states[step - 1]
            states[step + 1] = alone(states[step], before)
        expected = ((alone(states[2], states[1]) - truth[3]) / scales).square().mean()
    found = one.loss(made, batch)
    torch.testing.assert_close(found.loss, expected, rtol=1e-5, atol=1e-6)
    found.loss.backward()
    assert made.tokenizer[0].weight.grad.abs().sum() > 0


def test_only_samples_that_start_from_the_models_state_are_stepped():
    one, owns = task(pushforward=2), (0, 2, 1, 0)
    batch = collate([sample(steps=3, own=own, seed=seed) for seed, own in enumerate(owns)])
    model = Says(lambda fields: 0.1 * fields)
    together = one.loss(model, batch).loss
    assert [len(fields) for fields, *_ in model.calls] == [1, 2, 4]
    apart = [one.loss(model, collate([sample(steps=3, own=own, seed=seed)])).loss for seed, own in enumerate(owns)]
    torch.testing.assert_close(together, torch.stack(apart).mean())


def test_a_step_that_no_sample_needs_is_taken_all_the_same():
    """Or ranks whose samples need it would wait for the others."""
    model = Says(lambda fields: 0.1 * fields)
    task(pushforward=1).loss(model, collate([sample(steps=2), sample(steps=2, seed=1)]))
    assert [len(fields) for fields, *_ in model.calls] == [1, 2]


def test_hysteresis_hears_of_the_last_mesh():
    one = task()
    made = small_model(indicator="random", hysteresis=1e6).float()
    batch = collate([sample(steps=3)])
    meshes = [prediction.forests["flow"].is_refined(0) for _, prediction in rollout(one, made, batch)]
    assert torch.equal(meshes[0], meshes[1])
    assert torch.equal(meshes[0], meshes[2])
    free = [p.forests["flow"].is_refined(0) for _, p in rollout(one, small_model(indicator="random").float(), batch)]
    assert torch.equal(free[0], meshes[0])
    assert not torch.equal(free[0], free[2])


def test_the_oracle_is_told_the_truth():
    told = task()
    told.needs_truth = True
    batch = collate([sample()])
    model = Says(torch.zeros(1, 4, 16, 32))
    told.predict(model, batch)
    std = told.statistics.scales["flow"].std[:, None, None]
    torch.testing.assert_close(model.calls[0][4]["truth"], batch.parts["flow"].targets[:, 0] / std)


def test_scores_are_their_formulas():
    one, batch = task(score_frames=[1]), collate([sample(seed=n) for n in range(3)])
    part, found = batch.parts["flow"], None
    found = one.metrics()
    generator = torch.Generator().manual_seed(9)
    fields = part.targets[:, 0] + 0.1 * torch.randn(part.state.shape, generator=generator)
    for rows in (slice(0, 2), slice(2, 3)):  # batches of different sizes
        some = FlowBatch({"flow": collate([sample(seed=n) for n in range(3)][rows]).parts["flow"]})
        found.update(Prediction({"flow": fields[rows]}), some)
    scores = {(score.variable, score.metric.name): score for score in found.compute()}
    truth = part.targets[:, 0].double().numpy()
    error = ((fields.double().numpy() - truth) ** 2).mean((-2, -1))
    for place, name in enumerate(CHANNELS):
        expected = np.sqrt(error[:, place] / truth[:, place].var((-2, -1))).mean()
        assert scores[name, "vrmse"].value == pytest.approx(expected, rel=1e-6)
        assert scores[name, "rmse"].value == pytest.approx(np.sqrt(error[:, place].mean()), rel=1e-9)
        assert scores[name, "vrmse"].lead_time_h == pytest.approx(20 / 3600)
    assert scores["uwnd", "rmse"].unit == "m s-1"
    assert ("mass", "conservation_error") not in scores  # no profiles are known


def test_the_mean_of_the_truth_scores_one():
    one, batch = task(score_frames=[1]), collate([sample()])
    found = one.metrics()
    truth = batch.parts["flow"].targets[:, 0]
    found.update(Prediction({"flow": truth.mean((-2, -1), keepdim=True).expand_as(truth)}), batch)
    for score in found.compute():
        if score.metric == VRMSE:
            assert score.value == pytest.approx(1, rel=1e-5)


def test_conservation_errors_are_scored_where_the_air_at_rest_is_known():
    grid = SolverGrid(32, 16)
    background = Background.of(grid, 0.0)
    data_set = replace(WEATHER, dx=grid.dx, dz=grid.dz)
    one = task({"flow": data_set}, score_frames=[1])
    profiles = torch.tensor(np.stack([background.dens, background.theta]))
    one_sample = sample(data_set=data_set)
    batch = collate([replace(one_sample, state=0.01 * one_sample.state, profiles=profiles)])
    found = one.metrics()
    fields = batch.parts["flow"].initial.clone()
    fields[:, 0] += 0.01
    found.update(Prediction({"flow": fields}), batch)
    errors = {score.variable: score.value for score in found.compute() if score.metric == CONSERVATION_ERROR}
    before, after = (
        totals(states, profiles[None, 0], profiles[None, 1], grid.dx, grid.dz)
        for states in (batch.parts["flow"].initial, fields)
    )
    assert errors["mass"] == pytest.approx(float((after.mass / before.mass - 1).abs()), rel=1e-9)
    assert errors["mass"] > 1e-3
    assert errors["energy"] == pytest.approx(float((after.energy / before.energy - 1).abs()), rel=1e-9)


def test_sums_of_ranks_add_up():
    one = task(score_frames=[1])
    batches = [collate([sample(seed=n)]) for n in range(2)]
    whole, parts = one.metrics(), [one.metrics(), one.metrics()]
    for batch, part in zip(batches, parts, strict=True):
        for metrics in (whole, part):
            metrics.update(Prediction({"flow": batch.parts["flow"].state}), batch)
    for total, first, second in zip(whole.sums(), *(part.sums() for part in parts), strict=True):
        torch.testing.assert_close(first + second, total)
    assert isinstance(whole, FluidsMetrics)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": []}, r"task\.strides must be at least 1 long"),
        ({"score_frames": [0]}, r"task\.score_frames\.0 must be at least 1, got 0"),
        ({"strides": [2], "score_frames": [3]}, r"task\.score_frames: no stride of \[2\] divides them all"),
        ({"noise": -1.0}, r"task\.noise must be at least 0, got -1\.0"),
        ({"pushforward": -1}, r"task\.pushforward must be at least 0, got -1"),
        ({"conserve": ["densty"]}, r"task\.conserve: the data have no 'densty'; did you mean 'dens'"),
    ],
)
def test_bad_tasks_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        task(**change)


def test_conservation_follows_sides_and_sources():
    closed, leaking = sample(), replace(sample(seed=3), steady=torch.tensor([False, True, True, True]))
    one, batch = task(conserve=["auto"]), collate([replace(closed, steady=torch.ones(4, dtype=torch.bool)), leaking])
    before = batch.parts["flow"].state
    moved = (one.predict(Says(torch.ones(2, 4, 16, 32)), batch).values["flow"] - before).mean((2, 3))
    assert moved[0, 0].abs() < 1e-6
    assert moved[1, 0] > 0.1  # what is blown in stays in
    assert (moved[:, 1] > 0.1).all()  # and other variables are not kept
    opened = task({"flow": replace(WEATHER, sides=OPEN)}, conserve=["auto"])
    assert opened.predict(Says(torch.ones(1, 4, 16, 32)), collate([closed])).values["flow"][0, 0].mean() > 0.1
    assert task({"flow": CHANNEL}, conserve=["auto"]).conserved == {"flow": ()}


def test_an_open_domain_conserves_nothing():
    with pytest.raises(ConfigError, match=r"task\.conserve: flow is open at a side"):
        task({"flow": CHANNEL}, conserve=["uwnd"])


def test_the_solver_on_coarser_grids_is_a_baseline_where_data_come_from_it():
    plain = {baseline.name for baseline in task().baselines()}
    assert plain == {"persistence"}  # the air at rest is not known
    grid = SolverGrid(64, 32)
    background = Background.of(grid, 0.0)
    known = replace(WEATHER, shape=(32, 64), dx=grid.dx, dz=grid.dz, has_profiles=True)
    one = task({"flow": known}, strides=[1])
    solver = Solver([CASES["collision"]], grid, dtype=torch.float32, device=torch.device("cpu"), compiled=False)
    state = solver.fields(solver.start())[0]
    steps = Schedule.uniform(grid.largest_step, 2, 20.0)
    later = list(run([CASES["collision"]], grid, steps.exact(), dtype=torch.float32))[-1].fields[0]
    profiles = torch.from_numpy(np.stack([background.dens, background.theta])).float()
    batch = collate([FlowSample(Start("flow", 0, 0), state, state, (20.0,), later[None], profiles=profiles)])
    errors = {}
    for baseline, predict in one.baselines().items():
        errors[baseline.name] = (predict(batch).values["flow"][0] - later).square().mean((1, 2)).sqrt()
    assert (errors["solver_coarser_by_2"] < errors["solver_coarser_by_4"]).all()
    assert (errors["solver_coarser_by_4"] < errors["persistence"])[:3].all()


def test_fields_that_are_the_same_everywhere_have_no_vrmse():
    one = task()
    flat = sample()
    targets = flat.targets.clone()
    targets[:, 3] = 101325.0
    batch = collate([replace(flat, targets=targets)])
    metrics = FluidsMetrics(one.schema, one.statistics, [1])
    predicted = targets[0][None].clone()
    predicted[:, 3] += 0.01
    predicted[:, 0] += 1.0
    metrics.update(Prediction({"flow": predicted}), batch)
    found = {(score.variable, score.metric.name): score.value for score in metrics.compute()}
    assert ("theta", "vrmse") not in found
    assert found["theta", "rmse"] == pytest.approx(0.01, rel=0.5)
    assert found["dens", "vrmse"] == pytest.approx(1.0, rel=0.1)


def test_a_forecast_file_has_the_places_and_times_of_its_flow(tmp_path):
    placed = replace(CHANNEL, first=(-1.65, -0.5), units=("", ""))
    batch = collate([sample(data_set=placed)])
    file = ForecastFile(tmp_path / "a.nc", FluidsSchema({"flow": placed}), batch, begins=3e-6)
    file.append(2e-7 / 3600, Prediction({"flow": batch.parts["flow"].state}))
    file.close()
    (source,) = open_sources(str(tmp_path / "a.nc"))
    assert source.times.tolist() == pytest.approx([3e-6, 3.2e-6], rel=1e-9)
    assert (source.z.first, source.x.first, source.dx) == pytest.approx((-1.65, -0.5, 1))
    assert np.array_equal(source.mask, ~batch.parts["flow"].fluid[0, 0].numpy())


@pytest.mark.parametrize(("leads", "known"), [(2, 2), (6, 3)])
def test_a_forecast_beyond_the_end_of_its_flow_keeps_the_truth_that_there_is(tmp_path, leads, known):
    truth = flow_files.miniweather(tmp_path / "flow.nc", times=tuple(10.0 * n for n in range(4)))
    splits = FlowSplits(train=0, valid=0, test=1)
    schema, flows = open_flows(FluidsDataConfig(path=str(tmp_path / "flow.nc"), splits=splits))
    source = FlowSamples(flows, "test", [1], 0)
    batch = collate([source.at(source.starts[0], 1, 0)])
    file = ForecastFile(tmp_path / "forecast.nc", schema, batch)
    for lead in range(leads):
        file.append((lead + 1) * 10 / 3600, Prediction({"flow": batch.parts["flow"].state + lead}))
    file.close()
    example = FlowExample.of(schema, read_example(tmp_path / "forecast.nc", source))
    np.testing.assert_array_equal(example.truth[:known], truth[1 : known + 1])
    assert np.isnan(example.truth[known:]).all()
    assert (len(example.forecast), example.last_compared, example.nearest_lead(None)) == (leads, known - 1, known - 1)
