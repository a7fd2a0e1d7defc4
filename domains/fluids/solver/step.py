"""Time steps of a batch of flows, on any device, compiled where that pays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from domains.fluids.solver.background import C0, GAMMA, Background
from domains.fluids.solver.cases import Flow, Jet
from domains.fluids.solver.equations import STAGES, Air, Inflow, State, stage_x, stage_z
from domains.fluids.solver.grid import SolverGrid
from domains.fluids.solver.native import NativeStep, can_step


@dataclass(frozen=True)
class Dynamics:
    """Steps states of flows in their air. Gradients flow through it, where they are asked for.

    Attributes:
        dx, dz: size of a cell, m.
        cells: background of cells.
        faces: background at the interfaces between rows, from the ground to the top.
        ghost_ratio: density of the background in the two ghost cells below and above over that at the edge.
        jet: what is blown in at the left.
        force: what the momentum along z gains, kg/(m^2 s^2).
        compiled: whether stages are compiled by torch, for gradients and accelerators, which takes some tens of seconds
            where it was not done before.
        native: whether steps on a CPU without gradients are made by the kernel in C++, where there is a compiler.
    """

    dx: float
    dz: float
    cells: Air
    faces: Air
    ghost_ratio: Float[Tensor, "#m 4 1"]
    jet: Inflow | None = None
    force: Float[Tensor, "m z x"] | None = None
    compiled: bool = False
    native: bool = True

    @cached_property
    def _kernels(self) -> dict[int, NativeStep]:
        """Keeps kernels by number of members."""
        return {}

    @cached_property
    def _stages(self) -> tuple[Callable[..., State], Callable[..., State]]:
        return (_compiled(stage_x), _compiled(stage_z)) if self.compiled else (stage_x, stage_z)

    def step(self, state: State, seconds: float | Float[Tensor, "m 1 1"], number: int) -> State:
        """Returns the state after a step.

        Args:
            seconds: of the step, of all members or of each.
            number: of the step; even ones go along x first, odd ones along z.
        """
        # tensors, so that what is compiled serves any step
        whole = torch.as_tensor(seconds, dtype=state[0].dtype, device=state[0].device)
        if self.native and can_step(state):
            members = len(state[0])
            if members not in self._kernels:
                self._kernels[members] = NativeStep(self, members)
            return self._kernels[members](state, whole, number)
        stage_x, stage_z = self._stages
        for along_x in (True, False) if number % 2 == 0 else (False, True):
            # the same tensors twice would be compiled apart
            start = state if torch.is_grad_enabled() else _detached(state)
            for some in (whole / stage for stage in STAGES):
                if along_x:
                    state = stage_x(start, state, some, self.dx, self.cells, self.jet, self.force)
                else:
                    state = stage_z(start, state, some, self.dz, self.faces, self.ghost_ratio, self.force)
        return state

    def conserved(self, fields: Float[Tensor, "member 4 z x"]) -> State:
        """Returns the state of fields as :meth:`fields` gives them."""
        dens, uwnd, wwnd, theta = fields.unbind(1)
        full = dens + self.cells.dens
        return dens, full * uwnd, full * wwnd, full * theta + self._background_theta * dens

    def fields(self, state: State) -> Float[Tensor, "member 4 z x"]:
        """Returns the perturbation of density, the winds, and the perturbation of potential temperature."""
        dens, momentum_x, momentum_z, theta = state
        full = dens + self.cells.dens
        # the perturbation of theta without the difference of two large numbers
        return torch.stack(
            (dens, momentum_x / full, momentum_z / full, (theta - self._background_theta * dens) / full), dim=1
        )

    @property
    def _background_theta(self) -> Float[Tensor, "#m z 1"]:
        return self.cells.dens_theta / self.cells.dens


class Solver:
    """Steps flows on one grid together.

    Args:
        flows: one a member; cases may be mixed.
        dtype: float64 or float32.
        compiled, native: see :class:`Dynamics`.
    """

    def __init__(
        self,
        flows: Sequence[Flow],
        grid: SolverGrid,
        *,
        dtype: torch.dtype,
        device: torch.device,
        compiled: bool,
        native: bool = True,
    ) -> None:
        self.flows, self.grid, self.dtype, self.device = tuple(flows), grid, dtype, device
        backgrounds = [Background.of(grid, flow.frequency) for flow in flows]
        self.dynamics = Dynamics(
            grid.dx,
            grid.dz,
            self._air(backgrounds, "dens", "dens_theta"),
            self._air(backgrounds, "dens_face", "dens_theta_face"),
            self._columns([background.ghost_ratio for background in backgrounds]),
            *sources(flows, grid, dtype, device),
            compiled,
            native,
        )

    def start(self) -> State:
        """Returns the state at time 0."""
        states = np.stack([flow.start(self.grid) for flow in self.flows])
        dens, momentum_x, momentum_z, theta = torch.from_numpy(states).to(self.dtype).to(self.device).unbind(1)
        return dens.contiguous(), momentum_x.contiguous(), momentum_z.contiguous(), theta.contiguous()

    @torch.no_grad()
    def step(self, state: State, step: float, number: int) -> State:
        """Returns the state after a step of some seconds; see :meth:`Dynamics.step`."""
        return self.dynamics.step(state, step, number)

    def fields(self, state: State) -> Float[Tensor, "member 4 z x"]:
        """Returns the fields of a state; see :meth:`Dynamics.fields`."""
        return self.dynamics.fields(state)

    def coarsened(self, factor: int) -> Solver:
        """Returns a solver of the same flows on the grid whose cells are squares of so many cells."""
        if factor == 1:
            return self
        grid = self.grid.coarsened(factor)
        return Solver(self.flows, grid, dtype=self.dtype, device=self.device, compiled=False)

    def _air(self, backgrounds: list[Background], dens: str, dens_theta: str) -> Air:
        profiles = [(getattr(background, dens), getattr(background, dens_theta)) for background in backgrounds]
        return Air(
            self._columns([dens for dens, _ in profiles]),
            self._columns([dens_theta for _, dens_theta in profiles]),
            self._columns([C0 * dens_theta**GAMMA for _, dens_theta in profiles]),
        )

    def _columns(self, profiles: list[np.ndarray]) -> Shaped[Tensor, "m z 1"]:
        return shared([profile[:, None] for profile in profiles], self.dtype, self.device)


def sources(
    flows: Sequence[Flow], grid: SolverGrid, dtype: torch.dtype, device: torch.device, finer: int = 1
) -> tuple[Inflow | None, Float[Tensor, "#m z x"] | None]:
    """Returns what is blown into flows, and what pulls them all the time; None where that is nothing.

    Args:
        finer: cells along each axis of the grid that the flows are known on, in one of this one.
    """

    def columns(profiles: list[np.ndarray]) -> Shaped[Tensor, "#m z 1"]:
        return shared([profile[:, None] for profile in profiles], dtype, device)

    jet, force = None, None
    if any(flow.jet for flow in flows):
        jets = [flow.jet or Jet() for flow in flows]
        jet = Inflow(
            columns([flow.jet_rows(grid, finer) for flow in flows]),
            columns([np.array([jet.speed]) for jet in jets]),
            columns([np.array([jet.theta]) for jet in jets]),
        )
    if any(flow.forcing for flow in flows):
        force = shared([flow.force(grid) for flow in flows], dtype, device)
    return jet, force


def shared(arrays: list[np.ndarray], dtype: torch.dtype, device: torch.device) -> Shaped[Tensor, "#m ..."]:
    """Returns one for all members where they are equal, else one for each."""
    same = all(np.array_equal(arrays[0], other) for other in arrays[1:])
    tensor = torch.from_numpy(np.stack(arrays[:1] if same else arrays))
    return (tensor.to(dtype) if tensor.is_floating_point() else tensor).to(device)


def block_mean(state: State, factor: int) -> State:
    """Returns a state as averages over squares of so many cells; mass, momentum and heat stay what they are."""
    dens, momentum_x, momentum_z, theta = (
        field if factor == 1 else F.avg_pool2d(field[:, None], factor)[:, 0] for field in state
    )
    return dens, momentum_x, momentum_z, theta


def _detached(state: State) -> State:
    dens, momentum_x, momentum_z, theta = (field.detach() for field in state)
    return dens, momentum_x, momentum_z, theta


def _compiled(function: Callable[..., State]) -> Callable[..., State]:
    compiled: Callable[..., State] = torch.compile(function, dynamic=False)
    return compiled
