"""Variables that speak of the time since the last value: precipitation, radiation, gusts, means of fluxes.

Hourly sums taken every six hours would lose five sixths of the rain: they are added up over the step, means are
averaged, and the strongest gust of the step is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from domains.climate.data.readers.field import Field

_REDUCE: dict[str, Callable[..., np.ndarray]] = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min}


def count_in(field: Field, level: int | None, window: int) -> int:
    """Returns how many of a field's own times a window has, in minutes; 1 for instantaneous fields."""
    if field.variable.over == "instant" or not window:
        return 1
    spacings = np.diff(field.times[field.has(level)]).astype(np.int64)
    if not len(spacings):
        return 1
    own = Counter(spacings.tolist()).most_common(1)[0][0]
    return window // own if own < window and window % own == 0 else 1


def is_complete(field: Field, level: int | None, window: int) -> np.ndarray:
    """Says at which times of the source a field is known over the whole window that ends there: bool (time,)."""
    has = field.has(level)
    count = count_in(field, level, window)
    if count == 1:
        return has
    seen = np.concatenate([[0], np.cumsum(has)])
    begin = np.searchsorted(field.times, field.times - np.timedelta64(window, "m"), side="right")
    return has & (seen[np.arange(len(has)) + 1] - seen[begin] == count)


def read_over(field: Field, positions: np.ndarray, levels: np.ndarray, window: int) -> np.ndarray:
    """Reads values (time, level, latitude, longitude) of the windows that end at positions of the source's times.

    Raises:
        DataError: where no file has them, or one is damaged.
    """
    level = field.levels[levels[0]] if field.levels else None
    if count_in(field, level, window) == 1:
        return field.read(positions, levels)
    reduce, has = _REDUCE[field.variable.over], field.has(level)
    out = np.empty((len(positions), len(levels), *field.shape[2:]), dtype=np.float32)
    for number, position in enumerate(positions):
        begin = int(np.searchsorted(field.times, field.times[position] - np.timedelta64(window, "m"), side="right"))
        within = begin + np.flatnonzero(has[begin : position + 1])
        out[number] = reduce(field.read(within, levels).astype(np.float64), axis=0)
    return out
