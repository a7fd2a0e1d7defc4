"""Model steps: which intervals a model is trained on, and by which of them a lead time is reached."""

from __future__ import annotations

from collections.abc import Sequence

from sciml.core.duration import format_hours, parse_hours
from sciml.core.errors import ConfigError

Path = tuple[float, ...]
"""Intervals in hours, taken one after the other."""


def parse_intervals(texts: Sequence[str | float], step_hours: float, key: str) -> tuple[float, ...]:
    """Hours of intervals such as ``72h``, or of ranges such as ``6h..168h`` (every multiple of the data's step).

    Raises:
        ConfigError: for what is no interval, or no multiple of the step; the nearest one is offered.
    """
    hours: set[float] = set()
    for text in texts:
        first, dots, last = str(text).partition("..")
        if not dots:
            hours.add(multiple_of_step(parse_hours(first, key=key), step_hours, key))
            continue
        low, high = parse_hours(first, key=key), parse_hours(last, key=key)
        found = [n * step_hours for n in range(1, int(high / step_hours) + 1) if n * step_hours >= low]
        if not found:
            raise ConfigError(f"no multiple of the data's step of {format_hours(step_hours)} lies in {text}", key=key)
        hours.update(found)
    if not hours:
        raise ConfigError("at least one interval is needed", key=key, hint=f"for example [{step_hours:g}h]")
    return tuple(sorted(hours))


def multiple_of_step(hours: float, step_hours: float, key: str) -> float:
    """The hours themselves, if they are a multiple of the data's step.

    Raises:
        ConfigError: with the nearest multiple.
    """
    steps = hours / step_hours
    if abs(steps - round(steps)) > 1e-6 or round(steps) < 1:
        nearest = max(1, round(steps)) * step_hours
        raise ConfigError(
            f"{format_hours(hours)} is not a multiple of the data's step of {format_hours(step_hours)}",
            key=key,
            hint=f"the nearest that is: {nearest:g}h",
        )
    return float(round(steps) * step_hours)


def path_to(lead_hours: float, intervals: Sequence[float], key: str = "lead_time") -> Path:
    """The path of equal intervals that reaches a lead time in the fewest steps.

    Raises:
        ConfigError: where none of the intervals divides the lead time.
    """
    for interval in sorted(intervals, reverse=True):
        steps = lead_hours / interval
        if abs(steps - round(steps)) < 1e-6 and round(steps) >= 1:
            return (float(interval),) * round(steps)
    known = ", ".join(f"{h:g}h" for h in sorted(intervals))
    raise ConfigError(
        f"no interval that the model was trained on ({known}) divides {format_hours(lead_hours)}",
        key=key,
        hint=f"for example {round(lead_hours / min(intervals)) * min(intervals) or min(intervals):g}h",
    )


def scoring_paths(lead_hours: Sequence[float], intervals: Sequence[float], key: str) -> list[Path]:
    """Paths on which every lead time is met once: straight to each where the model knows them all as intervals,
    else one path of the longest interval that divides them all.

    Raises:
        ConfigError: where no interval divides them all.
    """
    if set(lead_hours) <= set(intervals):
        return [(lead,) for lead in sorted(lead_hours)]
    dividing = [i for i in intervals if all(abs(lead / i - round(lead / i)) < 1e-6 for lead in lead_hours)]
    if not dividing:
        known = ", ".join(f"{hours:g}h" for hours in intervals)
        raise ConfigError(
            f"no interval that the model is trained on ({known}) divides them all", key=key, hint=f"[{known}]"
        )
    return [path_to(max(lead_hours), dividing, key)]
