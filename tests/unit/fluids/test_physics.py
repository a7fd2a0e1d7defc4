"""Simulators of physics other than miniWeather's: exact solutions, what they conserve, and how they are called."""

from __future__ import annotations

import math
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

from domains.fluids.data.boundary import OBSTACLE
from domains.fluids.data.data_config import FluidsDataConfig
from domains.fluids.data.datasets import open_flows
from domains.fluids.data.planned import planned_flows
from domains.fluids.data.readers import open_sources
from domains.fluids.physics import PHYSICS, Plane, run
from domains.fluids.physics.advection import Advection
from domains.fluids.physics.burgers import Burgers
from domains.fluids.physics.cylinder_wake import CylinderWake
from domains.fluids.physics.double_gyre import DoubleGyre
from domains.fluids.physics.kind import Simulation
from domains.fluids.physics.plane import HEIGHT, LENGTH, Waves
from domains.fluids.physics.shallow_water import ShallowWater
from domains.fluids.physics.vortices import Vortices
from domains.fluids.solver import simulate as simulating
from domains.fluids.solver.simulate import simulate
from domains.fluids.solver.simulate_config import MINIWEATHER, SimulateConfig
from sciml.core.config import build
from sciml.core.errors import ConfigError, RunError

SMALL = Plane(32, 16)


def drawn(kind: str, plane: Plane = SMALL, count: int = 2, first: int = 0) -> Simulation:
    rngs = [np.random.default_rng(number) for number in range(first, first + count)]
    return PHYSICS[kind].draw(plane, rngs, torch.device("cpu"))


def meshed(plane: Plane) -> tuple[torch.Tensor, torch.Tensor]:
    z, x = np.meshgrid(plane.z, plane.x, indexing="ij")
    return torch.from_numpy(x), torch.from_numpy(z)


def stepped(simulation: Simulation, time: float, dt: float | None = None) -> torch.Tensor:
    steps = math.ceil(time / (dt or simulation.largest_step) - 1e-9)
    state = simulation.start
    for _ in range(steps):
        state = simulation.step(state, time / steps)
    return state


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


class TestWaves:
    def test_waves_do_not_depend_on_the_grid(self):
        waves = Waves.draw(np.random.default_rng(0), 3.0).with_largest(2.0)
        fine = waves.on(Plane(96, 48)).reshape(16, 3, 32, 3)[:, 1, :, 1]
        np.testing.assert_allclose(waves.on(SMALL), fine, atol=1e-12)
        assert np.abs(fine).max() == pytest.approx(2, rel=0.1)

    def test_a_flow_is_free_of_divergence_and_does_not_cross_walls(self):
        stream = Waves.draw(np.random.default_rng(1), 2.0, half_waves=True).mirrored(-1).with_fastest(0.7)
        plane = Plane(256, 128)
        u, w = stream.flow_on(plane)
        divergence = np.gradient(u, plane.dx, axis=1)[1:-1, 1:-1] + np.gradient(w, plane.dz, axis=0)[1:-1, 1:-1]
        assert np.abs(divergence).max() < 0.02 * np.abs(np.gradient(u, plane.dx, axis=1)).max()
        assert np.abs(w[[0, -1]]).max() < 0.05
        assert np.hypot(u, w).max() == pytest.approx(0.7, rel=0.02)


