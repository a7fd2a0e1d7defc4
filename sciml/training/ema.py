"""An exponential moving average of the weights, to validate and to forecast with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


class WeightAverage:
    """Keeps float32 averages of a model's parameters, or of this rank's parts of them.

    The decay warms up as (1 + step) / (10 + step), so that a short run does not remember its start.

    Args:
        weights: the parameters by name; those of all later calls in the same order.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.averages = {name: value.clone() for name, value in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor], step: int) -> None:
        """Moves the averages towards the weights after an optimizer step (``step`` counts from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.averages.values()), list(weights.values()), 1 - decay)

    @contextlib.contextmanager
    def applied(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Puts the averages into the weights for a while."""
        own = {name: value.clone() for name, value in weights.items()}
        _copy(self.averages, weights)
        try:
            yield
        finally:
            _copy(own, weights)


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, value in target.items():
        value.copy_(source[name])
