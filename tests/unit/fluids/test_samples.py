"""From files to samples: splits, scales, symmetries, noise, and several data sets together."""

from __future__ import annotations

from dataclasses import replace

import netCDF4
import numpy as np
import pytest
import torch

from domains.fluids.data.batch import Start, collate
from domains.fluids.data.boundary import Boundary
from domains.fluids.data.data_config import FlowSplits, FluidsDataConfig
from domains.fluids.data.datasets import describe_flows, open_flows, simulated
from domains.fluids.data.mirror import can_be_mirrored, turned_by_mirror
from domains.fluids.data.readers.files import _check_alike
from domains.fluids.data.readers.source import Axis, FlowSource
from domains.fluids.data.samples import FlowSamples, augmentation_that_fits
from domains.fluids.data.schema import DataSet, FluidsSchema, FluidsStatistics
from domains.fluids.data.statistics import measure
from domains.fluids.data_defaults import fitted_statistics
from domains.fluids.forecast.initial_conditions import initial_batch
from domains.fluids.solver import Background, SolverGrid
from domains.fluids.solver.simulate import simulate
from domains.fluids.solver.simulate_config import SimulateConfig
from sciml.core.errors import ConfigError, DataError
from sciml.domain.forecasting import PerturbedStarts
from sciml.run.compose import compose
from sciml.run.spec import RunSpec

from . import flow_files

GRID = SolverGrid(12, 6)
TIMES = tuple(10.0 * n for n in range(7))


@pytest.fixture
def folder(tmp_path):
    """Eight short flows; returns the path and the fields."""
    (tmp_path / "flows").mkdir()
    fields = [flow_files.miniweather(tmp_path / "flows" / f"{n}.nc", GRID, TIMES) * 1.0 for n in range(8)]
    return str(tmp_path / "flows"), fields


def opened(path, **changes):
    schema, flows = open_flows(FluidsDataConfig(path=path, **changes))
    return schema, flows


def test_every_flow_is_in_one_split(folder):
    _, flows = opened(folder[0], splits=FlowSplits(4, 2, 2))
    parts = flows["flow"].trajectories
    assert {name: len(part) for name, part in parts.items()} == {"train": 4, "valid": 2, "test": 2}
    names = [t.source.name for part in parts.values() for t in part]
    assert len(set(names)) == 8


def test_small_shares_have_one_flow_at_least(folder):
    _, flows = opened(folder[0], splits=FlowSplits(0.96, 0.02, 0.02))
    assert {name: len(part) for name, part in flows["flow"].trajectories.items()} == {"train": 6, "valid": 1, "test": 1}


def test_fewer_flows_than_splits_are_refused(tmp_path):
    for number in range(2):
        flow_files.miniweather(tmp_path / f"{number}.nc", GRID, TIMES)
    with pytest.raises(ConfigError, match=r"data\.splits: 2 flows are too few for 3 splits"):
        opened(str(tmp_path))


def test_a_single_flow_is_cut_along_time(tmp_path):
    flow_files.cgl(tmp_path / "one.nc", frames=20)
    schema, flows = opened(str(tmp_path / "one.nc"), splits=FlowSplits(0.5, 0.25, 0.25))
    frames = {name: [t.frames for t in part] for name, part in flows["flow"].trajectories.items()}
    assert frames == {"train": [(0, 10)], "valid": [(10, 15)], "test": [(15, 20)]}
    assert schema.data_sets["flow"].variables == ("uwnd", "wwnd")
    assert schema.channels == ("uwnd", "wwnd", "obstacle")


def test_schema_and_statistics_survive_files(folder):
    schema, flows = opened(folder[0])
    assert FluidsSchema.from_dict(schema.to_dict()) == schema
    statistics = FluidsStatistics({"flow": measure(flows["flow"], [1, 2])})
    again = FluidsStatistics.from_tensors(statistics.to_tensors())
    for name, value in statistics.to_tensors().items():
        assert torch.equal(again.to_tensors()[name], value)


