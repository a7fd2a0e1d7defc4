"""Mean weather by day of year and hour, and by week.

Day of year and hour: the mean over the years of the training period within 30 days of each day of the year, with
weights that fall linearly from 1 to 0 at 30 days (WeatherBench 2's 61-day window), wrapping round the year.
Each state counts at its own day of the year, 1 to 366, or to the last of its calendar, after which comes the first.

A training period of less than a year leaves windows empty or thin. What a window lacks of the weight that one
full year would give it is filled with the mean of the whole training period at that hour. So every day is
defined, the passage is smooth, and with a year or more nothing is filled. Of less than half a year the means of single
days are kept and smoothed as they are asked for: so a climatology takes no more room than the data that it is made of.

Where a cell has no value at some times (the sea's surface below ice, say) means are those of the times that it has;
what its windows lack is filled with its own mean. A cell that never has one has no climatology.

Week: the plain mean of each of the weeks 0 to 52 of the year (day of year 1 to 7 is week 0), as in WeatherBench 1;
a week without data has the mean of the whole training period.

Sources: Rasp et al. (2024), https://doi.org/10.1029/2023MS004019; Rasp et al. (2020), https://doi.org/10.1029/2020MS002203.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from domains.climate.data.calendar import WORLD, Calendar
from domains.climate.data.running_means import RunningMeans
from domains.climate.data.statistics import ReadFields
from sciml.core.files import allocate

DAYS, WEEKS = 366, 53
HALF_WINDOW_DAYS = 30
SLAB_VALUES = 2**21
_MINUTES = np.timedelta64(1, "m")


@dataclass(frozen=True)
class DayTimes:
    """Says where times stand in the day and the year.

    Attributes:
        hours: hours of the day with a climatology of their own, increasing.
        calendar: that times are counted in.
    """

    hours: tuple[float, ...]
    calendar: Calendar = WORLD

    @classmethod
    def of(cls, times: np.ndarray, calendar: Calendar = WORLD) -> DayTimes:
        """Takes every hour of the day that occurs; or 0, 6, 12 and 18 where the step does not divide the day.

        In the latter case (7-hourly data, say) each time counts at the nearest of the four.
        """
        minutes = np.unique(minute_of_day(times))
        spacings, counts = np.unique(np.diff(times) // _MINUTES, return_counts=True)
        step = int(spacings[counts.argmax()])
        regular = 1440 % step == 0 or step % 1440 == 0
        return cls(tuple(minutes / 60) if regular and len(minutes) <= 24 else (0.0, 6.0, 12.0, 18.0), calendar)

    def locate(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the positions of the nearest hour and its day of the year (0 for January 1st) of
        datetime64[m] times.
        """
        bins = np.asarray(self.hours) * 60
        ahead = np.mod(bins[None] - minute_of_day(times)[:, None] + 720, 1440) - 720
        hour = np.abs(ahead).argmin(1)
        shift = np.round(ahead[np.arange(len(times)), hour]).astype(np.int64)
        return hour, self.calendar.day_of_year(times + shift * _MINUTES)

    def week(self, times: np.ndarray) -> np.ndarray:
        """Returns the week of the year, 0 for January 1st to 7th."""
        return np.minimum(self.calendar.day_of_year(times) // 7, WEEKS - 1)


def minute_of_day(times: np.ndarray) -> np.ndarray:
    return np.mod(times.astype("datetime64[m]").astype(np.int64), 1440)


@dataclass(frozen=True)
class DailyWindow:
    """Smooths means by day of the year at one hour over the window of 61 days.

    Attributes:
        days: of the year that have data, increasing; 0 for January 1st.
        counts: of states on each of them.
        states_per_day: at this hour in a full year, which says how much weight a full window has.
        calendar: that says which day follows the last of the year.
    """

    days: np.ndarray
    counts: np.ndarray
    states_per_day: float
    calendar: Calendar = WORLD

    def weights(self, days: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the weights (day, day with data) of some days, and the sums (day, 1) that one full year would give
        them.
        """
        per_year = self.calendar.days_per_year()
        window = window_weights(len(per_year))[days]
        return window[:, self.days] * self.counts, window @ per_year[:, None] * self.states_per_day

    def smooth(self, day: int, read: Callable[[np.ndarray], np.ndarray], overall: np.ndarray) -> np.ndarray:
        """Returns the climatology of one day.

        Args:
            read: returns the means (day, ...) of some of the days with data, by position; not a number where a cell has
                none.
            overall: mean (...) of all days, for what is lacking.
        """
        weights, full = self.weights(np.array([day]))
        near = np.flatnonzero(weights[0])
        means = read(near).astype(np.float64) if len(near) else np.empty((0, *overall.shape))
        known = np.isfinite(means)
        total = np.tensordot(weights[0, near], np.where(known, means, 0.0), axes=1)
        have = np.tensordot(weights[0, near], known.astype(np.float64), axes=1)
        return _filled(total, have, full[0, 0], overall.astype(np.float64)).astype(np.float32)


def _filled(total: np.ndarray, have: np.ndarray, full: np.ndarray | float, overall: np.ndarray) -> np.ndarray:
    """Returns the weighted mean of a sum and of what it lacks of the weight that one full year would give it."""
    lacking = np.clip(full - have, 0, None)
    lacking = np.where(lacking < 1e-9, 0.0, lacking)
    return np.asarray((total + lacking * overall) / (have + lacking))


class DailyMeans:
    """Accumulates means of a period by hour and day of year, by week, and at each hour.

    Args:
        folder: where they lie if they do not fit into memory; they take at most (hours * 366 + 53) states.
        day_times: hours of the day, and the calendar.
        times: datetime64[m] of all states that will come.
        shape: (channel, latitude, longitude).
        max_bytes: memory they may take.

    Attributes:
        days, weeks: of the year, those that occur, increasing.
    """

    def __init__(
        self, folder: Path, day_times: DayTimes, times: np.ndarray, shape: tuple[int, int, int], max_bytes: float
    ) -> None:
        num_hours = len(day_times.hours)
        self.day_times, self.shape = day_times, shape
        self.days, self.weeks = np.unique(day_times.locate(times)[1]), np.unique(day_times.week(times))

        def make(name: str, size: tuple[int, ...]) -> np.ndarray:
            return _array(folder / name, size, max_bytes)

        self.daily = RunningMeans("daily", (num_hours, len(self.days)), shape, make)
        self.weekly = RunningMeans("weekly", (len(self.weeks),), shape, make)
        self.hourly = RunningMeans("hourly", (num_hours,), shape, lambda _, size: np.zeros(size))

    def update(self, times: np.ndarray, fields: np.ndarray) -> None:
        """Adds fields (time, channel, latitude, longitude) valid at datetime64[m] times."""
        hours, days = self.day_times.locate(times)
        days, weeks = np.searchsorted(self.days, days), np.searchsorted(self.weeks, self.day_times.week(times))
        for hour, day, week, field in zip(hours, days, weeks, fields, strict=True):
            gaps = np.flatnonzero(np.isnan(field).any((-2, -1))).tolist()
            self.daily.add((hour, day), field, gaps)
            self.weekly.add((week,), field, gaps)
            self.hourly.add((hour,), field, gaps)

    def all_time(self) -> np.ndarray:
        """Returns the mean over all states (channel, latitude, longitude)."""
        hours = [(hour,) for hour in np.flatnonzero(self.hourly.count).tolist()]
        sums = np.zeros(self.shape), np.zeros(self.shape)
        for at in hours:
            mean = self.hourly.mean[at]
            known = self.hourly.known(at, mean)
            sums[0][:] += mean * known
            sums[1][:] += known
        return np.where(sums[1] > 0, sums[0] / np.maximum(sums[1], 1), np.nan)

    def overall(self, hour: int) -> np.ndarray:
        """Returns the mean over all states at an hour; over those of all hours where it never occurred."""
        return self.hourly.value((hour,)) if self.hourly.count[hour] else self.all_time()

    def window(self, hour: int, states_per_day: float) -> DailyWindow:
        """Returns the window at an hour; ``states_per_day`` is how many a full year has."""
        of_hour = min(1.0, states_per_day / (self.hourly.count > 0).sum())
        return DailyWindow(self.days, self.daily.count[hour], of_hour, self.day_times.calendar)

    def smoothed(self, states_per_day: float, days_at_once: int) -> Iterator[tuple[int, slice, np.ndarray]]:
        """Yields hour, range of days and the climatology (day, channel, latitude, longitude) there.

        Args:
            states_per_day: how many a full year has, which says how much weight a full window has.
            days_at_once: each block of days takes the memory of as many states, and a little more.
        """
        for hour in range(len(self.day_times.hours)):
            weights, full = self.window(hour, states_per_day).weights(slice(None))
            overall = self.overall(hour)
            for start in range(0, DAYS, days_at_once):
                days = slice(start, min(start + days_at_once, DAYS))
                yield hour, days, self._smooth(hour, weights[days], full[days], overall)

    def _smooth(self, hour: int, weights: np.ndarray, full: np.ndarray, overall: np.ndarray) -> np.ndarray:
        """Smooths one block of days; weights (day, day with data) of each day, and the sums that a full year gives."""
        near = np.flatnonzero(weights.any(0))
        out = np.empty((len(weights), *self.shape), dtype=np.float32)
        _, num_rows, num_columns = self.shape
        slab = max(1, SLAB_VALUES // (max(1, len(near)) * num_columns))
        for channel, row in itertools.product(range(self.shape[0]), range(0, num_rows, slab)):
            rows = slice(row, row + slab)
            fill = overall[channel, rows].reshape(1, -1)
            cells = len(near), fill.shape[1]
            daily = self.daily.mean[hour, near, channel, rows].astype(np.float64).reshape(cells)
            own, have = weights[:, near], weights.sum(1, keepdims=True)
            if channel in self.daily.unknown:
                unknown = self.daily.unknown[channel][hour, near, rows].reshape(cells)
                share = 1 - unknown / np.maximum(self.daily.count[hour, near, None], 1)
                daily, have = daily * share, own @ share
            mean = _filled(own @ daily, have, full, fill)
            out[:, channel, rows] = mean.reshape(len(out), -1, num_columns)
        return out


@cache
def window_weights(length: int = DAYS) -> np.ndarray:
    """Returns the weight of each day of the year (column) in the window about each of 366 days (row).

    Args:
        length: days of a year of the calendar, the number of columns; the rows after them are those of the next year.
    """
    distance = np.abs(np.arange(DAYS)[:, None] - np.arange(length)[None])
    distance = np.minimum(distance, np.abs(length - distance))
    return np.clip(1.0 - distance / HALF_WINDOW_DAYS, 0.0, None)


def daily_means(
    read: ReadFields,
    times: np.ndarray,
    day_times: DayTimes,
    shape: tuple[int, int, int],
    folder: Path,
    block: int,
    max_bytes: float,
) -> DailyMeans:
    """Makes one pass over a period, a block of times after the other."""
    means = DailyMeans(folder, day_times, times, shape, max_bytes)
    for start in range(0, len(times), block):
        part = slice(start, min(start + block, len(times)))
        means.update(times[part], read(part, slice(0, shape[0])))
    return means


def _array(path: Path, shape: tuple[int, ...], max_bytes: float) -> np.ndarray:
    """Returns a float32 array of zeros, in a file where it is too large for memory."""
    size = 4 * int(np.prod(shape))
    if size <= max_bytes / 2:
        return np.zeros(shape, dtype=np.float32)
    allocate(path, size)
    return np.memmap(path, dtype=np.float32, mode="r+", shape=shape)
