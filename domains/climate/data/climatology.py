"""Mean weather by day of year and hour, and by week.

Day of year and hour: the mean over the years of the training period within 30 days of each day of the year, with
weights that fall linearly from 1 to 0 at 30 days (WeatherBench 2's 61-day window), wrapping round the year.
Each state counts at its own day of the year, 1 to 366.

A training period of less than a year leaves windows empty or thin. What a window lacks of the weight that one
full year would give it is filled with the mean of the whole training period at that hour. So every day is
defined, the passage is smooth, and with a year or more nothing is filled.

Week: the plain mean of each of the weeks 0 to 52 of the year (day of year 1 to 7 is week 0), as in WeatherBench 1;
a week without data has the mean of the whole training period.

Sources: Rasp et al. (2024), https://doi.org/10.1029/2023MS004019; Rasp et al. (2020), https://doi.org/10.1029/2020MS002203.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from domains.climate.data.calendar import WORLD, Calendar
from domains.climate.data.statistics import ReadFields

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


class DailyMeans:
    """Accumulates means of a period by hour and day of year, by week, and at each hour.

    Args:
        folder: where they lie if they do not fit into memory; they take (hours * 366 + 53) states.
        max_bytes: memory they may take.
        day_times: hours of the day, and the calendar.
        shape: (channel, latitude, longitude).
    """

    def __init__(self, folder: Path, day_times: DayTimes, shape: tuple[int, int, int], max_bytes: float) -> None:
        num_hours = len(day_times.hours)
        self.day_times, self.shape = day_times, shape
        self.daily = _array(folder / "daily.npy", (num_hours, DAYS, *shape), max_bytes)
        self.weekly = _array(folder / "weekly.npy", (WEEKS, *shape), max_bytes)
        self.overall = np.zeros((num_hours, *shape))
        self.daily_count = np.zeros((num_hours, DAYS))
        self.weekly_count = np.zeros(WEEKS)
        self.overall_count = np.zeros(num_hours)

    def update(self, times: np.ndarray, fields: np.ndarray) -> None:
        """Adds fields (time, channel, latitude, longitude) valid at datetime64[m] times."""
        hours, days = self.day_times.locate(times)
        weeks = self.day_times.week(times)
        for number, field in enumerate(fields):
            hour, day, week = hours[number], days[number], weeks[number]
            _add(self.daily[hour, day], self.daily_count, (hour, day), field)
            _add(self.weekly[week], self.weekly_count, (week,), field)
            _add(self.overall[hour], self.overall_count, (hour,), field)

    def complete(self) -> None:
        """Gives hours and weeks that never occurred the mean over those that did."""
        mean = self.all_time()
        self.overall[self.overall_count == 0] = mean
        self.weekly[self.weekly_count == 0] = mean.astype(np.float32)

    def all_time(self) -> np.ndarray:
        """Returns the mean over all states (channel, latitude, longitude)."""
        seen = self.overall_count > 0
        return np.average(self.overall[seen], axis=0, weights=self.overall_count[seen])

    def smoothed(self, states_per_day: float, days_at_once: int) -> Iterator[tuple[int, slice, np.ndarray]]:
        """Yields hour, range of days and the climatology (day, channel, latitude, longitude) there.

        Args:
            states_per_day: how many a full year has, which says how much weight a full window has.
            days_at_once: each block of days takes the memory of as many states, and a little more.
        """
        window = window_weights()
        # states of one hour in one day
        full = window.sum(1, keepdims=True) * min(1.0, states_per_day / (self.overall_count > 0).sum())
        for hour in range(len(self.day_times.hours)):
            weights = window * self.daily_count[hour]
            have = weights.sum(1, keepdims=True)
            lacking = np.clip(full - have, 0, None)
            lacking[lacking < 1e-9] = 0.0
            for start in range(0, DAYS, days_at_once):
                days = slice(start, min(start + days_at_once, DAYS))
                yield hour, days, self._smooth(hour, days, weights[days], lacking[days], have[days])

    def _smooth(self, hour: int, days: slice, weights: np.ndarray, lacking: np.ndarray, have: np.ndarray) -> np.ndarray:
        """Smooths one block of days; weights (day, 366) of each day, and what is lacking and present of each sum."""
        near = np.flatnonzero(weights.any(0))
        out = np.empty((days.stop - days.start, *self.shape), dtype=np.float32)
        _, num_rows, num_columns = self.shape
        slab = max(1, SLAB_VALUES // (max(1, len(near)) * num_columns))
        for channel, row in itertools.product(range(self.shape[0]), range(0, num_rows, slab)):
            rows = slice(row, row + slab)
            daily = self.daily[hour, near, channel, rows].astype(np.float64)
            fill = self.overall[hour, channel, rows].reshape(1, -1)
            mean = (weights[:, near] @ daily.reshape(len(near), fill.shape[1]) + lacking * fill) / (have + lacking)
            out[:, channel, rows] = mean.reshape(len(out), -1, num_columns)
        return out


def window_weights() -> np.ndarray:
    """Returns the weight of each day of the year (column) in the window about each day (row): (366, 366)."""
    distance = np.abs(np.arange(DAYS)[:, None] - np.arange(DAYS)[None])
    distance = np.minimum(distance, DAYS - distance)
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
    means = DailyMeans(folder, day_times, shape, max_bytes)
    for start in range(0, len(times), block):
        part = slice(start, min(start + block, len(times)))
        means.update(times[part], read(part, slice(0, shape[0])))
    means.complete()
    return means


def _add(mean: np.ndarray, counts: np.ndarray, index: tuple[int, ...], field: np.ndarray) -> None:
    counts[index] += 1
    mean += (field - mean) / counts[index]


def _array(path: Path, shape: tuple[int, ...], max_bytes: float) -> np.ndarray:
    """Returns a float32 array of zeros, in a file where it is too large for memory."""
    size = 4 * int(np.prod(shape))
    if size <= max_bytes / 2:
        return np.zeros(shape, dtype=np.float32)
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, and a crash in a mapped page
        else:
            file.truncate(size)
    return np.memmap(path, dtype=np.float32, mode="r+", shape=shape)
