"""A fitted step recovers what is linear and what the wind carries, keeps symmetries, and is left out where useless."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from domains.fluids.data.batch import collate
from domains.fluids.data.boundary import Boundary
from domains.fluids.data.data_config import FlowSplits, FluidsDataConfig
from domains.fluids.data.datasets import Flows, describe_flows
from domains.fluids.data.readers.source import Axis, FlowSource
from domains.fluids.data.samples import FlowSamples
from domains.fluids.data.schema import FluidsSchema, FluidsStatistics, Scale
from domains.fluids.data.statistics import measure
from domains.fluids.domain import FluidsDomain, check_as_trained
from domains.fluids.forecast.baselines import baselines
from domains.fluids.propagator.carry import carried
from domains.fluids.propagator.fit import _pairs, fit_propagator, with_zero_propagator
from domains.fluids.propagator.propagator import Propagator, Waves
from sciml.core.errors import ConfigError
from sciml.domain.protocol import FittedData
from sciml.nn.topology import Plane, Side
from sciml.run.compose import compose
from sciml.run.spec import RunSpec

CHANNEL, TORUS, BOX = (
    Boundary.of("periodic", "wall"), Boundary.of("periodic", "periodic"), Boundary.of("wall", "wall")
)  # fmt: skip
X, Z = (2 * np.pi * (np.arange(count) + 0.5) / count for count in (32, 16))


class Frames:
    """Fields in memory."""

    def __init__(self, fields: np.ndarray, names: tuple[str, ...]):
        self.fields, self.names = fields, names

    def read(self, times, variables):
        return self.fields[times][:, [self.names.index(name) for name in variables]]


def flows_of(fields: np.ndarray, names: tuple[str, ...], boundary: Boundary, winds=None) -> Flows:
    """A data set of flows (flow, time, variable, z, x) on cells of 100 m, a frame every 10 s."""
    times = 10.0 * np.arange(fields.shape[1])
    z, x = (Axis.from_zero(100.0, size) for size in fields.shape[3:])
    sources = [
        FlowSource(f"flow {n}", names, winds, times, x, z, boundary, Frames(each, names))
        for n, each in enumerate(fields)
    ]
    config = FluidsDataConfig(path="memory", splits=FlowSplits(train=len(fields) - 2, valid=1, test=1))
    return describe_flows(config, {"flow": sources})[1]["flow"]


def fitted(flows: Flows, strides=(1,), *, mirrored=False) -> Scale:
    return fit_propagator(flows, measure(flows, strides), strides, mirrored=mirrored)


def waves(boundary: Boundary, count: int = 8, frames: int = 6, seed: int = 0) -> np.ndarray:
    """Fields whose waves along x move at speeds of their own and fade, and along z are those that the sides allow."""
    random = np.random.default_rng(seed)
    flows = np.zeros((count, frames, 1, 16, 32))
    along_x = (lambda k: np.cos(k * X / 2)) if boundary.x[0] is Side.WALL else None
    for flow in range(count):
        for k in range(4):
            for m in range(3):
                size, phase = random.normal(), random.uniform(0, 2 * np.pi)
                in_z = np.cos(m * Z / 2) if boundary.z[0] is Side.WALL else np.cos(m * Z + phase)
                for t in range(frames):
                    in_x = along_x(k) if along_x else np.cos(k * (X - 0.3 * t) + phase)
                    flows[flow, t, 0] += size * 0.9 ** (t * (m + k)) * in_z[:, None] * in_x
    return flows.astype(np.float32)


@pytest.mark.parametrize("boundary", [CHANNEL, TORUS, BOX], ids=["channel", "torus", "box"])
def test_what_is_linear_is_recovered(boundary):
    scale = fitted(flows_of(waves(boundary, 24), ("tracer",), boundary))
    assert scale.left_by_propagator.max() < 0.03


def test_what_the_wind_carries_is_recovered():
    """Shorter waves than the matrices know, in a wind that differs from flow to flow."""
    random, flows = np.random.default_rng(1), []
    for _ in range(6):
        wind, phase = random.uniform(-15, 15), random.uniform(0, 6)
        x = 2 * np.pi * (np.arange(256) + 0.5) / 256
        tracer = [np.cos(6 * (x - wind * 10 * t * 2 * np.pi / 25600) + phase) for t in range(5)]
        frames = np.stack([np.stack([row, np.full(256, wind), np.zeros(256)]) for row in tracer])
        flows.append(np.broadcast_to(frames[:, :, None], (5, 3, 8, 256)))
    found = flows_of(np.stack(flows).astype(np.float32), ("tracer", "u", "w"), CHANNEL, winds=("u", "w"))
    assert found.data_set.variables == ("tracer", "uwnd", "wwnd")
    assert fitted(found).left_by_propagator[0, 0] < 0.05


def test_several_steps_reach_a_stride():
    flows = flows_of(waves(CHANNEL, 24), ("tracer",), CHANNEL)
    scale = fitted(flows, (2, 4))
    assert float(scale.propagator_seconds) == 20.0
    step = Propagator.of(flows.data_set, scale)
    fields = torch.from_numpy(flows.trajectories["test"][0].read(0, 1)).expand(2, -1, -1, -1)
    after = step(fields, torch.tensor([20.0, 40.0]), 40.0)
    torch.testing.assert_close(after[:1], step.step(fields[:1]))
    torch.testing.assert_close(after[1:], step.step(step.step(fields[1:])))
    assert scale.left_by_propagator.shape == (2, 1)


@pytest.mark.parametrize("boundary", [CHANNEL, TORUS], ids=["channel", "torus"])
def test_moved_and_mirrored_flows_take_the_same_step(boundary):
    fields = np.random.default_rng(0).normal(size=(10, 4, 3, 16, 32)).cumsum(1).astype(np.float32)
    flows = flows_of(fields, ("tracer", "u", "w"), boundary, winds=("u", "w"))
    zero = with_zero_propagator(flows.data_set, measure(flows, (1,)), (1,))
    shape, waves = zero.propagator.shape, Propagator.of(flows.data_set, zero).waves
    drawn = torch.view_as_complex(torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.02)
    even = torch.stack([(each + waves.mirrored(each)) / 2 for each in drawn])
    step = Propagator.of(flows.data_set, replace(zero, propagator=torch.view_as_real(even)))
    state = torch.from_numpy(fields[0, :1])
    signs = torch.tensor([1.0, -1.0, 1.0])[:, None, None]
    after = step.step(state)
    torch.testing.assert_close(step.step(state.roll(5, -1)), after.roll(5, -1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(step.step(state.flip(-1) * signs), after.flip(-1) * signs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("boundary", [CHANNEL, TORUS, BOX, Boundary.of("open", "periodic")], ids=str)
@pytest.mark.parametrize("cells", [(16, 32), (15, 31)], ids=str)
def test_waves_give_the_fields_again(boundary, cells):
    waves = Waves(cells, boundary, (False, True, False))
    fields = torch.randn(2, 3, *cells, generator=torch.Generator().manual_seed(0))
    apart = waves.of(fields)
    assert (apart.shape[0], apart.shape[2] // 3) == waves.shape
    torch.testing.assert_close(waves.fields(apart, 3), fields, rtol=1e-5, atol=1e-5)


def test_what_a_plan_counts_has_the_shape_of_what_is_fitted():
    flows = flows_of(waves(BOX), ("tracer",), BOX)
    scale = fitted(flows, (1, 2))
    planned = with_zero_propagator(flows.data_set, measure(flows, (1, 2)), (1, 2))
    for name, value in vars(scale).items():
        assert getattr(planned, name).shape == value.shape, name


def test_noise_has_no_propagator():
    fields = np.random.default_rng(0).normal(size=(8, 5, 1, 16, 32)).cumsum(1).astype(np.float32)
    scale = fitted(flows_of(fields, ("tracer",), CHANNEL))
    assert not scale.propagator.numel()
    assert (scale.left_over(torch.tensor([10.0])) == 1).all()


def test_it_is_kept_with_the_statistics():
    scale = fitted(flows_of(waves(CHANNEL, 12), ("tracer",), CHANNEL))
    back = FluidsStatistics.from_tensors(FluidsStatistics({"flow": scale}).to_tensors()).scales["flow"]
    for name, value in vars(scale).items():
        assert torch.equal(getattr(back, name), value), name


def test_another_domain_is_refused():
    flows = flows_of(waves(CHANNEL, 12), ("tracer",), CHANNEL)
    schema = FluidsSchema({"flow": flows.data_set})
    data = FittedData(schema, FluidsStatistics({"flow": fitted(flows)}))
    finer = replace(flows.data_set, dx=50.0, dz=50.0, shape=(32, 64))
    check_as_trained(data, FluidsSchema({"flow": finer}))
    # the outermost of 64 points lie where those of 32 do
    nodes = replace(flows.data_set, dx=100.0 * 31 / 63, dz=100.0 * 15 / 31, shape=(32, 64))
    check_as_trained(data, FluidsSchema({"flow": nodes}))
    with pytest.raises(ConfigError, match="6400 long along x, the training had 3200"):
        check_as_trained(data, FluidsSchema({"flow": replace(flows.data_set, dx=200.0)}))


def test_what_flies_over_an_open_side_is_what_lies_there():
    plane = Plane((Side.OPEN, Side.OPEN), (Side.WALL, Side.WALL))
    fields = torch.arange(8.0).expand(1, 1, 4, 8)
    wind = torch.stack([torch.full((4, 8), 30.0), torch.zeros(4, 8)])[None]
    moved = carried(fields, wind, torch.full((1, 1, 1), 10.0), (100.0, 100.0), plane)
    torch.testing.assert_close(moved[0, 0, 0], torch.tensor([0.0, 0, 0, 0, 1, 2, 3, 4]))


def test_what_is_corrected_follows_model_and_weights():
    def chosen(values, source=None):
        spec = RunSpec.build(compose("train", ["domain=fluids", "data.augment=none", *values]).config)
        return FluidsDomain().data_defaults(spec, source)

    assert chosen([]).values["task.baseline"] == "propagator"
    assert chosen(["model=refine"]).values["task.baseline"] == "none"
    plain = RunSpec.build(compose("train", ["domain=fluids", "task.baseline=none"]).config)
    assert chosen([], plain).values["task.baseline"] == "none"
    assert "task.baseline" not in chosen(["task.baseline=none"], plain).values
    with pytest.raises(ConfigError, match="the weights were trained with none"):
        chosen(["task.baseline=propagator"], plain)


def test_a_model_that_corrects_a_solver_corrects_nothing_else():
    config = compose("train", ["domain=fluids", "model=refine", "task.baseline=propagator"]).config
    with pytest.raises(ConfigError, match="corrects a solver"):
        RunSpec.build(config)


def test_pairs_are_of_all_flows_however_short_they_are():
    """Every 16th pair or so is wanted, and a flow has only 5."""
    fields = np.broadcast_to(np.arange(202.0, dtype=np.float32)[:, None, None, None, None], (202, 6, 1, 4, 8))
    flows = flows_of(fields, ("tracer",), CHANNEL)
    seen = [int(one) for before, _ in _pairs(flows.trajectories["train"], 1, 64) for one in before[:, 0, 0, 0]]
    assert 60 <= len(seen) == len(set(seen)) <= 64
    assert np.diff(sorted(seen)).max() <= 6


def test_where_one_data_set_has_no_fitted_step_that_of_the_other_is_a_baseline_all_the_same():
    moving = flows_of(waves(CHANNEL), ("tracer",), CHANNEL)
    scales = {"moving": fitted(moving), "other": measure(moving, (1,))}
    schema = FluidsSchema({name: moving.data_set for name in scales})
    found = {each.name: predict for each, predict in baselines(schema, FluidsStatistics(scales), 1).items()}
    sample = FlowSamples({"moving": moving}, "test", [1], 1).sample(0, np.random.default_rng(0))
    other = replace(sample, start=replace(sample.start, data_set="other"))
    predicted = found["propagator"](collate([sample, other])).values
    assert torch.equal(predicted["other"][0], sample.state)
    error = (predicted["moving"][0] - sample.targets[0]).square().mean()
    assert error < 0.01 * (sample.state - sample.targets[0]).square().mean()