def test_scales_are_those_of_numpy(folder, monkeypatch):
    monkeypatch.setattr("domains.fluids.data.statistics.BLOCK", 3)
    _, flows = opened(folder[0])
    train = flows["flow"].trajectories["train"]
    fields = np.stack([t.read(0, len(t)) for t in train]).astype(np.float64)
    scale = measure(flows["flow"], [1, 3])
    wind = [1, 2]
    mean = fields.mean((0, 1, 3, 4))
    mean[wind] = 0
    np.testing.assert_allclose(scale.mean, mean, rtol=1e-5, atol=1e-6)
    std = np.sqrt((fields**2).mean((0, 1, 3, 4)) - mean**2)
    np.testing.assert_allclose(scale.std, std, rtol=1e-5)
    for place, stride in enumerate((1, 3)):
        moved = fields[:, stride:] - fields[:, :-stride]
        np.testing.assert_allclose(scale.increment_std[place], np.sqrt((moved**2).mean((0, 1, 3, 4))), rtol=1e-5)
    assert scale.seconds.tolist() == [10.0, 30.0]
    seconds = torch.tensor([30.0, 10.0, 11.0])
    assert torch.equal(scale.increments_over(seconds)[..., 0, 0], scale.increment_std[[1, 0, 0]])


def test_obstacles_do_not_count(tmp_path):
    winds, mask = flow_files.cgl(tmp_path / "one.nc", frames=20)
    _, flows = opened(str(tmp_path / "one.nc"), splits=FlowSplits(0.5, 0.25, 0.25))
    scale = measure(flows["flow"], [1])
    inside = winds[:10][..., ~mask].astype(np.float64)
    np.testing.assert_allclose(scale.std, np.sqrt((inside**2).mean((0, 2))), rtol=1e-5)


@pytest.mark.parametrize("preload", [0.0, 1.0])
def test_a_sample_is_what_is_in_the_file(folder, preload):
    _, flows = opened(folder[0])
    source = FlowSamples(flows, "train", [1, 2], 2, preload_gb=preload)
    assert len(source) == len(flows["flow"].trajectories["train"]) * (7 - 2)
    strides = set()
    for index, start in enumerate(source.starts):
        sample = source.sample(index, np.random.default_rng(index))
        whole = source.trajectory(start).read(0, 7)
        stride = round(sample.steps[0] / 10)
        strides.add(stride)
        np.testing.assert_array_equal(sample.state, whole[start.frame])
        np.testing.assert_array_equal(sample.previous, whole[max(start.frame - 1, 0)])
        np.testing.assert_array_equal(sample.targets, whole[[start.frame + stride, start.frame + 2 * stride]])
    assert strides == {1, 2}


def test_moves_and_mirrors_keep_a_flow_a_flow(folder):
    _, flows = opened(folder[0])
    plain = FlowSamples(flows, "train", [1], 1)
    moved = FlowSamples(flows, "train", [1], 1, augment="roll_mirror")
    kinds = set()
    for seed in range(40):
        generator = np.random.default_rng(seed)
        one, other = plain.sample(3, np.random.default_rng(seed)), moved.sample(3, generator)
        generator = np.random.default_rng(seed)
        shift, mirrored = int(generator.integers(12)), bool(generator.integers(2))
        kinds.add((shift > 0, mirrored))
        for name in ("state", "previous", "targets"):
            expected = getattr(one, name).roll(shift, -1)
            if mirrored:
                expected = expected.flip(-1) * torch.tensor([1.0, -1, 1, 1])[:, None, None]
            assert torch.equal(getattr(other, name), expected)
    assert {(True, True), (True, False)} <= kinds


