"""Durations as users type them: ``72h``, ``3d``, ``30min``."""

from __future__ import annotations

import math
import re
from typing import Literal

from sciml.core.errors import ConfigError

TimeUnit = Literal["h", "s"]
"""Unit of a bare number."""
_HOURS = {"h": 1.0, "d": 24.0, "min": 1 / 60, "s": 1 / 3600}
_SECONDS = {
    ("ns", "nanosecond"): 1e-9, ("us", "microsecond", "microsec"): 1e-6,
    ("ms", "millisecond", "millisec", "msec"): 1e-3,
    ("s", "second", "sec"): 1.0, ("min", "minute"): 60.0, ("h", "hour", "hr"): 3600.0, ("d", "day"): 86400.0,
}  # fmt: skip
"""Units of time as CF's conventions and udunits write them, each also in the plural."""
_EXAMPLES = {"h": "write hours or days, e.g. 72h or 3d", "s": "write seconds, e.g. 200s"}
EXACT = 1e-11
"""Share of a duration by which its text may be beside it."""
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*(h|d|min|s|)\s*")


def parse_hours(text: str | int | float, *, key: str | None = None, unit: TimeUnit = "h") -> float:
    """Returns the hours of a duration such as ``72h`` or ``3d``.

    Args:
        key: that has the value, for messages.
        unit: of a bare number.

    Raises:
        ConfigError: where the text is no duration.
    """
    match = _PATTERN.fullmatch(str(text))
    if match is None:
        raise ConfigError(f"{text!r} is no duration", key=key, hint=_EXAMPLES[unit])
    return float(match[1]) * _HOURS[match[2] or unit]


def seconds_in(unit: str) -> float | None:
    """Returns the seconds of a unit as files write it: ``ms``, ``minutes``, ``hours since 2000-01-01``.

    Returns:
        None where it is no unit of time, or none that is always as long.
    """
    name = unit.strip().split(" since ")[0].strip().lower()
    return next((seconds for names, seconds in _SECONDS.items() if name in names or name.rstrip("s") in names), None)


def as_typed(hours: float) -> str:
    """Returns hours as :func:`parse_hours` reads them, without loss: ``72h``, ``200s``, ``100000s``."""
    text = format_hours(hours).replace(" ", "")
    return text if math.isclose(parse_hours(text), hours, rel_tol=EXACT) else f"{3600 * hours:.12g}s"


def format_hours(hours: float) -> str:
    """Returns hours as a short text, in seconds below one hour: ``72 h``, ``200 s``."""
    return f"{hours:g} h" if hours >= 1 else f"{hours * 3600:.5g} s"
