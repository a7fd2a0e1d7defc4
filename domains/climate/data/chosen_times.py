"""Chooses the times of a source that go into a store, evenly spaced or with gaps that were allowed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from domains.climate.data.accumulation import is_complete, own_hours
from domains.climate.data.readers import Source
from domains.climate.data.selection import Selection
from domains.climate.data.variables import Channel
from sciml.core.duration import format_hours, parse_hours
from sciml.core.errors import ConfigError, DataError


def choose_times(source: Source, selection: Selection, channels: Sequence[Channel]) -> tuple[np.ndarray, float]:
    """Returns the positions of the chosen times and their step in hours.

    Raises:
        ConfigError: fewer than two times, or a step that is no multiple of the data's.
        DataError: a gap, or a channel that is missing where others are there.
    """
    positions = _between(source, selection, channels)
    gaps = np.diff(source.times[positions]).astype(np.int64)
    own_step = Counter(gaps.tolist()).most_common(1)[0][0]
    step = own_step if selection.step is None else round(60 * parse_hours(selection.step))
    if step % own_step:
        raise ConfigError(
            f"{format_hours(step / 60)} is no multiple of the data's step of {format_hours(own_step / 60)}",
            key=selection.key("step"),
            hint=f"e.g. step={max(step // own_step, 1) * own_step / 60:g}h",
        )
    if selection.step is not None:
        positions = _in_phase(source, channels, positions, step)
    if selection.allow_gaps:
        return _with_gaps(source, selection, channels, positions, step)
    known = _known(source, channels, step)[positions]
    # what is summed over a step is not known at the first time of all
    first = int(known.argmax())
    if first and _only_sums(source, channels, positions[:first]):
        positions = positions[first:]
    _check_several(source, selection, positions)
    _check_even(source, channels[0], positions, step)
    for channel in channels:
        _check_there(source, channel, positions, step)
    return positions, step / 60


def _known(source: Source, channels: Sequence[Channel], step: int) -> np.ndarray:
    """Says at which of the source's times all channels are known over the step before: bool (time,)."""
    return np.all([is_complete(source.fields[c.variable.name], c.level, step) for c in channels], axis=0)


def _in_phase(source: Source, channels: Sequence[Channel], positions: np.ndarray, step: int) -> np.ndarray:
    """Returns every so many minutes of the times, counted so that the most of them have all fields of a moment; from
    the first time where that is the same.
    """
    at_moments = [c for c in channels if c.variable.over == "instant"] or channels
    known = np.all([source.fields[c.variable.name].has(c.level) for c in at_moments], axis=0)[positions]
    phase = (source.times[positions] - source.times[positions[0]]).astype(np.int64) % step
    phases = np.unique(phase)
    return positions[phase == phases[np.argmax([known[phase == one].sum() for one in phases])]]


def _with_gaps(
    source: Source, selection: Selection, channels: Sequence[Channel], positions: np.ndarray, step: int
) -> tuple[np.ndarray, float]:
    """Returns the positions at which all channels are known, and the step in hours of which their spacings are
    multiples; sums are over that step.
    """
    if selection.step is None:  # no shorter than what sums speak of
        step = max(step, *(round(60 * own_hours(source.fields[c.variable.name], c.level)) for c in channels))
    while True:
        known = positions[_known(source, channels, step)[positions]]
        _check_several(source, selection, known)
        common = int(np.gcd.reduce(np.diff(source.times[known]).astype(np.int64)))
        if common == step or all(c.variable.over == "instant" for c in channels):
            return known, common / 60
        positions, step = known, common


def _between(source: Source, selection: Selection, channels: Sequence[Channel]) -> np.ndarray:
    """Returns the positions within the chosen period; times of variables that are not wanted, or that are only summed
    up, say nothing.
    """
    show = source.calendar.show
    instant = [channel for channel in channels if channel.variable.over == "instant"]
    there = np.any([source.fields[c.variable.name].has(c.level) for c in instant or channels], axis=0)
    if selection.start is not None:
        there &= source.times >= source.calendar.moment(selection.start, key=selection.key("start"))
    if selection.end is not None:
        there &= source.times <= source.calendar.moment(selection.end, last=True, key=selection.key("end"))
    positions = np.flatnonzero(there)
    if len(positions) < 2:
        raise ConfigError(
            f"{len(positions)} of the times from {show(source.times[0])} to {show(source.times[-1])} are chosen",
            key=selection.key("start" if selection.start else "end"),
            hint="choose a longer period",
        )
    return positions


def _only_sums(source: Source, channels: Sequence[Channel], positions: np.ndarray) -> bool:
    """Says whether nothing but sums over a step is missing at some times."""
    return all(
        source.fields[c.variable.name].has(c.level)[positions].all() or c.variable.over != "instant" for c in channels
    )


def _check_several(source: Source, selection: Selection, positions: np.ndarray) -> None:
    if len(positions) < 2:
        raise DataError(
            f"{source.label}: at {len(positions)} of the chosen times all channels are known; "
            "choose a longer period or fewer channels"
        )


def _check_even(source: Source, channel: Channel, positions: np.ndarray, step: int) -> None:
    times, show = source.times[positions], source.calendar.show
    gaps = np.diff(times).astype(np.int64)
    if (gaps == step).all():
        return
    at = int((gaps != step).argmax())
    missing = show(times[at] + np.timedelta64(step, "m"))
    field = source.fields[channel.variable.name]
    raise DataError(
        f"{field.file_at(int(positions[at]), channel.level)}: {channel.variable.name} is missing at {missing}; after "
        f"{show(times[at])} comes {show(times[at + 1])}, though the step is {format_hours(step / 60)} "
        "(choose a part without gaps with start and end, or say allow_gaps=true)"
    )


def _check_there(source: Source, channel: Channel, positions: np.ndarray, step: int) -> None:
    field = source.fields[channel.variable.name]
    missing = ~is_complete(field, channel.level, step)[positions]
    if not missing.any():
        return
    when = source.calendar.show(source.times[positions[missing.argmax()]])
    hours, own = format_hours(step / 60), own_hours(field, channel.level)
    if own and missing.all():
        raise DataError(
            f"{field.pieces[0].file}: {channel.variable.name} ({channel.name}) speaks of {format_hours(own)} at a "
            f"time, which do not make up the step of {hours} at {when}; choose another step, or leave it out"
        )
    over = f" in the {hours} before" if own else ""
    raise DataError(
        f"{field.pieces[0].file}: {channel.variable.name} ({channel.name}) is missing{over} at {when}, "
        "where other variables are there"
    )