class TestShallowWater:
    @pytest.mark.parametrize("depth", [0.5, 2.0])
    def test_a_small_wave_moves_by_the_root_of_its_depth(self, depth):
        plane = Plane(64, 8)
        x, _ = meshed(plane)
        k = 2 * np.pi / LENGTH
        wave, speed, time = 1e-4 * torch.cos(k * x), math.sqrt(depth), 0.6
        start = torch.stack([depth + wave, wave * speed / depth, 0 * wave])[None]
        fields = (water := ShallowWater(plane, start, numbers(0.0))).fields(stepped(water, time))
        wave = torch.fft.rfft(fields[0, 0].mean(0))[1] / torch.fft.rfft(start[0, 0].mean(0))[1]
        assert -float(wave.angle()) / (k * time) == pytest.approx(speed, rel=0.02)
        assert abs(wave) == pytest.approx(1, abs=0.03)

    def test_depth_is_kept_to_rounding_and_energy_never_grows(self):
        water = drawn("shallow_water")
        assert isinstance(water, ShallowWater)
        state, energy = water.start, water.energy(water.start)
        for _ in range(60):
            state = water.step(state, water.largest_step)
            assert (water.energy(state) <= energy * (1 + 1e-14)).all()
            energy = water.energy(state)
        torch.testing.assert_close(state[:, 0].sum((1, 2)), water.start[:, 0].sum((1, 2)), rtol=1e-14, atol=0)

    def test_at_rest_it_stays_and_nothing_crosses_a_wall(self):
        start = torch.ones(1, 3, 8, 8, dtype=torch.float64)
        start[:, 1:] = 0
        water = ShallowWater(Plane(8, 8), start, numbers(3.0))
        torch.testing.assert_close(water.fields(stepped(water, 0.5)), start, rtol=0, atol=1e-15)

    def test_a_current_turns_right(self):
        start = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
        start[:, 0], start[:, 1] = 1, 0.1
        water = ShallowWater(Plane(8, 8), start, numbers(2.0))
        _, along, across = water.fields(water.step(water.start, 0.01))[0, :, 4, 4]
        assert float(across) == pytest.approx(-0.1 * math.sin(0.02), rel=1e-3)
        assert float(along) == pytest.approx(0.1 * math.cos(0.02), rel=1e-6)

    def test_finer_grids_agree_better(self):
        errors = []
        coarse, middle, fine = (drawn("shallow_water", Plane(n, n // 2), 1) for n in (16, 32, 64))
        finest = fine.fields(stepped(fine, 0.2))
        for water, blocks in ((coarse, 4), (middle, 2)):
            means = torch.nn.functional.avg_pool2d(finest, blocks)
            errors.append(float((water.fields(stepped(water, 0.2)) - means).square().mean().sqrt()))
        assert errors[0] > 2 * errors[1]


class TestBurgers:
    def test_hopf_and_cole_s_solution(self):
        viscosity, time, plane = 0.05, 0.3, Plane(96, 48)
        x, z = meshed(plane)
        kx, kz = 2 * np.pi / LENGTH, 2 * np.pi / HEIGHT

        def velocity(at: float) -> torch.Tensor:
            one, other = (math.exp(-viscosity * k**2 * at) for k in (kx, math.hypot(kx, kz)))
            theta = 3 + one * torch.cos(kx * x) + 0.8 * other * torch.cos(kx * x + kz * z)
            along_x = -kx * one * torch.sin(kx * x) - 0.8 * kx * other * torch.sin(kx * x + kz * z)
            along_z = -0.8 * kz * other * torch.sin(kx * x + kz * z)
            return -2 * viscosity * torch.stack([along_x, along_z])[None] / theta

        flow = Burgers(plane, velocity(0), numbers(viscosity))
        torch.testing.assert_close(flow.fields(stepped(flow, time)), velocity(time), rtol=0, atol=1e-8)

    def test_steps_are_of_fourth_order(self):
        flow = drawn("burgers", count=1)
        exact = stepped(flow, 0.2, 0.2 / 64)
        errors = [float((stepped(flow, 0.2, 0.2 / n) - exact).abs().max()) for n in (8, 16)]
        assert 12 < errors[0] / errors[1] < 24

    def test_no_velocity_grows(self):
        flow = drawn("burgers", Plane(64, 32))
        largest = [float(fields.abs().max()) for fields in run(flow, 4, 0.1)]
        assert largest == sorted(largest, reverse=True)


class TestAdvection:
    def test_a_uniform_flow_carries_and_diffusion_spreads(self):
        x, z = meshed(SMALL)
        kx, kz, diffusivity, time = 2 * np.pi / LENGTH, 2 * np.pi / HEIGHT, 0.01, 0.4

        def tracer(at: float) -> torch.Tensor:
            phase = kx * (x - 0.7 * at) + kz * (z + 0.3 * at)
            return (math.exp(-diffusivity * (kx**2 + kz**2) * at) * torch.cos(phase))[None, None]

        flow = numbers(0.7, -0.3)[None, :, None, None].expand(1, 2, 16, 32)
        tracers = Advection(SMALL, tracer(0), flow, numbers(diffusivity))
        torch.testing.assert_close(tracers.fields(stepped(tracers, time)), tracer(time), rtol=0, atol=1e-5)
        errors = [
            float((tracers.fields(stepped(tracers, time, time / n)) - tracer(time)).abs().max()) for n in (10, 20)
        ]
        assert 14 < errors[0] / errors[1] < 18

    def test_the_tracer_is_kept_and_its_square_falls(self):
        tracers = drawn("advection")
        first, *_, last = run(tracers, 3, 0.2)
        torch.testing.assert_close(last.mean((2, 3)), first.mean((2, 3)), rtol=0, atol=1e-14)
        assert (last.square().mean((2, 3)) < first.square().mean((2, 3))).all()


class TestVortices:
    def test_taylor_and_green_s_vortices_decay_as_they_must(self):
        x, z = meshed(SMALL)
        k, viscosity, time = 2 * np.pi, 0.02, 0.5
        start = torch.stack([torch.cos(k * x) * torch.sin(k * z), -torch.sin(k * x) * torch.cos(k * z)])[None]
        vorticity = (-2 * k * torch.cos(k * x) * torch.cos(k * z))[None, None]
        vortices = Vortices(SMALL, vorticity, numbers(viscosity))
        torch.testing.assert_close(vortices.fields(vortices.start), start, rtol=0, atol=1e-12)
        exact = start * math.exp(-2 * viscosity * k**2 * time)
        torch.testing.assert_close(vortices.fields(stepped(vortices, time)), exact, rtol=0, atol=1e-6)

    def test_enstrophy_falls_and_the_flow_has_no_divergence(self):
        vortices = drawn("vortices", Plane(64, 32))
        assert isinstance(vortices, Vortices)
        state, enstrophy = vortices.start, vortices.enstrophy(vortices.start)
        for _ in range(30):
            state = vortices.step(state, vortices.largest_step)
            assert (vortices.enstrophy(state) < enstrophy).all()
            enstrophy = vortices.enstrophy(state)
        u, w = vortices.waves.spectrum(vortices.fields(state)).unbind(1)
        assert float((vortices.waves.kx * u + vortices.waves.kz * w).abs().max()) < 1e-9

    def test_the_flow_of_a_drawn_stream_function_is_its_own(self):
        stream = Waves.draw(np.random.default_rng(3), 3.0)
        vorticity = -torch.from_numpy(stream.laplacian().on(SMALL))[None, None]
        vortices = Vortices(SMALL, vorticity, numbers(0.1))
        expected = torch.from_numpy(np.stack(stream.flow_on(SMALL)))[None]
        torch.testing.assert_close(vortices.fields(vortices.start), expected, rtol=0, atol=1e-10)


class TestDoubleGyre:
    @staticmethod
    def basin(plane: Plane, start: torch.Tensor, beta=0.0, viscosity=0.0, friction=0.0, speed=1.0) -> DoubleGyre:
        nothing = torch.zeros_like(start)
        return DoubleGyre(plane, start, numbers(beta), nothing, numbers(viscosity), friction, speed)

    @staticmethod
    def mode(plane: Plane) -> torch.Tensor:
        x, z = meshed(plane)
        return (torch.sin(np.pi * x / LENGTH) * torch.sin(np.pi * z / HEIGHT))[None]

    def test_one_gyre_decays_as_it_must(self):
        """It is carried along itself, so only friction and viscosity change it."""
        start, time, viscosity, friction = 4 * self.mode(SMALL), 0.5, 0.02, 0.1
        basin = self.basin(SMALL, start, viscosity=viscosity, friction=friction)
        squared = (2 * np.sin(np.pi / 64) / SMALL.dx) ** 2 + (2 * np.sin(np.pi / 32) / SMALL.dz) ** 2
        exact = start * math.exp(-(friction + viscosity * squared) * time)
        torch.testing.assert_close(stepped(basin, time), exact, rtol=0, atol=1e-6)

    def test_a_rossby_wave_of_the_basin_goes_west(self):
        plane, beta, small = Plane(128, 64), 10.0, 1e-6
        x, _ = meshed(plane)
        k, time = math.hypot(np.pi / LENGTH, np.pi / HEIGHT), 0.8
        frequency = beta / (2 * k)

        def stream(at: float) -> torch.Tensor:
            return small * torch.cos(beta * x / (2 * frequency) + frequency * at)[None] * self.mode(plane)

        basin = self.basin(plane, torch.zeros(1, 64, 128).double(), beta=beta)
        padded = torch.nn.functional.pad(stream(0.0), (1, 1, 1, 1))
        padded[:, 0], padded[:, -1] = -padded[:, 1], -padded[:, -2]
        padded[..., 0], padded[..., -1] = -padded[..., 1], -padded[..., -2]
        basin.start = basin._laplacian(padded)
        error = (basin.stream(stepped(basin, time)) - stream(time)).abs().max()
        assert error < 0.02 * small
        assert (stream(0.0) - stream(time)).abs().max() > 0.5 * small

    def test_energy_and_enstrophy_stay_where_nothing_drives_or_slows(self):
        start = drawn("double_gyre", SMALL).start
        nothing = torch.zeros(2).double()
        basin = DoubleGyre(SMALL, start, nothing, torch.zeros_like(start), nothing, 0.0)
        state = stepped(basin, 1.0, basin.largest_step / 4)
        torch.testing.assert_close(basin.energy(state), basin.energy(start), rtol=1e-5, atol=0)
        torch.testing.assert_close(state.square().mean((1, 2)), start.square().mean((1, 2)), rtol=1e-5, atol=0)
        assert (state - start).abs().max() > 0.1

    def test_wind_spins_two_gyres_up_that_lean_to_the_west(self):
        basin = drawn("double_gyre", Plane(64, 32), count=3)
        basin.start = torch.zeros_like(basin.start)
        u, w = basin.fields(stepped(basin, 6.0)).unbind(1)
        fastest = torch.hypot(u, w).amax(1).argmax(-1)
        assert (fastest < 32).all()
        turned = basin.stream(stepped(basin, 6.0)).mean(2)
        assert (turned[:, :16].sum(1) * turned[:, 16:].sum(1) < 0).all()

    def test_no_flow_crosses_the_walls(self):
        basin = drawn("double_gyre", Plane(256, 128), count=1)
        u, w = basin.fields(basin.start).unbind(1)
        inside = float(torch.hypot(u, w).max())
        assert float(w[:, [0, -1]].abs().max()) < 0.05 * inside
        assert float(u[..., [0, -1]].abs().max()) < 0.05 * inside


class TestCylinderWake:
    @staticmethod
    def wake(plane: Plane, solid: torch.Tensor, velocity=None, viscosity=0.01, settled=0.0) -> CylinderWake:
        uniform = torch.stack([torch.ones(plane.nz, plane.nx), torch.zeros(plane.nz, plane.nx)])[None].double()
        start = uniform if velocity is None else velocity
        return CylinderWake(plane, start, numbers(1.0), solid[None], numbers(viscosity), settled)

    @staticmethod
    def cylinder(plane: Plane, z: float, radius: float) -> torch.Tensor:
        x, height = meshed(plane)
        return torch.hypot(x - 0.5, height - z) < radius

    def test_a_uniform_flow_stays(self):
        wake = self.wake(SMALL, torch.zeros(16, 32, dtype=torch.bool))
        torch.testing.assert_close(wake.fields(stepped(wake, 0.5)), wake.velocity, rtol=0, atol=1e-13)

    def test_shear_decays_by_its_viscosity(self):
        """At the outlet, before sound from the inlet arrives, which adds no shear."""
        plane, viscosity, time = Plane(64, 32), 0.05, 0.15
        _, z = meshed(plane)
        shear = 0.1 * torch.cos(2 * np.pi * z)
        velocity = torch.stack([1 + shear, torch.zeros_like(z)])[None]
        wake = self.wake(plane, torch.zeros(32, 64, dtype=torch.bool), velocity, viscosity)
        left = wake.fields(stepped(wake, time))[0, 0, :, 60:] - 1
        exact = math.exp(-viscosity * 4 * np.pi**2 * time) * shear[:, 60:]
        torch.testing.assert_close(left, exact, rtol=0, atol=1e-3)

    def test_a_mirrored_cylinder_has_a_mirrored_wake(self):
        plane = Plane(64, 32)
        flows = [self.wake(plane, self.cylinder(plane, z, 0.1)) for z in (0.45, 0.55)]
        below, above = (flow.fields(stepped(flow, 1.0)) for flow in flows)
        mirrored = above.flip(2) * torch.tensor([1.0, -1.0])[:, None, None]
        torch.testing.assert_close(below, mirrored, rtol=0, atol=1e-12)
        assert (below - above).abs().max() > 0.1

    def test_as_much_flows_through_every_column_and_nothing_in_the_cylinder(self):
        plane = Plane(64, 32)
        solid = self.cylinder(plane, 0.47, 0.1)
        wake = self.wake(plane, solid, viscosity=0.02)  # no vortices part yet
        u, w = wake.fields(stepped(wake, 4.0))[0]
        assert not torch.stack([u, w])[:, solid].any()
        torch.testing.assert_close(u.mean(0), torch.ones(64).double(), rtol=0, atol=0.02)

    @pytest.mark.slow
    def test_vortices_part_as_often_as_in_experiments(self):
        """A Strouhal number of 0.167 at a Reynolds number of 100 (Williamson 1988), more where the channel is narrow:
        between these walls the fluid passes the cylinder faster by a sixth.
        """
        plane, radius = Plane(128, 64), 0.08
        wake = self.wake(plane, self.cylinder(plane, 0.47, radius), viscosity=2 * radius / 100, settled=8.0)
        state, dt, behind = wake.start, wake.largest_step, []
        for _ in range(int(4 / dt)):
            state = wake.step(state, dt)
            behind.append(float(wake.fields(state)[0, 1, 32, 60]))
        ups = [n for n in range(1, len(behind)) if behind[n - 1] < 0 <= behind[n]]
        frequency = (len(ups) - 1) / ((ups[-1] - ups[0]) * dt)
        assert 0.167 < frequency * 2 * radius < 0.167 * 1.2


@pytest.mark.parametrize("kind", PHYSICS)
class TestEveryKind:
    def test_a_flow_is_the_same_in_any_company(self, kind):
        together = list(run(drawn(kind, count=3), 3, 0.05))
        alone = list(run(drawn(kind, count=1, first=2), 3, 0.05))
        for some, one in zip(together, alone, strict=True):
            torch.testing.assert_close(some[2:], one, rtol=0, atol=1e-13)

    @pytest.mark.slow
    def test_many_flows_stay_finite_on_the_default_grid(self, kind):
        for fields in run(drawn(kind, Plane(64, 32), count=40), 21, PHYSICS[kind].interval):
            assert float(fields.abs().max()) < 2.5

    @pytest.mark.parametrize("ending", [".nc", ".hdf5"])
    def test_files_hold_what_was_simulated(self, kind, ending, tmp_path):
        config = small(tmp_path, kind, out=str(tmp_path / f"some{ending}"))
        sources, physics = open_sources(str(simulate(config))), PHYSICS[kind]
        assert len(sources) == 3
        rngs = [np.random.default_rng(simulating_seed(config, number)) for number in range(3)]
        simulation = physics.draw(SMALL, rngs, torch.device("cpu"))
        truth = torch.stack(list(run(simulation, 3, physics.interval)), dim=1).float().numpy()
        for source, fields, constants in zip(sources, truth, simulation.constants, strict=True):
            schema, _ = open_flows(FluidsDataConfig(path=str(config.out)))
            (data_set,) = schema.data_sets.values()
            assert set(data_set.variables) == set(physics.variables)
            assert set(data_set.constants) == set(physics.constants)
            assert (data_set.units, data_set.boundary) == (("", ""), physics.boundary)
            assert (data_set.shape, data_set.interval) == ((16, 32), pytest.approx(physics.interval))
            assert (data_set.dx, data_set.dz) == (pytest.approx(LENGTH / 32), pytest.approx(HEIGHT / 16))
            order = [physics.variables.index(name) for name in data_set.variables]
            np.testing.assert_array_equal(source.read(), fields[:, order])
            for name, values in zip(physics.constants, constants, strict=True):
                found = source.mask if name == OBSTACLE else source.constants[name]
                np.testing.assert_allclose(found, values, rtol=1e-6)

    def test_a_plan_knows_what_files_will_say(self, kind, tmp_path):
        config = small(tmp_path, kind)
        planned, _ = planned_flows(FluidsDataConfig(simulate=config))
        written, _ = open_flows(FluidsDataConfig(simulate=config, cache=str(tmp_path)))
        assert planned == written


def small(folder, kind: str, **changes) -> SimulateConfig:
    values = {"out": str(folder / "some.nc"), "physics": kind, "count": 3, "nx": 32, "nz": 16, "frames": 3}
    return build(SimulateConfig, {"batch": 2, "device": "cpu", **values, **changes})


def simulating_seed(config: SimulateConfig, number: int) -> int:
    from sciml.core.seeding import seed_of

    return seed_of(config.seed, config.physics, number)


class TestCommand:
    def test_the_kinds_are_those_that_the_keys_name(self):
        assert set(get_args(get_type_hints(SimulateConfig)["physics"])) == {MINIWEATHER, *PHYSICS}

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("case", "thermal"), ("cases", ["thermal"]), ("wind", 1.0), ("amplitude", [1, 1]), ("compile", True),
            ("out", "folder"), ("nx", 4), ("coarsen", 5), ("physics", "magma"), ("interval", 0.0), ("sim_time", 0.01),
        ],
    )  # fmt: skip
    def test_what_means_nothing_is_refused(self, key, value, tmp_path):
        with pytest.raises(ConfigError) as caught:
            small(tmp_path, "burgers", **{key: value})
        assert caught.value.key == key

    def test_a_wake_wants_square_cells(self, tmp_path):
        with pytest.raises(ConfigError, match="use nx=32"):
            simulate(small(tmp_path, "cylinder_wake", nx=48))

    def test_coarser_files_hold_means(self, tmp_path):
        fine = open_sources(str(simulate(small(tmp_path, "vortices", out=str(tmp_path / "fine.nc")))))
        means = open_sources(str(simulate(small(tmp_path, "vortices", coarsen=2))))
        for one, other in zip(means, fine, strict=True):
            blocks = other.read().reshape(3, 2, 8, 2, 16, 2).mean((3, 5))
            np.testing.assert_allclose(one.read(), blocks, atol=1e-6)
            assert one.dx == pytest.approx(2 * other.dx)

    def test_a_stopped_simulation_goes_on(self, tmp_path, monkeypatch):
        wanted = [source.read() for source in open_sources(str(simulate(small(tmp_path, "burgers"))))]
        frames_of, begun = simulating.frames_of, []

        def stopping(config, device, first, last):
            begun.append(first)
            if first == 2 and len(begun) == 2:
                raise KeyboardInterrupt
            return frames_of(config, device, first, last)

        monkeypatch.setattr(simulating, "frames_of", stopping)
        again = small(tmp_path, "burgers", out=str(tmp_path / "again.nc"))
        with pytest.raises(KeyboardInterrupt):
            simulate(again)
        found = [source.read() for source in open_sources(str(simulate(again)))]
        assert begun == [0, 2, 2]
        np.testing.assert_array_equal(found, wanted)

    def test_a_flow_that_blows_up_is_told(self):
        flow = drawn("shallow_water")
        flow.largest_step = 0.5
        with pytest.raises(RunError, match="finer grid"):
            list(run(flow, 40, 1.0))
