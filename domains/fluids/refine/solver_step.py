"""The solver's step that a model corrects, of one data set, and how sure of it the solver is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from domains.fluids.data.schema import DataSet
from domains.fluids.prior_step import PriorStep, Stepped
from domains.fluids.refine.coarse_solver import CoarseSolver
from domains.fluids.refine.config import RefineConfig
from domains.fluids.solver import VARIABLES, Flow
from domains.fluids.solver.grid import STENCIL
from sciml.core.errors import ConfigError

CORRECTION = 0.2
"""Size of a correction over that of an increment, roughly; what a model says is in units of it."""


def solver_step(name: str, data_set: DataSet, config: RefineConfig, longest_stride: int) -> PriorStep:
    """Returns the step of a solver on the grid of a data set, coarsened as a model asks.

    Raises:
        ConfigError: the data are not miniWeather's variables in its plane, or their grid cannot be coarsened so.
    """
    check_solvable(name, data_set, config)
    longest = longest_stride * data_set.interval
    solver = CoarseSolver(data_set.dx, data_set.dz, config.coarsen, longest, config.carry_detail, config.compile_solver)
    rough = CoarseSolver(data_set.dx, data_set.dz, 2 * config.coarsen, longest, config.carry_detail)
    order, back = orders(data_set.variables)
    needs_residual = config.indicator in ("residual", "learned") and bool(config.ratios)

    def step(
        fields: Float[Tensor, "batch variable z x"],
        profiles: Float[Tensor, "batch 2 z"] | None,
        seconds: Float[Tensor, "batch"],
        flows: Sequence[Flow] | None = None,
    ) -> Stepped:
        assert profiles is not None
        ordered = fields[:, order]
        solved = solver(ordered, profiles, seconds, flows)
        if not needs_residual:
            return Stepped(solved[:, back], CORRECTION, torch.zeros_like(fields))
        with torch.no_grad():  # it only tells where to look
            residual = solved.detach() - rough(ordered.detach(), profiles, seconds, flows)
        return Stepped(solved[:, back], CORRECTION, residual[:, back])

    return step


def check_solvable(name: str, data_set: DataSet, config: RefineConfig) -> None:
    """Refuses data that the solver cannot step.

    Raises:
        ConfigError: says what they lack.
    """
    if set(data_set.variables) != set(VARIABLES):
        raise ConfigError(
            f"the solver steps {', '.join(VARIABLES)}, and {name} has {', '.join(data_set.variables)}",
            key="model.kind", hint="use a model that needs no solver, e.g. model=vit_flow_tiny",
        )  # fmt: skip
    if not has_plane(data_set):
        raise ConfigError(
            f"the solver's plane is periodic along x and has walls below and above, that of {name} is not",
            key="model.kind", hint="use a model that needs no solver, e.g. model=vit_flow_tiny",
        )  # fmt: skip
    least = STENCIL * 2 * config.coarsen
    if not can_be_coarsened(data_set.shape, 2 * config.coarsen):
        rows, columns = data_set.shape
        raise ConfigError(
            f"the {columns}x{rows} cells of {name} cannot be coarsened by {config.coarsen} and, to judge it, by 2 more",
            key="model.coarsen", hint=f"use multiples of {2 * config.coarsen}, at least {least}",
        )  # fmt: skip


def can_be_solved(data_set: DataSet, factor: int) -> bool:
    """Says whether the solver can step data on a grid that is coarser by a factor."""
    is_known = set(data_set.variables) == set(VARIABLES) and data_set.has_profiles
    return is_known and has_plane(data_set) and can_be_coarsened(data_set.shape, factor)


def has_plane(data_set: DataSet) -> bool:
    """Says whether the plane is the solver's: periodic along x, with walls below and above."""
    sides = {axis: set(both) for axis, both in data_set.boundary.names.items()}
    return sides == {"x": {"periodic"}, "z": {"wall"}}


def can_be_coarsened(shape: tuple[int, int], factor: int) -> bool:
    """Says whether a factor divides a grid and leaves as many cells as the solver needs."""
    return all(cells % factor == 0 and cells >= STENCIL * factor for cells in shape)


def orders(variables: Sequence[str]) -> tuple[list[int], list[int]]:
    """Returns where the solver's variables stand among those of the data, and the way back."""
    return [variables.index(name) for name in VARIABLES], [VARIABLES.index(name) for name in variables]
