"""Calendars of data: that of the world, and those of climate models, whose years all have 365 or 360 days.

Times are counted in minutes since 1970-01-01 00:00 of their own calendar and kept as ``datetime64[m]``, so that steps
are even in every calendar. Only this file turns them into dates.
"""

from __future__ import annotations

import calendar as _calendar
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sciml.core.errors import ConfigError

STANDARD = "standard"
MINUTES_PER_DAY = 1440
TROPICAL_YEAR = 365.2425
_SAME = {"gregorian": STANDARD, "proleptic_gregorian": STANDARD, "365_day": "noleap", "366_day": "all_leap"}
_DAYS = {"noleap": 365, "360_day": 360, "all_leap": 366}
KNOWN = (STANDARD, *_DAYS, "julian")
_UNITS = "minutes since 1970-01-01"
_DATE = re.compile(r"(-?\d{1,6})(?:-(\d{1,2})(?:-(\d{1,2})(?:[T ](\d{1,2})(?::(\d{2})(?::00)?)?)?)?)?Z?")


@dataclass(frozen=True)
class Calendar:
    """Turns minutes into dates and back.

    Attributes:
        name: ``standard``, ``noleap``, ``360_day``, ``all_leap`` or ``julian``, as the CF conventions call them.
    """

    name: str = STANDARD

    @classmethod
    def of(cls, name: str) -> Calendar | None:
        """Returns the calendar of a CF name; None where there is none of that name."""
        found = _SAME.get(name, name)
        return cls(found) if found in KNOWN else None

    def count(self, dates: Sequence[Any]) -> np.ndarray:
        """Returns datetime64[us] that count the time of cftime dates of this calendar."""
        import cftime

        name = "proleptic_gregorian" if self.name == STANDARD else self.name
        microseconds = cftime.date2num(np.asarray(dates), "microseconds since 1970-01-01", name)
        return np.asarray(microseconds, dtype=np.int64).astype("datetime64[us]")

    def dates(self, times: np.ndarray) -> np.ndarray:
        """Returns cftime dates of datetime64 times."""
        import cftime

        name = "proleptic_gregorian" if self.name == STANDARD else self.name
        minutes = times.astype("datetime64[m]").astype(np.int64)
        return np.asarray(cftime.num2date(minutes, _UNITS, name, only_use_cftime_datetimes=True))

    def years_and_days(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns year and day of the year, 0 for January 1st, of datetime64 times."""
        if self.name == STANDARD:
            year = times.astype("datetime64[Y]")
            return year.astype(np.int64) + 1970, (times.astype("datetime64[D]") - year.astype("datetime64[D]")).astype(
                int
            )
        days = times.astype("datetime64[m]").astype(np.int64) // MINUTES_PER_DAY
        if self.name in _DAYS:
            return 1970 + days // _DAYS[self.name], days % _DAYS[self.name]
        cycle, day = np.divmod(days + 731, 1461)  # four years from 1968, a leap year
        within = np.where(day < 366, 0, 1 + (day - 366) // 365)
        return 1968 + 4 * cycle + within, np.where(day < 366, day, (day - 366) % 365)

    def days_per_year(self) -> np.ndarray:
        """Returns how often each day of the year comes in a year, in the mean: 0.25 for the 366th in ``julian``."""
        length = _DAYS.get(self.name, 366)
        last = {STANDARD: TROPICAL_YEAR, "julian": 365.25}.get(self.name, length) - (length - 1)
        return np.append(np.ones(length - 1), last)

    def day_of_year(self, times: np.ndarray) -> np.ndarray:
        """Returns 0 for January 1st."""
        return self.years_and_days(times)[1]

    def standard_hours(self, hours: np.ndarray) -> np.ndarray:
        """Returns hours since 1970 of the world's calendar at the same time of the day and part of the year.

        The sun and the seasons follow that calendar; a model year of 360 days is one turn of the Earth.
        """
        if self.name == STANDARD:
            return hours
        times = np.floor(hours * 60).astype(np.int64).astype("datetime64[m]")
        year, day = self.years_and_days(times)
        part = np.rint(day * (TROPICAL_YEAR / _DAYS.get(self.name, 365.25))).astype(np.int64)
        first = (year - 1970).astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)
        return 24.0 * (first + part) + np.mod(hours, 24.0)

    def show(self, time: np.datetime64) -> str:
        """Returns a time as text: ``2020-01-31T06:00``."""
        if self.name == STANDARD:
            return str(time.astype("datetime64[m]"))
        import cftime

        date = cftime.num2date(int(time.astype("datetime64[m]").astype(np.int64)), _UNITS, self.name)
        return f"{date.year:04d}-{date.month:02d}-{date.day:02d}T{date.hour:02d}:{date.minute:02d}"

    def moment(self, text: str | int, *, last: bool = False, key: str | None = None) -> np.datetime64:
        """Returns the first (or last) minute of a date: ``2016`` as a last date is 2016-12-31T23:59.

        Raises:
            ConfigError: where it is no date of this calendar.
        """
        match = _DATE.fullmatch(str(text).strip())
        try:
            if match is None:
                raise ValueError
            given = [int(part) for part in match.groups() if part is not None]
            first = self._minute(*given)
            return self._minute(*_next(given, self.name)) - 1 if last else first
        except ValueError:
            what = "is no date" if self.name == STANDARD else f"is no date of the calendar {self.name}"
            raise ConfigError(
                f"{text!r} {what}", key=key, hint="write e.g. 2016, 2016-12-31 or 2016-12-31T18:00"
            ) from None

    def _minute(self, year: int, month: int = 1, day: int = 1, hour: int = 0, minute: int = 0) -> np.datetime64:
        import cftime

        name = "proleptic_gregorian" if self.name == STANDARD else self.name
        date = cftime.datetime(year, month, day, hour, minute, calendar=name)
        return np.datetime64(round(cftime.date2num(date, _UNITS, name)), "m")


def _next(parts: Sequence[int], name: str) -> list[int]:
    """Returns the year, month, day, hour or minute that follows."""
    *rest, last = parts
    if len(parts) == 1:
        return [last + 1]
    if len(parts) == 2:
        return [rest[0] + last // 12, last % 12 + 1]
    if len(parts) == 5:
        return [*rest, last + 1] if last < 59 else _next(rest, name)
    if len(parts) == 4:
        return [*rest, last + 1] if last < 23 else _next(rest, name)
    return [*rest, last + 1] if last < _length(rest[0], rest[1], name) else _next(rest, name)


def _length(year: int, month: int, name: str) -> int:
    """Returns the days of a month."""
    if name == "360_day":
        return 30
    leap = {"noleap": False, "all_leap": True, "julian": year % 4 == 0}.get(name, _calendar.isleap(year))
    return 29 if month == 2 and leap else (28 if month == 2 else 30 + (month + month // 8) % 2)


WORLD = Calendar()
