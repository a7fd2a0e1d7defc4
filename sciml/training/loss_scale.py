"""A factor on the loss that keeps half-precision gradients from underflowing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

START, GROWTH, BACKOFF, PATIENCE = 2.0**16, 2.0, 0.5, 2000
FLOOR = 1.0
"""Below it gradients that overflow do so on their own account."""
MOST_SKIPPED = 25
"""Steps in a row that may be left out: 16 lead from the start to the floor."""


class LossScale:
    """Doubles after 2000 good steps and halves after one that overflowed, which is then left out.

    Whether a step overflowed is read off the global gradient norm, so that all ranks agree.

    Source: Micikevicius et al. (2017), https://doi.org/10.48550/arXiv.1710.03740.

    Args:
        enabled: where False, the factor is 1 for ever.

    Attributes:
        skipped: steps left out so far.
        skipped_in_row: steps left out since the last good one.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.value = START if enabled else 1.0
        self.good_steps = self.skipped = self.skipped_in_row = 0

    @property
    def may_help(self) -> bool:
        """Says whether a step that overflowed may be left out once more, for a smaller factor."""
        return self.enabled and self.skipped_in_row < MOST_SKIPPED

    def update(self, finite: bool) -> None:
        """Takes notice of a step."""
        if not self.enabled:
            return
        if finite:
            self.good_steps, self.skipped_in_row = self.good_steps + 1, 0
        else:
            self.good_steps, self.skipped, self.skipped_in_row = 0, self.skipped + 1, self.skipped_in_row + 1
            self.value = max(FLOOR, self.value * BACKOFF)
        if self.good_steps == PATIENCE:
            self.value, self.good_steps = self.value * GROWTH, 0

    def record(self) -> dict[str, float]:
        """Returns what the log says of it: the factor, and the steps left out so far."""
        return {"loss_scale": self.value, "skipped": self.skipped} if self.enabled else {}

    def state(self) -> dict[str, Tensor]:
        """Returns what a checkpoint keeps."""
        if not self.enabled:
            return {}
        return {
            "scaler.state": torch.tensor([self.value, self.good_steps], dtype=torch.float64),
            "scaler.skipped": torch.tensor([self.skipped, self.skipped_in_row]),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what a checkpoint kept; one of another precision has nothing, and the factor begins anew."""
        if self.enabled and "scaler.state" in state:
            value, good_steps = state["scaler.state"].tolist()
            self.value, self.good_steps = value, int(good_steps)
        if self.enabled and "scaler.skipped" in state:
            self.skipped, self.skipped_in_row = state["scaler.skipped"].tolist()
