"""The solver beside the original's files, and what physics demands of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import torch

from domains.fluids.solver import (
    CASES,
    VARIABLES,
    Background,
    Bubble,
    Flow,
    Frame,
    Schedule,
    SolverGrid,
    native,
    run,
    totals,
)
from domains.fluids.solver.background import C0, CP, CV, GAMMA, P0, RD
from sciml.core.compiler import can_compile
from sciml.core.errors import ConfigError, RunError

ORIGINAL = Path(__file__).parents[3].parent / "shared" / "data" / "miniweather"
needs_original = pytest.mark.skipif(not ORIGINAL.is_dir(), reason="the original's files are not here")
GRID = SolverGrid(100, 50)
SMALL = SolverGrid(32, 16)
DURATION_S = {"thermal": 1000, "collision": 700, "gravity": 1500, "density": 600, "injection": 1200}
# What the original printed at 100 x 50: relative changes of mass and of its energy.
PRINTED = {
    "thermal": (1.4259e-14, 1.0051620845645599e-4),
    "collision": (8.985e-15, 2.8971620785427511e-4),
    "gravity": (1.586e-14, 8.0283981643795852e-8),
    "density": (1.152e-14, 8.8457970275620460e-4),
    "injection": (2.5213223e-1, 3.6454145579156e-1),
}
# Frames and the last one's time of all runs of the original, by cells along x and case.
FRAMES = {
    (100, "thermal"): (101, 1000.0),
    (100, "collision"): (71, 700.0),
    (100, "gravity"): (150, 1490.7),
    (100, "density"): (60, 590.7),
    (100, "injection"): (121, 1200.0),
    (200, "thermal"): (100, 990.0),
    (200, "collision"): (70, 690.0),
    (200, "gravity"): (151, 1500.0),
    (200, "density"): (61, 600.0),
    (200, "injection"): (120, 1190.0),
    (256, "thermal"): (101, 1000.0),
    (256, "collision"): (71, 700.0),
    (256, "gravity"): (150, 1490.1),
    (256, "density"): (60, 590.1),
    (256, "injection"): (121, 1200.0),
}


def original(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Times and fields (time, 4, z, x) that the original wrote."""
    with netCDF4.Dataset(ORIGINAL / f"{case}_100x50.nc") as file:
        file.set_auto_mask(False)
        return file["t"][:], np.stack([file[name][:] for name in VARIABLES], axis=1)


def simulated(flows: list[Flow], grid: SolverGrid, steps: int, step: float | None = None, **options) -> torch.Tensor:
    """The fields of all members after some steps."""
    dt = grid.largest_step if step is None else step
    return list(run(flows, grid, [(dt, n * dt, n == steps) for n in range(1, steps + 1)], **options))[-1].fields