def test_noise_is_on_the_state_alone_and_as_large_as_said(folder):
    _, flows = opened(folder[0])
    scales = {"flow": measure(flows["flow"], [1])}
    plain = FlowSamples(flows, "train", [1], 1)
    noisy = FlowSamples(flows, "train", [1], 1, noise=0.5, scales=scales)
    differences = []
    for index in range(len(plain)):
        one, other = plain.sample(index, np.random.default_rng(0)), noisy.sample(index, np.random.default_rng(index))
        assert torch.equal(one.targets, other.targets)
        assert torch.equal(one.previous, other.previous)
        differences.append((other.state - one.state) / scales["flow"].increment_std[0][:, None, None])
    assert torch.stack(differences).std() == pytest.approx(0.5, rel=0.05)


def test_several_data_sets_share_a_batch(folder, tmp_path):
    flow_files.cgl(tmp_path / "cylinder.nc", frames=20)
    schema, flows = opened({"weather": folder[0], "cylinder": str(tmp_path / "cylinder.nc")})
    assert schema.channels == ("dens", "uwnd", "wwnd", "theta", "obstacle")
    source = FlowSamples(flows, "train", [1], 1)
    batch = collate([source.sample(n, np.random.default_rng(0)) for n in (0, len(source) - 1, 1)])
    assert {name: part.state.shape for name, part in batch.parts.items()} == {
        "weather": (2, 4, 6, 12),
        "cylinder": (1, 2, 8, 20),
    }
    assert batch.num_samples == 3
    assert batch.parts["weather"].fluid is None
    assert not batch.parts["cylinder"].fluid.all()
    assert schema.score_name("cylinder", "uwnd") == "cylinder.uwnd"
    moved = FlowSamples(flows, "train", [1], 1, augment="roll_mirror")
    for index, changes in ((0, True), (len(source) - 1, False)):
        pairs = [
            (source.sample(index, np.random.default_rng(n)), moved.sample(index, np.random.default_rng(n)))
            for n in range(5)
        ]
        assert any(not torch.equal(one.state, other.state) for one, other in pairs) == changes


def test_stratified_air_is_told_to_the_model(tmp_path):
    config = SimulateConfig(cases=("gravity", "thermal"), count=2, nx=20, nz=10, frames=3, compile=False)
    path = simulated(config, tmp_path)
    assert simulated(config, tmp_path) == path
    assert simulated(replace(config, seed=1), tmp_path) != path
    schema, flows = opened(str(path), splits=FlowSplits(1, 0, 1))
    assert schema.data_sets["flow"].constants == ("background_theta",)
    neutral = opened(str(simulated(replace(config, cases=("thermal",)), tmp_path)), splits=FlowSplits(1, 0, 1))[0]
    assert neutral.data_sets["flow"].constants == ()
    for part in flows["flow"].trajectories.values():
        for trajectory in part:
            assert trajectory.profiles.shape == (2, 10)


def test_flows_of_different_intervals_are_two_data_sets(tmp_path):
    for name, step in (("a", 10.0), ("b", 20.0)):
        flow_files.miniweather(tmp_path / f"{name}.nc", GRID, [step * n for n in range(4)])
    with pytest.raises(DataError, match=r"every 10 s and .*b.nc every 20 s"):
        opened(str(tmp_path))


def test_what_is_not_periodic_is_not_moved(tmp_path):
    flow_files.cgl(tmp_path / "one.nc", frames=20)
    _, flows = opened(str(tmp_path / "one.nc"))
    with pytest.raises(ConfigError, match=r"data\.augment: flow is not periodic along x \(open and open\); use none"):
        FlowSamples(flows, "train", [1], 1, augment="roll")


def test_symmetries_are_those_that_files_are_known_to_have(folder, tmp_path):
    """Only flows of miniWeather say that they are; a stranger's may turn, or have a wall in one place."""
    config = SimulateConfig(str(tmp_path / "a.nc"), 3, cases=("thermal",), nx=16, nz=8, frames=3, interval=40.0)
    simulate(replace(config, compile=False))
    assert augmentation_that_fits(opened(config.out)[1]) == "roll_mirror"
    assert augmentation_that_fits(opened(folder[0])[1]) == "none"
    flow_files.cgl(tmp_path / "one.nc", frames=20)
    assert augmentation_that_fits(opened(str(tmp_path / "one.nc"))[1]) == "none"
    both = {"ours": opened(config.out)[1]["flow"], "other": opened(folder[0])[1]["flow"]}
    assert augmentation_that_fits(both) == "none"


