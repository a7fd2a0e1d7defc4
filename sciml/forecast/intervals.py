"""Model steps: which intervals a model is trained on, and by which of them a lead time is reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sciml.core.duration import as_typed, format_hours, parse_hours
from sciml.core.errors import ConfigError
from sciml.domain.forecasting import ForecastRequest

Path = tuple[float, ...]
"""Intervals in hours, taken one after the other."""

TOLERANCE = 1e-3
"""Share of a step by which times may lie beside its multiples, as times of files do."""


def parse_intervals(texts: Sequence[str | float], step_hours: float, key: str) -> tuple[float, ...]:
    """Returns the hours of intervals such as ``72h``, or of ranges such as ``6h..168h``: every multiple of the step.

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
        inside = [n * step_hours for n in range(1, int(high / step_hours) + 1) if n * step_hours >= low]
        if not inside:
            raise ConfigError(f"no multiple of the data's step of {format_hours(step_hours)} lies in {text}", key=key)
        hours.update(inside)
    if not hours:
        raise ConfigError("at least one interval is needed", key=key, hint=f"for example [{as_typed(step_hours)}]")
    return tuple(sorted(hours))


def multiple_of_step(hours: float, step_hours: float, key: str) -> float:
    """Returns the hours themselves, if they are a multiple of the data's step.

    Raises:
        ConfigError: with the nearest multiple.
    """
    if not _divides(step_hours, hours):
        nearest = max(1, round(hours / step_hours)) * step_hours
        raise ConfigError(
            f"{format_hours(hours)} is not a multiple of the data's step of {format_hours(step_hours)}",
            key=key,
            hint=f"the nearest that is: {as_typed(nearest)}",
        )
    return float(round(hours / step_hours) * step_hours)


@dataclass(frozen=True)
class LeadTree:
    """Says by which model steps lead times are reached; times are counted in steps of the data.

    Attributes:
        step_hours: of the data.
        parents: for each lead time that is computed, the one that its last step starts from; 0 is the start.
        wanted: lead times that are asked for, increasing.
    """

    step_hours: float
    parents: Mapping[int, int]
    wanted: tuple[int, ...]


def requested_trees(request: ForecastRequest, intervals: Sequence[float], step_hours: float) -> list[LeadTree]:
    """Returns the model steps of a forecast: one tree, or one for each interval where these are combined.

    All multiples of the shortest interval are forecast that can be reached, and the lead time itself; each by the
    fewest steps, so directly where the model has learned to.

    Args:
        intervals: hours of the steps that the model was trained on.
        step_hours: of the data.

    Raises:
        ConfigError: for a lead time that is no multiple of the data's step or that no steps reach, or an interval
            that the model was not trained on.
    """
    lead = multiple_of_step(request.lead_hours, step_hours, "lead_time")
    if (wanted := request.every_hours) is not None:
        chosen = [interval for interval in intervals if abs(interval - wanted) < TOLERANCE * interval]
        if not chosen:
            raise ConfigError(
                "the model was not trained on this interval", key="every", hint=f"one of {_listed(intervals)}"
            )
        intervals = chosen
    dividing = [interval for interval in intervals if _divides(interval, lead)]
    if request.combine_intervals and dividing:
        return [lead_tree(lead, [interval], step_hours) for interval in dividing]
    return [lead_tree(lead, intervals, step_hours)]


def lead_tree(lead_hours: float, intervals: Sequence[float], step_hours: float) -> LeadTree:
    """Returns the tree of the fewest steps to a lead time and to all multiples of the shortest interval before it.

    Of several ways with as few steps the one with the shortest last step is taken, so that forecasts further ahead
    than the longest interval start from the same few states.

    Raises:
        ConfigError: where no steps reach the lead time; the nearest one that is reached is offered.
    """
    last, sizes = round(lead_hours / step_hours), sorted({round(hours / step_hours) for hours in intervals})
    counts, parents = {0: 0}, {}
    for lead in range(1, last + 1):
        ways = [(counts[lead - size], size) for size in sizes if lead - size in counts]
        if ways:
            count, size = min(ways)
            counts[lead], parents[lead] = count + 1, lead - size
    if last not in parents:
        reached = max(parents, default=sizes[0]) * step_hours
        raise ConfigError(
            f"no steps that the model was trained on ({_listed(intervals)}) lead to {format_hours(lead_hours)}",
            key="lead_time",
            hint=f"for example {as_typed(reached)}",
        )
    wanted = tuple(lead for lead in parents if lead % sizes[0] == 0 or lead == last)
    needed, pending = {}, list(wanted)
    while pending:
        lead = pending.pop()
        if lead and lead not in needed:
            needed[lead] = parents[lead]
            pending.append(parents[lead])
    return LeadTree(step_hours, dict(sorted(needed.items())), wanted)


def path_to(lead_hours: float, intervals: Sequence[float], key: str = "lead_time") -> Path:
    """Returns the path of equal intervals that reaches a lead time in the fewest steps.

    Raises:
        ConfigError: where none of the intervals divides the lead time.
    """
    for interval in sorted(intervals, reverse=True):
        if _divides(interval, lead_hours):
            return (float(interval),) * round(lead_hours / interval)
    shortest = min(intervals)
    raise ConfigError(
        f"no interval that the model was trained on ({_listed(intervals)}) divides {format_hours(lead_hours)}",
        key=key,
        hint=f"for example {as_typed(max(1, round(lead_hours / shortest)) * shortest)}",
    )


def scoring_paths(lead_hours: Sequence[float], intervals: Sequence[float], key: str) -> list[Path]:
    """Returns paths on which every lead time is met once: straight to each where the model knows them all as intervals,
    else one path of the longest interval that divides them all.

    Raises:
        ConfigError: where no interval divides them all.
    """
    if set(lead_hours) <= set(intervals):
        return [(lead,) for lead in sorted(lead_hours)]
    dividing = [interval for interval in intervals if all(_divides(interval, lead) for lead in lead_hours)]
    if not dividing:
        known = _listed(intervals)
        raise ConfigError(
            f"no interval that the model is trained on ({known}) divides them all", key=key, hint=f"[{known}]"
        )
    return [path_to(max(lead_hours), dividing, key)]


def _divides(interval: float, hours: float) -> bool:
    steps = hours / interval
    return round(steps) >= 1 and abs(steps - round(steps)) < TOLERANCE


def _listed(intervals: Sequence[float]) -> str:
    return ", ".join(as_typed(interval) for interval in sorted(intervals))
