"""Time steps of a batch of flows, on any device, compiled where that pays."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from domains.fluids.solver.background import C0, GAMMA, Background
from domains.fluids.solver.cases import Flow, Jet
from domains.fluids.solver.equations import STAGES, Air, Inflow, State, stage_x, stage_z
from domains.fluids.solver.grid import SolverGrid


class Solver:
    """Steps flows on one grid together.

    Args:
        flows: one a member; cases may be mixed.
        dtype: float64 or float32.
        compiled: whether stages are compiled, which takes some tens of seconds where it was not done before.
    """

    def __init__(
        self, flows: Sequence[Flow], grid: SolverGrid, *, dtype: torch.dtype, device: torch.device, compiled: bool
    ) -> None:
        self.flows, self.grid, self.dtype, self.device = tuple(flows), grid, dtype, device
        backgrounds = [Background.of(grid, flow.frequency) for flow in flows]
        self.cells = self._air(backgrounds, "dens", "dens_theta")
        self.faces = self._air(backgrounds, "dens_face", "dens_theta_face")
        self.ghost_ratio = self._columns([background.ghost_ratio for background in backgrounds])
        self.jet = self._jet() if any(flow.jet for flow in flows) else None
        forced = any(flow.forcing for flow in flows)
        self.force = self._shared([flow.force(grid) for flow in flows]) if forced else None
        self._stage_x: Callable[..., State] = _compiled(stage_x) if compiled else stage_x
        self._stage_z: Callable[..., State] = _compiled(stage_z) if compiled else stage_z

    def start(self) -> State:
        """Returns the state at time 0."""
        states = np.stack([flow.start(self.grid) for flow in self.flows])
        dens, momentum_x, momentum_z, theta = torch.from_numpy(states).to(self.dtype).to(self.device).unbind(1)
        return dens.contiguous(), momentum_x.contiguous(), momentum_z.contiguous(), theta.contiguous()

    @torch.no_grad()
    def step(self, state: State, step: float, number: int) -> State:
        """Returns the state after a step.

        Args:
            step: s.
            number: of the step; even ones go along x first, odd ones along z.
        """
        # tensors, so that what is compiled serves any step
        seconds = [torch.tensor(step / stage, dtype=self.dtype, device=self.device) for stage in STAGES]
        for along_x in (True, False) if number % 2 == 0 else (False, True):
            # the same tensors twice would be compiled apart
            start: State = tuple(field.detach() for field in state)  # type: ignore[assignment]
            for some in seconds:
                if along_x:
                    state = self._stage_x(start, state, some, self.grid.dx, self.cells, self.jet, self.force)
                else:
                    state = self._stage_z(start, state, some, self.grid.dz, self.faces, self.ghost_ratio, self.force)
        return state

    def fields(self, state: State) -> Float[Tensor, "member 4 z x"]:
        """Returns the perturbation of density, the winds, and the perturbation of potential temperature."""
        dens, momentum_x, momentum_z, theta = state
        full = dens + self.cells.dens
        background = self.cells.dens_theta / self.cells.dens
        # the perturbation of theta without the difference of two large numbers
        return torch.stack((dens, momentum_x / full, momentum_z / full, (theta - background * dens) / full), dim=1)

    def _air(self, backgrounds: list[Background], dens: str, dens_theta: str) -> Air:
        profiles = [(getattr(background, dens), getattr(background, dens_theta)) for background in backgrounds]
        return Air(
            self._columns([dens for dens, _ in profiles]),
            self._columns([dens_theta for _, dens_theta in profiles]),
            self._columns([C0 * dens_theta**GAMMA for _, dens_theta in profiles]),
        )

    def _jet(self) -> Inflow:
        jets = [flow.jet or Jet() for flow in self.flows]
        return Inflow(
            self._columns([flow.jet_rows(self.grid) for flow in self.flows]),
            self._columns([np.array([jet.speed]) for jet in jets]),
            self._columns([np.array([jet.theta]) for jet in jets]),
        )

    def _columns(self, profiles: list[np.ndarray]) -> Shaped[Tensor, "m z 1"]:
        return self._shared([profile[:, None] for profile in profiles])

    def _shared(self, arrays: list[np.ndarray]) -> Shaped[Tensor, "m ..."]:
        """Returns one for all members where they are equal, else one for each."""
        same = all(np.array_equal(arrays[0], other) for other in arrays[1:])
        tensor = torch.from_numpy(np.stack(arrays[:1] if same else arrays))
        return (tensor.to(self.dtype) if tensor.is_floating_point() else tensor).to(self.device)


def can_compile(device: torch.device) -> bool:
    """Says whether the machine has torch's compiler."""
    if device.type == "cpu":
        return any(shutil.which(name) for name in ("g++", "clang++"))
    return importlib.util.find_spec("triton") is not None


def _compiled(function: Callable[..., State]) -> Callable[..., State]:
    compiled: Callable[..., State] = torch.compile(function, dynamic=False)
    return compiled