def test_one_frame_is_a_state_to_start_from_and_nothing_to_learn_from(tmp_path):
    flow_files.miniweather(tmp_path / "one.nc", GRID, TIMES[:1])
    with pytest.raises(DataError, match=r"one frame has no interval; at least 2 are needed"):
        opened(str(tmp_path / "one.nc"))
    config = FluidsDataConfig(path=str(tmp_path / "one.nc"), splits=FlowSplits(0, 0, 1))
    flow_files.miniweather(tmp_path / "several.nc", GRID, TIMES)
    trained, _ = opened(str(tmp_path / "several.nc"))
    schema, flows = open_flows(config, trained.data_sets)
    assert schema.data_sets["flow"].interval == 10.0
    sample = FlowSamples(flows, "test", [1], 0).at(Start("flow", 0, 0), 1, 0)
    assert torch.equal(sample.previous, sample.state)


def test_a_model_that_knows_obstacles_is_told_that_there_are_none(tmp_path):
    flow_files.cgl(tmp_path / "block.nc", frames=20)
    flow_files.cgl(tmp_path / "free.nc", "none", frames=20)
    trained, _ = opened(str(tmp_path / "block.nc"))
    schema, flows = open_flows(FluidsDataConfig(path=str(tmp_path / "free.nc")), trained.data_sets)
    assert schema.data_sets["flow"].constants == ("obstacle",)
    assert FlowSamples(flows, "train", [1], 1).sample(0, np.random.default_rng(0)).fluid.all()


def test_a_model_that_knows_the_air_is_told_where_it_is_the_same_everywhere(tmp_path):
    for name, frequency in (("neutral", 0.0), ("stratified", 0.02)):
        flow_files.miniweather(tmp_path / f"{name}.nc", GRID, TIMES, Background.of(GRID, frequency))
    trained, alone = (opened(str(tmp_path / f"{name}.nc"))[0].data_sets for name in ("stratified", "neutral"))
    told, _ = open_flows(FluidsDataConfig(path=str(tmp_path / "neutral.nc")), trained)
    assert alone["flow"].constants == ()
    assert told.data_sets["flow"].constants == ("background_theta",)


def test_flows_that_are_too_short_are_refused(folder):
    _, flows = opened(folder[0])
    with pytest.raises(ConfigError, match="has 7 frames, 11 are needed"):
        FlowSamples(flows, "test", [1], 10)


def test_workers_read_for_themselves(folder):
    import pickle

    _, flows = opened(folder[0])
    source = FlowSamples(flows, "train", [1], 1)
    sample = source.sample(0, np.random.default_rng(0))
    again = pickle.loads(pickle.dumps(source))
    assert not again._kept
    assert torch.equal(again.sample(0, np.random.default_rng(0)).state, sample.state)


@pytest.mark.parametrize("case", ["injection", "gravity"])
def test_copies_of_a_flow_whose_source_has_its_place_are_not_moved(tmp_path, case):
    config = SimulateConfig(
        str(tmp_path / "a.nc"), 3, cases=(case,), nx=16, nz=8, frames=3, interval=40.0, compile=False
    )
    simulate(config)
    _, flows = opened(config.out, splits=FlowSplits(1, 1, 1))
    moved = FlowSamples(flows, "train", [1], 1, augment="roll_mirror")
    plain = FlowSamples(flows, "train", [1], 1).sample(0, np.random.default_rng(0))
    for seed in range(6):
        assert torch.equal(moved.sample(0, np.random.default_rng(seed)).targets, plain.targets)
    assert plain.steady.tolist()[0] is (case == "gravity")


