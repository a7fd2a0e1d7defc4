"""The solver on a coarser grid as a step of states on a finer one: differentiable, and of any air at rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from domains.fluids.propagator.carry import carried
from domains.fluids.refine.grids import PLANE, prolong, restrict
from domains.fluids.solver.background import C0, GAMMA
from domains.fluids.solver.cases import Flow
from domains.fluids.solver.equations import Air
from domains.fluids.solver.grid import CFL, MAX_SPEED, SolverGrid
from domains.fluids.solver.step import Dynamics, sources
from sciml.core.rounds import equal_rounds


@dataclass(frozen=True)
class CoarseSolver:
    """Carries states over a step by miniWeather's solver on a grid that is coarser by a factor.

    The coarse state goes through the solver and is interpolated back without changing the mean of any coarse cell. What
    the coarse grid does not hold, the detail, goes with the coarse flow's wind, and its means over coarse cells are
    taken out. So density, momentum and heat on the coarse grid are the solver's, exactly.

    Attributes:
        dx, dz: size of a cell of the fine grid, m.
        factor: a power of two that divides the numbers of cells; 1 is the solver itself.
        longest: longest step that it is asked for, s; decides how many steps of the solver are made.
        keeps_detail: whether detail is carried; else it is forgotten.
        compiled, native: how the solver's steps are made, see :class:`Dynamics`.
    """

    dx: float
    dz: float
    factor: int
    longest: float
    keeps_detail: bool = True
    compiled: bool = False
    native: bool = True

    @property
    def num_steps(self) -> int:
        """Returns the number of the solver's steps in one of ours."""
        return math.ceil(self.longest / (CFL * self.factor * min(self.dx, self.dz) / MAX_SPEED))

    def __call__(
        self,
        fields: Float[Tensor, "m 4 z x"],
        profiles: Float[Tensor, "m 2 z"],
        seconds: Float[Tensor, "m"],
        flows: Sequence[Flow] | None = None,
    ) -> Float[Tensor, "m 4 z x"]:
        """Returns the fields after some seconds.

        Args:
            fields: perturbation of density, winds, perturbation of potential temperature; SI units.
            profiles: density and potential temperature of the air at rest.
            flows: what is simulated, for what is blown in and what forces it; None: nothing.
        """
        profiles, seconds = profiles.to(fields), seconds.to(fields)[:, None, None]
        fine = self._dynamics(profiles, 1)
        states = torch.stack(fine.conserved(fields), dim=1)
        before = restrict(states, self.factor)
        coarse = self._dynamics(profiles, self.factor)
        if flows is not None:
            grid = SolverGrid(before.shape[-1], before.shape[-2])
            jet, force = sources(flows, grid, before.dtype, before.device, self.factor)
            coarse = replace(coarse, jet=jet, force=force)
        state = (before[:, 0], before[:, 1], before[:, 2], before[:, 3])
        # Without gradients a step leaves nothing behind but its state.
        numbers = range(self.num_steps) if before.requires_grad else equal_rounds(self.num_steps)
        for number in numbers:
            state = coarse.step(state, seconds / self.num_steps, number)
        after = torch.stack(state, dim=1)
        finished = prolong(after, self.factor)
        if self.keeps_detail and self.factor > 1:
            winds = prolong((before + after) / 2, self.factor)
            winds = winds[:, 1:3] / (winds[:, :1] + fine.cells.dens[:, None])
            detail = states - prolong(before, self.factor)
            detail = carried(detail, winds, seconds, (self.dx, self.dz), PLANE)
            blocks = restrict(detail, self.factor)
            means = blocks.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)
            finished = finished + detail - means
        return fine.fields((finished[:, 0], finished[:, 1], finished[:, 2], finished[:, 3]))

    def _dynamics(self, profiles: Float[Tensor, "m 2 z"], factor: int) -> Dynamics:
        dens, theta = profiles.unbind(1)
        dens, dens_theta = (values.unflatten(1, (-1, factor)).mean(2) for values in (dens, dens * theta))
        return Dynamics(
            self.dx * factor, self.dz * factor, _air(dens, dens_theta), _air(_faces(dens), _faces(dens_theta)),
            _ghost_ratio(dens), compiled=self.compiled and factor == self.factor,
            native=self.native,
        )  # fmt: skip


def _air(dens: Float[Tensor, "m z"], dens_theta: Float[Tensor, "m z"]) -> Air:
    return Air(*(values[..., None] for values in (dens, dens_theta, C0 * dens_theta**GAMMA)))


def _faces(cells: Float[Tensor, "m z"]) -> Float[Tensor, "m faces"]:
    """Returns values at interfaces of averages over cells, of fourth order; from one side at bottom and top."""
    inner = (7 * (cells[:, 1:-2] + cells[:, 2:-1]) - (cells[:, :-3] + cells[:, 3:])) / 12
    ends = []
    for a, b, c, d in (cells[:, :4].unbind(1), cells.flip(1)[:, :4].unbind(1)):
        ends.append(((25 * a - 23 * b + 13 * c - 3 * d) / 12, (3 * a + 13 * b - 5 * c + d) / 12))
    (bottom, second), (top, last) = ends
    return torch.cat((bottom[:, None], second[:, None], inner, last[:, None], top[:, None]), dim=1)


def _ghost_ratio(dens: Float[Tensor, "m z"]) -> Float[Tensor, "m 4 1"]:
    """Returns the density of the two cells beyond each end over that at the end, its logarithm being a parabola."""
    ratios = []
    for edge in (dens[:, :3].log(), dens.flip(1)[:, :3].log()):
        at, behind, further = edge.unbind(1)
        ratios.append((2 * at - 3 * behind + further, 5 * at - 8 * behind + 3 * further))
    (below, far_below), (above, far_above) = ratios
    return torch.stack((far_below, below, above, far_above), dim=1).exp()[..., None]
