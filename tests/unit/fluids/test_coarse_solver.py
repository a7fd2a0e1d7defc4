"""A solver on a coarse grid as a step of finer states: what it keeps, and that gradients flow through it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from domains.fluids.propagator.carry import carried
from domains.fluids.refine.coarse_solver import CoarseSolver
from domains.fluids.refine.grids import PLANE, prolong, restrict
from domains.fluids.solver import CASES, Background, SolverGrid
from domains.fluids.solver.cases import Flow, Jet
from domains.fluids.solver.step import Solver

GRID = SolverGrid(32, 16)
SECONDS = torch.tensor([20.0, 20.0], dtype=torch.float64)


def profiles(frequency: float, grid: SolverGrid = GRID) -> torch.Tensor:
    background = Background.of(grid, frequency)
    return torch.from_numpy(np.stack([background.dens, background.theta]))[None].expand(2, -1, -1)


def start(case: str, grid: SolverGrid = GRID) -> tuple[torch.Tensor, Solver]:
    solver = Solver([CASES[case]] * 2, grid, dtype=torch.float64, device=torch.device("cpu"), compiled=False)
    return solver.fields(solver.start()), solver


@pytest.mark.parametrize(("case", "frequency"), [("collision", 0.0), ("gravity", 0.02)])
def test_without_coarsening_it_is_the_solver(case, frequency):
    fields, solver = start(case)
    step = CoarseSolver(GRID.dx, GRID.dz, 1, 20.0)
    state = solver.dynamics.conserved(fields)
    for number in range(step.num_steps):
        state = solver.step(state, 20.0 / step.num_steps, number)
    expected, found = solver.fields(state), step(fields, profiles(frequency), SECONDS)
    # the background at interfaces is interpolated from its cells, and forcing is none of the state
    tolerance = 1e-5 if case == "collision" else 2e-2
    assert (found - expected).abs().amax() < tolerance * expected.abs().amax()


@pytest.mark.parametrize("factor", [2, 4])
def test_a_jet_blows_as_much_into_coarse_rows(factor):
    jets = [Jet(z=height, half_width=width) for height, width in ((5000.0, 1000.0), (2300.0, 700.0))]
    flows = [Flow("injection", jet=jet) for jet in jets]
    solver = Solver(flows, GRID, dtype=torch.float64, device=torch.device("cpu"), compiled=False)
    fields = solver.fields(solver.start())
    grown = []
    for coarsened in (1, factor):
        step = CoarseSolver(GRID.dx, GRID.dz, coarsened, 20.0)
        after = fields
        for _ in range(5):
            after = step(after, profiles(0.0), SECONDS, flows)
        grown.append((after - fields)[:, 0].mean((-2, -1)))
    torch.testing.assert_close(grown[1], grown[0], rtol=0.3, atol=0)
    for flow in flows:  # through as much of the side
        coarse, fine = flow.jet_rows(GRID.coarsened(factor), factor), flow.jet_rows(GRID)
        assert coarse.sum() * factor == fine.sum() > 0


def test_interpolation_keeps_means_and_is_of_high_order():
    x = torch.arange(32, dtype=torch.float64) * 2 * torch.pi / 32
    fine = torch.arange(64, dtype=torch.float64) * 2 * torch.pi / 64
    half, quarter = torch.pi / 32, torch.pi / 64

    def wave(centers, width):
        return (torch.sin(centers + 2 * width) - torch.sin(centers)) / (2 * width)  # averages of a cosine over cells

    fields = wave(x, half).expand(1, 4, 16, 32)
    finer = prolong(fields, 2)
    torch.testing.assert_close(restrict(finer, 2), fields)
    assert (finer[0, 0, 10] - wave(fine, quarter)).abs().max() < 1e-5
    rough = torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(restrict(prolong(rough, 4), 4), rough)


def test_detail_goes_with_the_wind_over_the_periodic_edge():
    detail = torch.zeros(1, 4, 8, 16, dtype=torch.float64)
    detail[0, 3, 4, 14] = 1
    wind = torch.zeros(1, 2, 8, 16, dtype=torch.float64)
    wind[:, 0] = 30.0
    moved = carried(detail, wind, torch.full((1, 1, 1), 10.0, dtype=torch.float64), (100.0, 100.0), PLANE)
    torch.testing.assert_close(moved, detail.roll(3, -1))


def test_mass_is_kept_and_the_coarse_state_is_the_solver_s():
    fields, solver = start("collision", SolverGrid(64, 32))
    fields = fields + 0.01 * torch.randn(fields.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grid = solver.grid
    step = CoarseSolver(grid.dx, grid.dz, 2, 20.0)
    found = step(fields, profiles(0.0, grid), SECONDS)
    before, after = (torch.stack(solver.dynamics.conserved(each), 1) for each in (fields, found))
    assert (after - before)[:, 0].sum((1, 2)).abs().max() < 1e-12 * before[:, 0].abs().sum()
    forgetful = CoarseSolver(grid.dx, grid.dz, 2, 20.0, keeps_detail=False)(fields, profiles(0.0, grid), SECONDS)
    plain = torch.stack(solver.dynamics.conserved(forgetful), 1)
    torch.testing.assert_close(restrict(after, 2), restrict(plain, 2))
    assert (after - plain).abs().max() > 1e-3


def test_gradients_flow_through_it():
    fields, _ = start("collision", SolverGrid(16, 8))
    fields = fields[:1].requires_grad_()
    step = CoarseSolver(1250.0, 1250.0, 2, 20.0)
    air = profiles(0.0, SolverGrid(16, 8))[:1]
    direction = torch.randn(fields.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def score(state):
        return (step(state, air, SECONDS[:1]) * direction).sum()

    (gradient,) = torch.autograd.grad(score(fields), fields)
    along = torch.randn(fields.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        slope = (score(fields + 1e-5 * along) - score(fields - 1e-5 * along)) / 2e-5
    assert float((gradient * along).sum()) == pytest.approx(float(slope), rel=1e-5)


def test_steps_may_differ_in_length_within_a_batch():
    fields, _ = start("collision")
    step = CoarseSolver(GRID.dx, GRID.dz, 2, 20.0)
    both = step(fields, profiles(0.0), torch.tensor([20.0, 10.0], dtype=torch.float64))
    half = step(fields, profiles(0.0), torch.tensor([10.0, 10.0], dtype=torch.float64))
    torch.testing.assert_close(both[1], half[1])
    assert (both[0] - both[1]).abs().max() > 0.1