def test_a_source_that_no_file_names_is_seen_in_the_mass(tmp_path):
    """As in the original's files of its injection."""
    for number in range(3):
        flow_files.miniweather(tmp_path / f"{number}.nc", times=(0.0, 10.0, 20.0))
        with netCDF4.Dataset(tmp_path / f"{number}.nc", "a") as file:
            file["dens"][2] = file["dens"][2] + 3.0
    _, flows = opened(str(tmp_path), splits=FlowSplits(1, 1, 1))
    sample = FlowSamples(flows, "train", [1], 1).sample(0, np.random.default_rng(0))
    assert not sample.steady[0]
    assert flows["flow"].trajectories["train"][0].is_fixed


def test_constants_are_inputs_in_their_own_units(tmp_path):
    flow_files.well(tmp_path / "a.hdf5")
    schema, flows = opened(str(tmp_path / "a.hdf5"), splits=FlowSplits(1, 0, 1))
    assert schema.data_sets["flow"].constants == ("height",)
    scale = measure(flows["flow"], [1])
    sample = FlowSamples(flows, "train", [1], 1).sample(0, np.random.default_rng(0))
    normal = (sample.constants - scale.constant_mean[:, None, None]) / scale.constant_std[:, None, None]
    assert normal.mean() == pytest.approx(0, abs=1e-6)
    assert normal.std(unbiased=False) == pytest.approx(1, rel=1e-5)


class Ramp:
    """Three frames of variables that are known by what they hold: (frame, variable, z, x)."""

    def read(self, times, variables):
        held = {"density": 1.0, "vx": 2.0, "vy": 3.0}
        return np.stack([np.full((3, 4, 6), held[name]) for name in variables], axis=1)[times]


def ordered_source(variables: tuple[str, ...], constants: tuple[str, ...]) -> FlowSource:
    held = {"viscosity": 5.0, "depth": 7.0}
    axes = (Axis.from_zero(1.0, size) for size in (6, 4))
    return FlowSource(
        "flow", variables, ("vx", "vy"), np.arange(3.0), *axes, Boundary.of("periodic", "wall"), Ramp(),
        constants={name: np.full((4, 6), held[name]) for name in constants},
    )  # fmt: skip


def test_variables_and_constants_come_in_the_order_that_a_model_knows():
    config = FluidsDataConfig(path="memory", splits=FlowSplits(1, 0, 0))
    first = ordered_source(("density", "vx", "vy"), ("viscosity", "depth"))
    other = ordered_source(("vy", "density", "vx"), ("depth", "viscosity"))
    _check_alike(first, other)
    trained, _ = describe_flows(config, {"flow": [first, other]})
    schema, flows = describe_flows(config, {"flow": [other]}, trained.data_sets)
    assert schema == trained
    sample = FlowSamples(flows, "train", [1], 1).sample(0, np.random.default_rng(0))
    assert sample.state[:, 0, 0].tolist() == [1, 2, 3]
    assert sample.constants[:, 0, 0].tolist() == [5, 7]
    _, together = describe_flows(config, {"flow": [first, other]})
    for trajectory in together["flow"].trajectories["train"]:
        assert trajectory.constants[:, 0, 0].tolist() == [5, 7]


def test_members_of_an_ensemble_hold_nothing_in_obstacles(tmp_path):
    flow_files.cgl(tmp_path / "block.nc", frames=20)
    _, flows = opened(str(tmp_path / "block.nc"), splits=FlowSplits(1, 0, 1))
    source, statistics = FlowSamples(flows, "test", [1], 0), FluidsStatistics({"flow": measure(flows["flow"], [1])})
    batch, _ = initial_batch(source, statistics, None, PerturbedStarts(members=3, size=0.5, seed=0))
    part = batch.parts["flow"]
    assert (part.state[1] - part.state[0]).abs().max() > 0.1
    assert not part.state[~part.fluid.expand_as(part.state)].any()


