"""The step that a model corrects: a solver's on a coarser grid, or one that is fitted to the training flows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from domains.fluids.solver.cases import Flow


class Stepped(NamedTuple):
    """Holds what a step makes of a state before it is corrected.

    Attributes:
        fields: the state after the step.
        left: how large corrections are, over increments; roughly.
        residual: by how much a grid that is twice as coarse steps otherwise, where there is one.
    """

    fields: Float[Tensor, "batch variable z x"]
    left: Float[Tensor, "batch variable 1 1"] | float
    residual: Float[Tensor, "batch variable z x"] | None = None


PriorStep = Callable[
    [
        Float[Tensor, "batch variable z x"],
        Float[Tensor, "batch 2 z"] | None,
        Float[Tensor, "batch"],
        Sequence[Flow] | None,
    ],
    Stepped,
]
"""From fields, profiles of the air at rest, seconds, and what is simulated."""
