"""Units in one spelling, whatever a file writes: ``Pascals``, ``m**2 s**-2``, ``meters/second``, ``grams/kg``."""

from __future__ import annotations

import re
from functools import cache

_SPELLINGS = {
    "k": ("kelvin", "kelvins", "degk", "deg_k", "degree_kelvin", "degrees_kelvin"),
    "degc": ("celsius", "c", "°c", "deg_c", "degree_c", "degrees_c", "degree_celsius", "degrees_celsius"),
    "pa": ("pascal", "pascals"),
    "hpa": ("hectopascal", "hectopascals", "mb", "mbs", "mbar", "mbars", "millibar", "millibars"),
    "bar": ("bars",),
    "kpa": ("kilopascal", "kilopascals"),
    "m": ("meter", "meters", "metre", "metres"),
    "mm": ("millimeter", "millimeters", "millimetre", "millimetres"),
    "km": ("kilometer", "kilometers", "kilometre", "kilometres"),
    "dam": ("gpdm", "decameter", "decameters", "decametre", "decametres"),
    "s": ("sec", "secs", "second", "seconds"),
    "ns": ("nanosecond", "nanoseconds"),
    "minute": ("min", "mins", "minutes"),
    "h": ("hr", "hrs", "hour", "hours"),
    "d": ("day", "days"),
    "g": ("gram", "grams", "gramme", "grammes"),
    "kg": ("kilogram", "kilograms"),
    "j": ("joule", "joules"),
    "w": ("watt", "watts"),
    "kt": ("kts", "kn", "knot", "knots"),
    "gpm": ("gpms", "geopotential_meter", "geopotential_meters"),
    "%": ("percent", "per_cent", "pct"),
    "1": ("fraction", "fractions", "proportion", "dimensionless", "unitless", "(0 - 1)", "0-1", "none", "~", "-", ""),
}
_PLAIN = {other: plain for plain, others in _SPELLINGS.items() for other in (plain, *others)}
_SYMBOL = re.compile(r"([a-z°%_]+)(-?\d+)?")


@cache
def plain_unit(unit: str) -> str:
    """Returns a unit in one spelling: ``m**2 s**-2``, ``m^2/s^2`` and ``m2 s-2`` all become ``m2 s-2``; one that is not
    understood as it is, in small letters.
    """
    text = unit.strip().casefold().replace("**", "").replace("^", "").replace("+", "")
    text = re.sub(r"\s+per\s+", "/", text)
    for whole in (text, re.sub(r"\s+", "_", text)):
        if whole in _PLAIN:
            return _PLAIN[whole]
    powers: list[str] = []
    for number, part in enumerate(text.split("/")):
        if _SYMBOL.sub("", part).strip(" .*·()") not in ("", "1"):
            return text  # a number in front is no unit
        for symbol, power in _SYMBOL.findall(_PLAIN.get(part.strip(), part)):
            exponent = int(power or 1) * (-1 if number else 1)
            powers.append(_PLAIN.get(symbol, symbol) + (str(exponent) if exponent != 1 else ""))
    return " ".join(sorted(powers)) or "1"
