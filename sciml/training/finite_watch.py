"""Watches on the device whether steps are finite, so that the host need not wait for each of them to know."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sciml.core.errors import RunError


class EarlierStepError(RunError):
    """Says that a step before the one that was read was not finite.

    Attributes:
        steps_ago: how many before.
    """

    def __init__(self, steps_ago: int) -> None:
        super().__init__(f"the loss or a gradient was not finite {steps_ago} steps ago")
        self.steps_ago = steps_ago


class FiniteWatch:
    """Counts the steps since the first whose loss or gradient was not finite. From that one on no step may change
    weights: they are then still those with which it can be taken again.

    Attributes:
        steps_since: steps from the first that was not finite on, with it; 0 while all were.
    """

    steps_since: Int[Tensor, ""]

    def __init__(self, device: torch.device) -> None:
        self.steps_since = torch.zeros((), dtype=torch.int32, device=device)

    def after_step(self, loss: Float[Tensor, ""], norm: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Takes notice of a step; returns 1 where it may not change weights, else 0."""
        bad = (self.steps_since > 0) | ~(loss.isfinite() & norm.isfinite())
        self.steps_since = torch.where(bad, self.steps_since + 1, 0)
        return bad.float()
