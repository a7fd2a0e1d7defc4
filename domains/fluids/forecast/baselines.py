"""Makes what forecasts of flows are compared with: persistence, a coarser solver, and the fitted step alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch

from domains.fluids.data.batch import FlowBatch
from domains.fluids.data.schema import FluidsSchema, FluidsStatistics
from domains.fluids.prior_step import PriorStep
from domains.fluids.propagator.propagator import propagator_step
from domains.fluids.refine.coarse_solver import CoarseSolver
from domains.fluids.refine.solver_step import can_be_solved, orders
from sciml.domain.protocol import Prediction, Predictor
from sciml.domain.score import Baseline
from sciml.report.style import AMBER, GRAY, GREEN, ORANGE, VIOLET

PERSISTENCE = Baseline("persistence", GRAY, "s")
SOLVERS = {2: Baseline("solver_coarser_by_2", GREEN, "v"), 4: Baseline("solver_coarser_by_4", AMBER, "^")}
"""The solver that data come from on grids that are coarser by a factor, where it can step them."""
PROPAGATOR = Baseline("propagator", VIOLET, "P")
"""The step that is fitted to the training flows, alone."""
FNO = Baseline("fno", ORANGE, "D")
"""The reference model of the default configuration."""
BASELINES = (PERSISTENCE, *SOLVERS.values(), PROPAGATOR, FNO)


def baselines(schema: FluidsSchema, statistics: FluidsStatistics, longest_stride: int) -> Mapping[Baseline, Predictor]:
    """Returns persistence and, where they are there, solver and fitted step.

    Args:
        longest_stride: of the steps that are scored.
    """
    found: dict[Baseline, Predictor] = {PERSISTENCE: persistence}
    data_sets = schema.data_sets
    for factor, baseline in SOLVERS.items():
        if all(can_be_solved(data_set, factor) for data_set in data_sets.values()):
            solvers = {
                name: CoarseSolver(each.dx, each.dz, factor, longest_stride * each.interval)
                for name, each in data_sets.items()
            }
            found[baseline] = partial(_solve, schema, solvers)
    if any(scale.propagator.numel() for scale in statistics.scales.values()):  # elsewhere it is persistence
        steps = {
            name: propagator_step(data_set, statistics.scales[name], longest_stride)
            for name, data_set in data_sets.items()
        }
        found[PROPAGATOR] = partial(_propagate, steps)
    return found


def persistence(batch: FlowBatch) -> Prediction:
    """Predicts that nothing changes."""
    return Prediction({name: part.initial for name, part in batch.parts.items()})


@torch.no_grad()
def _solve(schema: FluidsSchema, solvers: Mapping[str, CoarseSolver], batch: FlowBatch) -> Prediction:
    """Predicts the next state by a solver."""
    values = {}
    for name, part in batch.parts.items():
        assert part.profiles is not None
        forward, back = orders(schema.data_sets[name].variables)
        fields = part.state[:, forward]
        values[name] = solvers[name](fields, part.profiles, part.steps[:, 0], part.known_flows)[:, back]
    return Prediction(values)


@torch.no_grad()
def _propagate(steps: Mapping[str, PriorStep], batch: FlowBatch) -> Prediction:
    """Predicts the next state by fitted steps; in obstacles nothing changes."""
    values = {}
    for name, part in batch.parts.items():
        fields = steps[name](part.state, None, part.steps[:, 0], None).fields
        values[name] = fields if part.fluid is None else torch.where(part.fluid, fields, part.state)
    return Prediction(values)
