"""The command that makes ensembles of flows."""

from __future__ import annotations

import json
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import torch
import yaml

from domains.fluids.data.readers import open_sources
from domains.fluids.solver import CASES, Schedule, SolverGrid, run
from domains.fluids.solver import simulate as simulating
from domains.fluids.solver.grid import HEIGHT_M, LENGTH_M
from domains.fluids.solver.random_flows import DRAWN_CASES, draw
from domains.fluids.solver.simulate import flows, simulate
from domains.fluids.solver.simulate_config import SimulateConfig
from sciml.core.config import build
from sciml.core.errors import ConfigError, DataError, RunError
from sciml.data.staging import StagedParts

ROOT = Path(__file__).parents[3]
EXACT = {"amplitude": (1, 1), "radius": (1, 1), "displacement": 0, "wind": 0}


def small(folder: Path, **changes) -> SimulateConfig:
    values = {"out": str(folder / "some.nc"), "count": 5, "nx": 32, "nz": 16, "frames": 3, "batch": 2, "device": "cpu"}
    return build(SimulateConfig, {**values, **changes})


def read(path: Path) -> np.ndarray:
    return np.stack([source.read() for source in open_sources(str(path))])


class TestConfig:
    def test_the_configuration_file_says_the_defaults(self):
        values = yaml.safe_load((ROOT / "conf/simulate/fluids.yaml").read_text())
        assert build(SimulateConfig, values) == SimulateConfig()

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("out", "flows.zarr"),
            ("count", 0),
            ("cases", ()),
            ("cases", ("colision",)),
            ("nx", 0),
            ("nz", 3),
            ("frames", 1),
            ("interval", 0.0),
            ("amplitude", (0.0, 1.0)),
            ("amplitude", (1.0, 0.5)),
            ("amplitude", (1.0, 9.0)),
            ("radius", (0.5, 4.0)),
            ("displacement", -1.0),
            ("wind", 80.0),
            ("wind", -1.0),
            ("seed", -1),
            ("precision", "bfloat16"),
            ("batch", 0),
            ("workers", -1),
        ],
    )
    def test_a_value_that_cannot_work_is_named(self, field, value):
        with pytest.raises(ConfigError) as caught:
            build(SimulateConfig, {field: value})
        assert caught.value.key.split(".")[0] == field
        assert caught.value.hint or "must be" in caught.value.message

    def test_a_device_that_is_not_there(self, tmp_path):
        with pytest.raises(ConfigError, match="device"):
            simulate(small(tmp_path, device="abacus"))

    def test_frames_are_where_steps_end(self):
        schedule = SimulateConfig().schedule
        assert schedule.step <= SimulateConfig().grid.largest_step
        assert schedule.interval / schedule.step == pytest.approx(39)


class TestDrawing:
    SPREAD = SimulateConfig().spread

    @pytest.mark.parametrize("case", DRAWN_CASES)
    def test_a_number_is_a_flow(self, case):
        flow = draw(case, self.SPREAD, 0, 3)
        assert flow == draw(case, self.SPREAD, 0, 3)
        assert flow != draw(case, self.SPREAD, 0, 4)
        assert flow != draw(case, self.SPREAD, 1, 3)
        assert flow.case == case

    def test_flows_stay_within_their_spread(self):
        for index in range(200):
            flow = draw("collision", self.SPREAD, 0, index)
            for bubble, usual in zip(flow.bubbles, CASES["collision"].bubbles, strict=True):
                assert 0.5 <= bubble.amplitude / usual.amplitude <= 1.25
                assert 0.7 <= bubble.radius_x / usual.radius_x <= 1.3
                assert abs(bubble.z - usual.z) <= 1500
                assert 0 <= bubble.x < LENGTH_M
            assert abs(flow.wind) <= 5
            jet = draw("injection", self.SPREAD, 0, index).jet
            assert jet.half_width <= jet.z <= HEIGHT_M - jet.half_width
            assert 297.5 <= jet.theta <= 299

    def test_without_spread_a_flow_is_its_case_moved_along_x(self, tmp_path):
        config = small(tmp_path, cases=["collision", "gravity"], **EXACT)
        collision, gravity = flows(config, 0, 2)
        first, second = collision.bubbles
        assert first.x == pytest.approx(second.x)
        assert (first.amplitude, first.z, first.radius_x) == (20, 2000, 2000)
        assert gravity.wind == 15
        assert gravity.frequency == 0.02

    def test_cases_take_turns(self, tmp_path):
        drawn = flows(small(tmp_path, cases=["thermal", "mixed"]), 0, 4)
        assert [flow.case for flow in drawn] == ["thermal", "mixed"] * 2
        assert 2 <= len(drawn[1].bubbles) <= 4


