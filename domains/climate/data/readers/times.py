"""Times and forecast steps of a dataset, in minutes of its own calendar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from domains.climate.data.calendar import WORLD, Calendar
from domains.climate.data.units import plain_unit
from sciml.core.errors import DataError

TOLERANCE = np.timedelta64(1, "s")
"""By which a time may lie beside a full minute: files count days in floating point."""
_MINUTES = {"d": 1440, "h": 60, "minute": 1, "s": 1 / 60, "ns": 1 / 60e9}


def times_of(what: str, dataset: xr.Dataset, file: str) -> tuple[np.ndarray, Calendar]:
    """Returns datetime64[m] times and the calendar that they are counted in.

    Args:
        what: variable, for messages.

    Raises:
        DataError: there are none, or they cannot be understood.
    """
    if "time" not in dataset.variables:
        raise DataError(f"{file}: {what} says nothing of its time; add a coordinate 'time'")
    values = np.atleast_1d(dataset["time"].values)
    calendar = WORLD
    if _are_dates(values):
        found = Calendar.of(str(values[0].calendar))
        if found is None:
            raise DataError(f"{file}: the times are in the calendar {values[0].calendar!r}, which is not known")
        calendar, values = found, found.count(list(values))
    if not np.issubdtype(values.dtype, np.datetime64):
        raise DataError(
            f"{file}: the times are plain numbers ({values[0]} ...); give them as CF times, "
            "e.g. units='hours since 1970-01-01'"
        )
    if np.isnat(values).any():
        raise DataError(f"{file}: time number {int(np.isnat(values).argmax())} is missing (NaT)")
    minutes = _rounded(values)
    off = np.abs(values - minutes) > TOLERANCE
    if off.any():
        at = int(off.argmax())
        raise DataError(
            f"{file}: the time {values[at]} is not on a full minute; did you mean {calendar.show(minutes[at])}?"
        )
    return minutes, calendar


def bounds_of(values: np.ndarray, calendar: Calendar) -> np.ndarray | None:
    """Returns bounds of times (n, 2) as datetime64[m] in a calendar; None where they are no times."""
    if values.dtype == object and not all(hasattr(value, "calendar") for value in values.flat):
        return None
    if _are_dates(values.ravel()):
        values = calendar.count(list(values.ravel())).reshape(values.shape)
    if not np.issubdtype(values.dtype, np.datetime64) or np.isnat(values).any():
        return None
    return _rounded(values)


def steps_of(array: xr.DataArray, what: str, file: str) -> np.ndarray:
    """Returns forecast steps, as GRIB has them for accumulated fields; zero for analyses.

    Raises:
        DataError: steps in a unit that is not known.
    """
    if "step" not in array.coords:
        return np.zeros(1, "timedelta64[m]")
    steps, attrs = np.atleast_1d(array["step"].values), array["step"].attrs
    unit = str(attrs.get("units", ""))
    if not np.issubdtype(steps.dtype, np.timedelta64) and plain_unit(unit) not in _MINUTES:
        raise DataError(f"{file}: the forecast steps of {what} are in {unit!r}; give them in hours")
    return minutes_of_steps(steps, attrs)


def minutes_of_steps(steps: np.ndarray, attrs: Mapping[Any, Any]) -> np.ndarray:
    """Returns forecast steps as timedelta64[m], of numbers in the unit that the attributes name, too."""
    if not np.issubdtype(steps.dtype, np.timedelta64):
        return np.round(steps * _MINUTES[plain_unit(str(attrs.get("units", "")))]).astype("timedelta64[m]")
    return np.where(np.isnat(steps), np.timedelta64(0, "m"), steps).astype("timedelta64[m]")


def is_time(values: np.ndarray) -> bool:
    """Says whether values are times, of whichever calendar."""
    return np.issubdtype(values.dtype, np.datetime64) or _are_dates(values)


def _are_dates(values: np.ndarray) -> bool:
    """Says whether times are dates of a calendar of their own."""
    return values.dtype == object and len(values) > 0 and hasattr(values[0], "calendar")


def _rounded(values: np.ndarray) -> np.ndarray:
    half = np.timedelta64(30, "s")
    return (values + half).astype("datetime64[m]")
