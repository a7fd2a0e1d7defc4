"""A factor on the loss that keeps half-precision gradients from underflowing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

START, GROWTH, BACKOFF, PATIENCE = 2.0**16, 2.0, 0.5, 2000


class LossScale:
    """Doubles after 2000 good steps and halves after one that overflowed, which is then left out.

    Whether a step overflowed is read off the global gradient norm, so that all ranks agree.

    Source: Micikevicius et al. (2017), https://doi.org/10.48550/arXiv.1710.03740.

    Args:
        enabled: where False, the factor is 1 for ever.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.value = START if enabled else 1.0
        self.good_steps = 0

    def update(self, finite: bool) -> None:
        """Takes notice of a step."""
        if not self.enabled:
            return
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.value *= BACKOFF
        elif self.good_steps == PATIENCE:
            self.value, self.good_steps = self.value * GROWTH, 0

    def state(self) -> dict[str, Tensor]:
        """Returns what a checkpoint keeps."""
        if not self.enabled:
            return {}
        return {"scaler.state": torch.tensor([self.value, self.good_steps], dtype=torch.float64)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if self.enabled:
            value, good_steps = state["scaler.state"].tolist()
            self.value, self.good_steps = value, int(good_steps)