def test_a_time_that_a_flow_without_units_does_not_have_is_no_number_of_seconds(tmp_path):
    flow_files.cgl(tmp_path / "block.nc", frames=20)
    source = FlowSamples(opened(str(tmp_path / "block.nc"), splits=FlowSplits(0, 0, 1))[1], "test", [1], 0)
    starts = PerturbedStarts(members=1, size=0.0, seed=0)
    with pytest.raises(ConfigError, match=r"no frame at 12; the nearest is 9\.5, init_time=0@9\.5$"):
        initial_batch(source, FluidsStatistics({}), "0@12", starts)


def test_a_forecast_needs_a_flow_to_start_from_and_a_training_one_to_learn_from(folder):
    _, flows = opened(folder[0], splits=FlowSplits(1, 0, 0))
    source = FlowSamples(flows, "test", [1], 0)
    with pytest.raises(ConfigError, match="test split has no flow to start from"):
        initial_batch(source, FluidsStatistics({}), None, PerturbedStarts(members=1, size=0.0, seed=0))
    spec = RunSpec.build(compose("train", ["domain=fluids"]).config)
    with pytest.raises(ConfigError, match=r"data\.splits\.train: no flow of flow is left to train on"):
        fitted_statistics(spec, opened(folder[0], splits=FlowSplits(0, 0, 1))[1])


def test_times_in_single_precision_say_the_same_interval_as_in_double():
    sources = [replace(ordered_source(("density",), ()), winds=None) for _ in range(3)]
    times = (np.arange(31, dtype=np.float32) * np.float32(0.1), np.arange(31) * 0.1, np.arange(31) / 3)
    assert [replace(one, times=t).interval for one, t in zip(sources, times, strict=True)] == [0.1, 0.1, 1 / 3]


def test_lead_times_of_data_sets_in_different_units_are_written_without():
    weather = DataSet(("theta",), (), (4, 8), 1.0, 1.0, 20.0, {"x": ("periodic",) * 2, "z": ("wall",) * 2})
    plain = replace(weather, units=("", ""))
    for data_sets, text, unit in (
        ({"a": weather, "b": weather}, "40 s", None),
        ({"a": weather, "b": plain}, "t = 40", ("in units of the data", 3600.0)),
        ({"a": plain}, "t = 40", ("in units of the data", 3600.0)),
    ):
        schema = FluidsSchema(data_sets)
        assert (schema.time_text(40 / 3600), schema.time_unit) == (text, unit)


def test_a_mirror_turns_around_what_turns_and_leaves_a_turning_plane_alone():
    names = ("uwnd", "wwnd", "theta", "vorticity", "field_x", "field_y", "stress_xx", "stress_xy", "vorticity_x", "f")
    assert turned_by_mirror(names) == [True, False, False, True, True, False, False, True, False, False]
    # dw/dx - du/dz of the mirrored winds, by differences around a periodic plane
    u, w = np.random.default_rng(0).normal(size=(2, 5, 8))

    def turning(u, w):
        return np.roll(w, -1, 1) - np.roll(w, 1, 1) - np.roll(u, -1, 0) + np.roll(u, 1, 0)

    np.testing.assert_allclose(turning(-u[:, ::-1], w[:, ::-1]), -turning(u, w)[:, ::-1])
    assert can_be_mirrored(["viscosity", "obstacle", "force_y"])
    assert not any(can_be_mirrored([name]) for name in ("coriolis", "f", "beta", "force_x", "uwnd"))


def test_flows_on_a_turning_plane_are_moved_and_not_mirrored(tmp_path):
    config = SimulateConfig(
        out=str(tmp_path / "water.nc"), physics="shallow_water", nx=16, nz=8, frames=2, count=1, batch=1
    )
    _, flows = opened(str(simulate(config)), splits=FlowSplits(1, 0, 0))
    samples = FlowSamples(flows, "train", [1], 1, augment="roll_mirror")
    state = samples.at(samples.starts[0], 1, 1).state
    images = [state.roll(n, -1) for n in range(16)]
    drawn = [samples.sample(0, np.random.default_rng(seed)) for seed in range(20)]
    found = [[n for n, image in enumerate(images) if torch.equal(image, sample.state)] for sample in drawn]
    assert all(found)
    assert len({each[0] for each in found}) > 3