class TestSimulate:
    @pytest.mark.parametrize("out", ["some.nc", "some.hdf5", "some"])
    def test_all_kinds_hold_the_same(self, tmp_path, out):
        config = small(tmp_path, out=str(tmp_path / out), cases=["collision", "gravity", "injection"])
        path = simulate(config)
        sources = open_sources(str(path))
        assert [source.interval for source in sources] == [20] * 5
        steps = Schedule.uniform(SolverGrid(32, 16).largest_step, 3, 20.0).exact()
        wanted = [frame.fields for frame in run(flows(config, 0, 5), SolverGrid(32, 16), steps, dtype=torch.float32)]
        np.testing.assert_allclose(read(path), torch.stack(wanted, dim=1), rtol=0, atol=1e-6)
        assert sources[1].profiles["hy_theta"][-1] > 400  # gravity waves have a stable background
        assert sources[2].profiles["hy_theta"] == pytest.approx(300)
        record = json.loads((tmp_path / f"{out}.json").read_text())
        assert record["settings"]["seed"] == 0
        assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []

    def test_frames_are_means_over_blocks_of_a_finer_simulation(self, tmp_path):
        fine = small(tmp_path, nx=64, nz=32, cases=["collision", "gravity"], precision="float64")
        coarse = small(tmp_path, nx=64, nz=32, cases=["collision", "gravity"], precision="float64", coarsen=2,
                       out=str(tmp_path / "coarse.nc"))  # fmt: skip
        fine, coarse = (open_sources(str(simulate(config)))[1] for config in (fine, coarse))
        assert coarse.shape == (16, 32)
        assert coarse.dx == 2 * fine.dx

        def momentum(source):
            dens, _, wwnd, _ = source.read().astype(float).swapaxes(0, 1)
            return dens, (dens + source.profiles["hy_dens"][:, None]) * wwnd

        for mine, theirs in zip(momentum(coarse), momentum(fine), strict=True):
            blocks = theirs.reshape(3, 16, 2, 32, 2).mean((2, 4))
            np.testing.assert_allclose(mine, blocks, rtol=0, atol=1e-6 * np.abs(blocks).max())

    def test_blocks_divide_the_grid(self, tmp_path):
        with pytest.raises(ConfigError, match="coarsen"):
            small(tmp_path, coarsen=3)

    @pytest.mark.parametrize("out", ["one.nc", "one"])
    def test_the_original_s_case_as_it_is_in_double_precision(self, tmp_path, out):
        config = small(tmp_path, out=str(tmp_path / out), case="thermal", sim_time=50.0, interval=10.0,
                       nx=32, nz=16, precision="float64")  # fmt: skip
        path = simulate(config)
        (source,) = open_sources(str(path))
        grid = SolverGrid(32, 16)
        steps = Schedule(grid.largest_step, 50.0, 10.0).original()
        frames = list(run([CASES["thermal"]], grid, steps, dtype=torch.float64))
        assert source.times.tolist() == pytest.approx([frame.time for frame in frames])
        file = path if out.endswith(".nc") else next(path.iterdir())
        with netCDF4.Dataset(file) as written:
            assert written["theta"].dtype == "f8"
            np.testing.assert_array_equal(np.squeeze(written["theta"][:]), [f.fields[0, 3].numpy() for f in frames])
        x = source.read(slice(0, 1), ("theta",))[0, 0]
        np.testing.assert_allclose(x, x[:, ::-1], atol=1e-6)  # in the middle

    @pytest.mark.parametrize(
        ("changes", "match"),
        [({"case": "colision"}, "collision"), ({"case": "mixed"}, "case"), ({"sim_time": 5.0}, "sim_time")],
    )
    def test_cases_and_times_that_do_not_exist(self, tmp_path, changes, match):
        with pytest.raises(ConfigError, match=match):
            small(tmp_path, **changes)

    def test_a_length_in_seconds_is_a_number_of_frames(self, tmp_path):
        assert small(tmp_path, sim_time=100.0).times == (0, 20, 40, 60, 80, 100)

    def test_the_batch_does_not_matter_and_neither_does_the_number_of_processes(self, tmp_path):
        alone = read(simulate(small(tmp_path)))
        others = small(tmp_path, out=str(tmp_path / "others.nc"), batch=3, workers=1)
        np.testing.assert_allclose(read(simulate(others)), alone, rtol=0, atol=1e-6)

    def test_a_stopped_run_goes_on(self, tmp_path, monkeypatch):
        wanted = read(simulate(small(tmp_path, out=str(tmp_path / "straight.nc"))))
        make_part = simulating._make_part

        def first_only(config, device, path, number):
            if number == 1:
                raise KeyboardInterrupt
            make_part(config, device, path, number)

        monkeypatch.setattr(simulating, "_make_part", first_only)
        with pytest.raises(KeyboardInterrupt):
            simulate(small(tmp_path))
        assert not (tmp_path / "some.nc").exists()
        monkeypatch.setattr(simulating, "_make_part", make_part)
        seen = []
        monkeypatch.setattr(simulating, "run", lambda *a, **k: seen.append(len(a[0])) or run(*a, **k))
        np.testing.assert_array_equal(read(simulate(small(tmp_path))), wanted)
        assert seen == [2, 1]  # the first two flows were there

    def test_other_settings_begin_anew(self, tmp_path):
        def first_part(**changes):
            return StagedParts(tmp_path / "some.nc", simulating._settings(small(tmp_path, **changes)), ".npy").path(0)

        part = first_part()
        part.touch()
        assert first_part(workers=2) == part
        assert part.exists()
        first_part(seed=1)
        assert not part.exists()

    def test_what_is_there_is_not_replaced_unasked(self, tmp_path):
        config = small(tmp_path, count=1, frames=2)
        simulate(config)
        with pytest.raises(ConfigError, match="overwrite=true"):
            simulate(config)
        assert simulate(small(tmp_path, count=2, frames=2, overwrite=True))
        assert len(open_sources(config.out)) == 2
        (tmp_path / "some.nc.json").unlink()
        with pytest.raises(ConfigError, match="no store of ours"):
            simulate(small(tmp_path, overwrite=True))

    def test_a_flow_that_blows_up_leaves_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setattr(SolverGrid, "largest_step", 20.0)
        with pytest.raises(RunError, match="make it weaker"):
            simulate(small(tmp_path, nx=64, nz=32, frames=40))
        assert not (tmp_path / "some.nc").exists()


