"""Says over how many steps a model learns to forecast, and how that grows in the course of a training.

A forecast of many steps goes wrong by what the model makes of its own states. It is shown these in training: some steps
from its own states without gradient, then some that are learned together. How many is a function of the training step
alone, so that every rank takes as many, and a resumed training goes on alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from sciml.core.seeding import seed_of
from sciml.core.types import AtLeastOne, NonNegative

Horizon = Literal["full", "grow", "random"]


class Span(NamedTuple):
    """Counts the steps of a training sample: first those without gradient, then those that are learned."""

    pushforward: int
    learned: int


@dataclass(frozen=True)
class HorizonConfig:
    """Says over how many steps a model learns.

    Attributes:
        rollout_steps: steps that are learned together; the gradient flows through all of them, and of several each is
            computed again in the backward pass.
        pushforward: up to so many steps from the model's own states before those; no gradient flows through them.
        horizon: ``full`` takes all ``rollout_steps`` from the beginning, ``grow`` from one more and more of both kinds
            of steps as the training goes on, ``random`` any number of them.

    Sources: Lam et al. (2023), https://doi.org/10.1126/science.adi2336, for the growing horizon; Brandstetter et al.
    (2022), https://doi.org/10.48550/arXiv.2202.03376, for pushforward.
    """

    rollout_steps: AtLeastOne = 1
    pushforward: NonNegative[int] = 0
    horizon: Horizon = "full"

    @property
    def longest(self) -> int:
        """Returns the number of steps that a training sample must have."""
        return self.rollout_steps + self.pushforward

    def span(self, step: int, max_steps: int, seed: int) -> Span:
        """Returns how many steps are taken at a step of the training."""
        progress = step / max(max_steps, 1)
        generator = np.random.default_rng(seed_of(seed, "horizon", step))
        most = self.pushforward
        learned = self.rollout_steps
        if self.horizon == "grow":
            learned = min(learned, 1 + int(learned * progress))
            most = min(most, int((most + 1) * progress))
        elif self.horizon == "random":
            learned = int(generator.integers(1, learned + 1))
        return Span(int(generator.integers(most + 1)), learned)

    @property
    def whole(self) -> Span:
        """Returns the steps outside of training, the same whenever a model is validated: those that are learned."""
        return Span(0, self.rollout_steps)
