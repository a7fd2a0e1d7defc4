"""The learning rate as a function of the step alone, so that a resumed run follows the same curve with nothing to
restore.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sciml.training.config import OptimConfig

Schedule = Literal["cosine", "wsd"]
DECAYS: Mapping[Schedule, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "wsd": lambda progress: 1 - math.sqrt(progress),
}
"""By the name that ``optim.schedule`` takes: the share of the way from the peak to the floor that is left.

Sources: Loshchilov and Hutter (2017), https://doi.org/10.48550/arXiv.1608.03983, for the cosine; Hägele et al. (2024),
https://doi.org/10.48550/arXiv.2405.18392, for warm-up, a stable rate and a short decay.
"""


def learning_rate(config: OptimConfig, step: int, max_steps: int) -> float:
    """Returns the learning rate of a step: a linear warm-up, then a decay to ``min_lr_ratio`` of the peak."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    first, last = decay_span(config, max_steps)
    progress = min(1.0, max(0.0, (step - first) / (last - first)))
    floor = config.min_lr_ratio
    return config.lr * (floor + (1 - floor) * DECAYS[config.schedule](progress))


def decay_span(config: OptimConfig, max_steps: int) -> tuple[int, int]:
    """Returns the first step of the decay, and the step from which the rate stays at its floor.

    The cosine begins with the end of the warm-up, the decay of ``wsd`` ends with the training.
    """
    if config.schedule == "cosine":
        return config.warmup_steps, config.warmup_steps + (
            config.decay_steps or max(1, max_steps - config.warmup_steps)
        )
    first = max(config.warmup_steps, max_steps - (config.decay_steps or max(1, max_steps // 10)))
    return first, max(first + 1, max_steps)


def rest_of_schedule(config: OptimConfig, step: int, max_steps: int) -> str:
    """Says in a sentence what the learning rate does from a step to the last."""
    first, last = decay_span(config, max_steps)
    now, end = (f"{learning_rate(config, at, max_steps):.3g}" for at in (step, max_steps))
    if step >= last:
        longer = max_steps - config.warmup_steps if config.schedule == "cosine" else max_steps - step
        return (
            f"the learning rate stays at its floor of {now}, since its decay ended with step {last}; "
            f"optim.decay_steps={longer} would decay it until step {max_steps}"
        )
    parts = [f"the learning rate is {now} at step {step}"]
    if step < config.warmup_steps:
        top = min(config.warmup_steps, max_steps)
        parts.append(f"rises to {learning_rate(config, top - 1, max_steps):.3g} until step {top}")
    if max(step, config.warmup_steps) < first < max_steps:
        parts.append(f"stays until step {first}")
    until = f", and stays there from step {last} on" if last < max_steps else f" at step {max_steps}"
    if first < max_steps:
        parts.append(f"falls to {end}{until}")
    return ", ".join(parts)