class TestFiles:
    def test_other_programs_see_one_variable_a_field(self, tmp_path):
        xarray = pytest.importorskip("xarray")
        path = simulate(small(tmp_path, cases=["gravity"], count=2))
        fields = read(path)
        with xarray.open_dataset(path, decode_timedelta=False) as file:
            assert file.attrs["Conventions"] == "CF-1.8"
            assert file["theta"].dims == ("member", "time", "z", "x")
            assert file["theta"].attrs["units"] == "K"
            assert file["x"].attrs["units"] == "m"
            assert (file["case"] == "gravity").all()
            for channel, name in enumerate(("dens", "uwnd", "wwnd", "theta")):
                np.testing.assert_array_equal(file[name].values, fields[:, :, channel])
            assert file["theta"].encoding["chunksizes"] == (1, 1, 16, 32)

    def test_files_of_the_first_version_are_read(self, tmp_path):
        fields = np.random.default_rng(0).normal(size=(2, 3, 4, 8, 16)).astype(np.float32)
        with netCDF4.Dataset(tmp_path / "old.nc", "w") as file:
            sides = json.dumps({"x": ["periodic", "periodic"], "z": ["wall", "wall"]})
            file.setncatts({"format": "sciml-fluids-ensemble", "version": 1, "boundary": sides})
            for name, size in zip(("member", "time", "channel", "z", "x"), fields.shape, strict=True):
                file.createDimension(name, size)
            for name, values in (("time", np.arange(3.0)), ("z", np.arange(8.0)), ("x", np.arange(16.0))):
                file.createVariable(name, "f8", (name,))[:] = values
            names = np.array(("dens", "uwnd", "wwnd", "theta"), dtype=object)
            file.createVariable("channel", str, ("channel",))[:] = names
            file.createVariable("fields", "f4", ("member", "time", "channel", "z", "x"))[:] = fields
        np.testing.assert_array_equal(read(tmp_path / "old.nc"), fields)

    def test_a_field_that_is_missing_is_named(self, tmp_path):
        path = simulate(small(tmp_path, count=1))
        with netCDF4.Dataset(path, "a") as file:
            file.renameVariable("theta", "temperature")
        with pytest.raises(DataError, match="no variable theta"):
            open_sources(str(path))
