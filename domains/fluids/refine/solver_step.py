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


def solver_step(
    name: str, data_set: DataSet, config: RefineConfig, longest_stride: int, learned_on: tuple[int, int]
) -> PriorStep:
    """Returns the step of a solver for a data set, on the cells on which the model learned to correct it.

    Args:
        learned_on: cells along z and x of the training's grid, which the model's ``coarsen`` counts from.

    Raises:
        ConfigError: the data are not miniWeather's variables in its plane, or their grid cannot be coarsened so.
    """
    factor = check_solvable(name, data_set, config, learned_on)
    longest = longest_stride * data_set.interval
    solver = CoarseSolver(data_set.dx, data_set.dz, factor, longest, config.carry_detail, config.compile_solver)
    rough = CoarseSolver(data_set.dx, data_set.dz, 2 * factor, longest, config.carry_detail)
    order, back = orders(data_set.variables)
    needs_residual = _needs_residual(config)

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


def _needs_residual(config: RefineConfig) -> bool:
    """Says whether the solver is also judged on a grid that is coarser by two."""
    return config.indicator in ("residual", "learned") and bool(config.ratios)


def check_solvable(name: str, data_set: DataSet, config: RefineConfig, learned_on: tuple[int, int]) -> int:
    """Returns by how much the solver coarsens the grid of data; refuses data that it cannot step.

    Args:
        learned_on: cells along z and x of the training's grid.

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
    factor = _coarsening(name, data_set.shape, config.coarsen, learned_on)
    most, judged = (2 * factor, " and, to judge it, by 2 more") if _needs_residual(config) else (factor, "")
    if not can_be_coarsened(data_set.shape, most):
        rows, columns = data_set.shape
        raise ConfigError(
            f"the {columns}x{rows} cells of {name} cannot be coarsened by {factor}{judged}",
            key="model.coarsen", hint=f"use multiples of {most}, at least {STENCIL * most}",
        )  # fmt: skip
    return factor


def _coarsening(name: str, shape: tuple[int, int], coarsen: int, learned_on: tuple[int, int]) -> int:
    """Returns the factor to the grid on which the solver is corrected: on another one its errors would be others.

    Raises:
        ConfigError: there is no power of two between the two grids.
    """
    for factor in (2**power for power in range(max(shape).bit_length())):
        if all(cells * coarsen == factor * learned for cells, learned in zip(shape, learned_on, strict=True)):
            return factor
    (rows, columns), (z, x) = shape, (cells // coarsen for cells in learned_on)
    raise ConfigError(
        f"the model corrects a solver on {x}x{z} cells, to which the {columns}x{rows} cells of {name} cannot be halved",
        key="data.path", hint=f"use {x}x{z}, {2 * x}x{2 * z} or {4 * x}x{4 * z} cells, or task.resample=false",
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
