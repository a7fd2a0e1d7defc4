"""Variables that speak of the time since the last value: precipitation, radiation, gusts, means of fluxes.

Hourly sums taken every six hours would lose five sixths of the rain: they are added up over the step, means are
averaged, and the strongest gust of the step is kept. What speaks of a longer time than the step, or of one that is not
a part of it, is not known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from domains.climate.data.readers.field import Field

_REDUCE: dict[str, Callable[..., np.ndarray]] = {"sum": np.sum, "max": np.max, "min": np.min}


@dataclass(frozen=True)
class Windows:
    """Describes the windows that end at each time at which a field is there.

    Attributes:
        at: positions of these times among the source's.
        first: the first of them that lies within each window; the last is the time itself.
        lengths: minutes that each value speaks of.
        complete: whether the values in a window speak of all of it and of nothing else.
    """

    at: np.ndarray
    first: np.ndarray
    lengths: np.ndarray
    complete: np.ndarray

    @classmethod
    @lru_cache(maxsize=8)  # asked anew for each block that is read
    def of(cls, field: Field, level: int | None, window: int) -> Windows:
        """Finds the windows of so many minutes.

        Where the files do not state periods, each value speaks of the time since the one before.
        """
        at, begins, ends = _spans(field, level, window)
        first = np.searchsorted(ends, ends - window, side="right")
        starts_right = begins[first] == ends - window
        if field.variable.over in ("sum", "mean"):
            breaks = np.cumsum(np.append(False, begins[1:] != ends[:-1]))
        else:  # an extreme may be taken twice of the same time
            breaks = np.cumsum(np.append(False, begins[1:] > ends[:-1]))
            earliest = [begins[a : b + 1].min() for b, a in enumerate(first)]
            starts_right &= np.asarray(earliest, dtype=np.int64) >= ends - window
        return cls(at, first, ends - begins, starts_right & (breaks == breaks[first]))


def _spans(field: Field, level: int | None, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns where a field is there among the source's times, and the minutes at which its periods begin and end."""
    at = np.flatnonzero(field.has(level))
    begins, ends = field.begins[at], field.times[at].astype(np.int64)
    spacings = np.diff(ends).tolist()
    usual = Counter(spacings).most_common(1)[0][0] if spacings else window
    return at, np.where(np.isnat(begins), ends - usual, begins.astype(np.int64)), ends


def is_as_it_is(field: Field, window: int) -> bool:
    """Says whether values are taken as they are: they speak of a moment, or no window is wanted."""
    return field.variable.over == "instant" or not window


def is_complete(field: Field, level: int | None, window: int) -> np.ndarray:
    """Says at which times of the source a field is known over the whole window that ends there: bool (time,).

    Args:
        window: minutes.
    """
    has = field.has(level)
    if is_as_it_is(field, window) or not has.any():
        return has
    windows = Windows.of(field, level, window)
    known = np.zeros_like(has)
    known[windows.at] = windows.complete
    return known


def own_hours(field: Field, level: int | None) -> float:
    """Returns how many hours a value of a field speaks of, most often; 0 where it speaks of a moment."""
    if field.variable.over == "instant" or not field.has(level).any():
        return 0.0
    _, begins, ends = _spans(field, level, 0)
    return Counter((ends - begins).tolist()).most_common(1)[0][0] / 60


def read_over(field: Field, positions: np.ndarray, levels: np.ndarray, window: int) -> np.ndarray:
    """Reads values (time, level, latitude, longitude) of the windows that end at positions of the source's times.

    Raises:
        DataError: where no file has them, or one is damaged.
    """
    if is_as_it_is(field, window):
        return field.read(positions, levels)
    level = field.levels[levels[0]] if field.levels else None
    if not field.has(level)[positions].all():
        return field.read(positions, levels)  # which says what is missing
    windows = Windows.of(field, level, window)
    rows = np.searchsorted(windows.at, positions)
    if (windows.first[rows] == rows).all():
        return field.read(positions, levels)
    out = np.empty((len(positions), len(levels), *field.shape[2:]), dtype=np.float32)
    for number, row in enumerate(rows):
        part = slice(windows.first[row], row + 1)
        values = field.read(windows.at[part], levels).astype(np.float64)
        if field.variable.over == "mean":
            out[number] = np.average(values, axis=0, weights=windows.lengths[part])
        else:
            out[number] = _REDUCE[field.variable.over](values, axis=0)
    return out