def largest_errors(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Relative max-norm of each variable; absolute where it is zero."""
    size = np.abs(wanted).max(axis=(1, 2))
    return np.abs(found - wanted).max(axis=(1, 2)) / np.where(size > 0, size, 1)


def profiles(flow: Flow, grid: SolverGrid) -> tuple[torch.Tensor, torch.Tensor]:
    background = Background.of(grid, flow.frequency)
    return torch.from_numpy(background.dens), torch.from_numpy(background.theta)


def added_one_by_one(fields: np.ndarray, flow: Flow) -> tuple[float, float]:
    """Mass and the original's energy, row by row as it adds them: the rounding of its sums is in what it printed."""
    dens, theta = (profile.numpy()[:, None] for profile in profiles(flow, GRID))
    dens, theta = dens + fields[0], theta + fields[3]
    temperature = theta / (P0 / (C0 * (dens * theta) ** GAMMA)) ** (RD / CP)
    energy = dens * (fields[1] ** 2 + fields[2] ** 2) + dens * CV * temperature
    area = GRID.dx * GRID.dz
    return np.cumsum(dens * area)[-1], np.cumsum(energy * area)[-1]


@needs_original
class TestOriginal:
    @pytest.mark.parametrize("case", CASES)
    def test_first_frames(self, case):
        times, wanted = original(case)
        steps = (step for step in Schedule(GRID.largest_step, times[1], 10.0).original())
        frames = list(run([CASES[case]], GRID, steps))
        assert [frame.time for frame in frames] == pytest.approx(times[:2], abs=1e-9)
        for frame, fields in zip(frames, wanted, strict=False):
            assert largest_errors(frame.fields[0].numpy(), fields).max() < 1e-9

    @pytest.mark.slow
    @pytest.mark.parametrize("case", CASES)
    def test_all_frames_mass_and_energy(self, case):
        times, wanted = original(case)
        steps = list(Schedule(GRID.largest_step, DURATION_S[case], 10.0).original())
        steps[-1] = (*steps[-1][:2], True)
        frames = list(run([CASES[case]], GRID, steps))
        for time, fields in zip(times, wanted, strict=True):
            frame = min(frames, key=lambda frame: abs(frame.time - time))
            assert frame.time == pytest.approx(time, abs=1e-8)
            assert largest_errors(frame.fields[0].numpy(), fields).max() < 1e-9
        mass, energy = PRINTED[case]
        first, last = (added_one_by_one(frames[i].fields[0].numpy(), CASES[case]) for i in (0, -1))
        assert (last[0] - first[0]) / first[0] == pytest.approx(mass, rel=1e-7, abs=1e-13)
        assert (last[1] - first[1]) / first[1] == pytest.approx(energy, rel=1e-7)
        if case != "injection":
            drift = relative_change(frames[0], frames[-1], CASES[case])
            assert abs(drift.mass) < 1e-12

    def test_float32_stays_near(self):
        times, wanted = original("collision")
        steps = Schedule(GRID.largest_step, times[1], 10.0).original()
        *_, frame = run([CASES["collision"]], GRID, steps, dtype=torch.float32)
        assert frame.fields.dtype == torch.float32
        assert largest_errors(frame.fields[0].numpy(), wanted[1]).max() < 2e-6

    @pytest.mark.parametrize(("nx", "case"), FRAMES)
    def test_frames_fall_where_the_original_s_do(self, nx, case):
        schedule = Schedule(SolverGrid(nx, nx // 2).largest_step, DURATION_S[case], 10.0)
        times = [0.0, *(time for _, time, written in schedule.original() if written)]
        assert len(times) == FRAMES[nx, case][0]
        assert times[-1] == pytest.approx(FRAMES[nx, case][1], abs=0.05)


def relative_change(first: Frame, last: Frame, flow: Flow):
    a, b = (totals(frame.fields[0], *profiles(flow, GRID), GRID.dx, GRID.dz) for frame in (first, last))
    return type(a)(*((after - before) / before for before, after in zip(a, b, strict=True)))


class TestPhysics:
    def test_air_at_rest_stays_at_rest(self):
        for frequency in (0.0, 0.02):
            assert not simulated([Flow("rest", frequency=frequency)], SMALL, 10).any()

    def test_walls_and_a_periodic_plane_keep_mass(self):
        start, end = (simulated([CASES["collision"]], SMALL, steps) for steps in (1, 200))
        dens, theta = profiles(CASES["collision"], SMALL)
        before, after = (totals(fields, dens, theta, SMALL.dx, SMALL.dz) for fields in (start, end))
        assert float(abs(after.mass - before.mass) / before.mass) < 1e-12

    def test_energy_is_kept_but_for_viscosity(self):
        """Against the original's number, whose change is of the size of what moves and falls."""
        flow = CASES["thermal"]
        grid = SolverGrid(64, 32)
        frames = list(run([flow], grid, Schedule.uniform(grid.largest_step, 2, 400.0).exact()))
        before, after = (totals(frame.fields, *profiles(flow, grid), grid.dx, grid.dz) for frame in frames)
        assert -1e-5 < float((after.energy - before.energy) / before.energy) < 0
        assert float((after.original_energy - before.original_energy) / before.original_energy) < -2e-5

    def test_energies_by_hand(self):
        """Uniform air of 1 kg/m^3 at 300 K, rising with 2 m/s, in two rows of one cell of 10 m by 5 m."""
        fields = torch.tensor([0.0, 0.0, 2.0, 0.0])[:, None, None].expand(4, 2, 1)
        found = totals(fields, torch.ones(2), torch.full((2,), 300.0), 10.0, 5.0)
        temperature = 300 * (C0 * 300**GAMMA / P0) ** (RD / CP)
        assert float(found.mass) == pytest.approx(100)
        assert float(found.original_energy) == pytest.approx(100 * (4 + CV * temperature))
        assert float(found.energy) == pytest.approx(100 * (2 + CV * temperature + 9.8 * 5.0))

    def test_mirror_images(self):
        """A bubble in the middle stays its own mirror image; the wind along x is odd."""
        fields = simulated([CASES["thermal"]], SMALL, 60)[0]
        flipped = fields.flip(-1) * torch.tensor([1.0, -1, 1, 1], dtype=torch.float64)[:, None, None]
        assert torch.allclose(fields, flipped, rtol=0, atol=1e-11)
        assert fields[1].abs().max() > 0.1

    def test_a_plane_without_an_edge(self):
        """Moved by some cells along x, a bubble does the same there, across the edge, too."""
        bubble = Bubble(3, 9e3, 2e3, 2e3, 2e3)
        flows = [Flow("one", (bubble,), wind=5.0), Flow("two", (replace(bubble, x=9e3 + 14 * SMALL.dx),), wind=5.0)]
        fields = simulated(flows, SMALL, 40)
        assert torch.allclose(fields[0].roll(14, -1), fields[1], rtol=0, atol=1e-11)

    def test_a_jet_blows_in_at_the_left(self):
        fields = simulated([CASES["injection"]], SMALL, 10)[0]
        assert fields[1].abs().max() > 10
        assert fields[1, :, 1].argmax() in (11, 12)

    def test_what_blows_up_is_told(self):
        """With steps four times as long as are stable."""
        with pytest.raises(RunError, match=r"not finite any more at 900.*thermal"):
            simulated([CASES["thermal"]], SMALL, 60, step=15.0)


class TestBatch:
    def test_members_do_not_see_one_another(self):
        flows = list(CASES.values())
        together = simulated(flows, SMALL, 30)
        for flow, fields in zip(flows, together, strict=True):
            alone = simulated([flow], SMALL, 30)[0]
            assert torch.allclose(fields, alone, rtol=0, atol=1e-10), flow.case

    def test_float32_in_a_batch(self):
        flows = list(CASES.values())
        single, double = (simulated(flows, SMALL, 30, dtype=dtype) for dtype in (torch.float32, torch.float64))
        for member, flow in enumerate(flows):
            assert largest_errors(single[member].numpy(), double[member].numpy()).max() < 1e-3, flow.case

    @pytest.mark.skipif(native.library() is None, reason="there is no C++ compiler")
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
    def test_the_kernel_steps_as_torch_does(self, dtype, tolerance):
        flows = [*CASES.values(), replace(CASES["collision"], wind=12.0)]
        plain, kernel = (
            simulated(flows, SolverGrid(70, 20), 30, dtype=dtype, native=chosen).double() for chosen in (False, True)
        )
        sizes = plain.abs().amax((0, 2, 3), keepdim=True)
        assert ((plain - kernel).abs() / sizes).max() < tolerance
        assert not torch.equal(plain, kernel)  # they are two programs

    @pytest.mark.skipif(native.library() is None, reason="there is no C++ compiler")
    def test_the_kernel_leaves_small_numbers_alone(self):
        simulated([CASES["thermal"]], SMALL, 1)
        assert torch.tensor(1e-310, dtype=torch.float64) * 1 > 0

    def test_without_a_compiler_torch_steps(self, monkeypatch):
        monkeypatch.setattr(native, "cpp_compiler", lambda: None)
        native.library.cache_clear()
        try:
            alone = simulated([CASES["thermal"]], SMALL, 5)
        finally:
            monkeypatch.undo()
            native.library.cache_clear()
        torch.testing.assert_close(alone, simulated([CASES["thermal"]], SMALL, 5, native=False))

    @pytest.mark.slow
    @pytest.mark.skipif(not can_compile(torch.device("cpu")), reason="there is no C++ compiler")
    def test_compiled_is_the_same(self):
        flows = list(CASES.values())
        plain, compiled = (simulated(flows, SMALL, 30, compiled=compiled, native=False) for compiled in (False, True))
        assert torch.allclose(plain, compiled, rtol=0, atol=1e-10)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
    def test_the_same_on_a_gpu(self):
        flows = list(CASES.values())
        cpu, gpu = (simulated(flows, SMALL, 30, device=device).cpu() for device in ("cpu", "cuda"))
        assert torch.allclose(cpu, gpu, rtol=0, atol=1e-9)


class TestSchedule:
    def test_uniform_frames_are_exact(self):
        schedule = Schedule.uniform(0.26, 4, 20.0)
        steps = list(schedule.exact())
        assert schedule.step == 20.0 / 77
        assert [time for _, time, written in steps if written] == [20.0, 40.0, 60.0]
        assert len(steps) == 3 * 77
        assert sum(step for step, _, _ in steps) == pytest.approx(60.0)

    def test_a_grid_needs_cells(self):
        with pytest.raises(ConfigError, match="nz"):
            SolverGrid(8, 3)
