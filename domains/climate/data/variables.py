"""Finds variables and channels by any of their names.

A channel is a variable at a level: ``z500`` is the geopotential at 500 hPa.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from domains.climate.data.variable import Role, Variable
from domains.climate.data.vocabulary import OTHER_STANDARD_NAMES, VARIABLES
from sciml.core.errors import ConfigError, nearest


@dataclass(frozen=True)
class Channel:
    """Describes a variable at a level, or without one."""

    variable: Variable
    level: int | None = None

    @property
    def name(self) -> str:
        """Returns the short name with the level: ``z500``. An underscore goes between where it would read as another:
        ``u_10``.
        """
        if self.level is None:
            return self.variable.short
        short, level = self.variable.short, self.level
        separate = short[-1].isdigit() or identify(f"{short}{level}") is not None
        return f"{short}_{level}" if separate else f"{short}{level}"


@cache
def _by_name() -> dict[str, Variable]:
    table: dict[str, Variable] = {}
    for variable in VARIABLES:
        for name in (variable.name, variable.short, *variable.aliases):
            if name in table:
                raise ValueError(f"{name} stands for {table[name].name} and for {variable.name}")
            table[name] = variable
    return table


def identify(name: str) -> Variable | None:
    """Returns the variable of a name as any source spells it; None where it is unknown."""
    return _by_name().get(name) or _by_name().get(name.lower())


def of_standard_name(name: str, on_levels: bool, height: float | None) -> Variable | None:
    """Returns the variable of a CF standard name; None where there is none, or its height is another.

    Args:
        on_levels: whether the field is given at pressure levels.
        height: m above the ground at which it is given; None where that is not said.
    """
    if not name:
        return None
    if name in OTHER_STANDARD_NAMES:
        return identify(OTHER_STANDARD_NAMES[name])
    for variable in VARIABLES:
        if variable.standard_name == name and variable.on_levels == on_levels and variable.height in (None, height):
            return variable
    return None


def find(name: str, *, key: str | None = None) -> Variable:
    """Returns the variable of a name a user typed.

    Raises:
        ConfigError: unknown; the nearest name is offered.
    """
    variable = identify(name)
    if variable is None:
        raise ConfigError(f"unknown variable {name!r}", key=key, hint=nearest(name, _by_name()))
    return variable


def parse_channel(text: str, *, key: str | None = None) -> Channel:
    """Returns the channel of a text such as ``z500``, ``geopotential_500``, ``t2m`` or ``u_10``.

    ``u_10`` is the wind at 10 hPa, ``u10`` that at 10 m.

    Raises:
        ConfigError: an unknown variable, a level that is missing or one that cannot be.
    """
    exact = identify(text)
    match = re.fullmatch(r"(.+?)_?(\d+)", text)
    if exact is not None and not exact.on_levels:
        return Channel(exact)
    if exact is not None:
        raise ConfigError(
            f"{text!r} is given at pressure levels", key=key, hint=f"add one in hPa, e.g. {exact.short}500"
        )
    if match is None or (variable := identify(match[1])) is None:
        examples = [*_by_name(), *(f"{v.short}{level}" for v in VARIABLES if v.on_levels for level in (500, 850))]
        raise ConfigError(f"unknown channel {text!r}", key=key, hint=nearest(text, examples))
    if not variable.on_levels:
        raise ConfigError(
            f"{variable.name} has no levels, but {text!r} names one", key=key, hint=f"write {variable.short}"
        )
    return Channel(variable, int(match[2]))


def parse_channels(texts: Iterable[str], *, key: str | None = None) -> tuple[Channel, ...]:
    """Returns several channels; the same one twice is an error.

    Raises:
        ConfigError: see :func:`parse_channel`; a channel twice; a forcing or static variable among them.
    """
    channels = tuple(parse_channel(text, key=key) for text in texts)
    names = [channel.name for channel in channels]
    for channel in channels:
        if names.count(channel.name) > 1:
            raise ConfigError(f"channel {channel.name} is named twice", key=key, hint="name it once")
        if channel.variable.role is Role.FORCING:
            raise ConfigError(f"{channel.name} is a forcing: it is computed, not stored", key=key, hint="leave it out")
        if channel.variable.role is Role.STATIC:
            raise ConfigError(f"{channel.name} does not change in time", key=key, hint="put it under statics")
    return channels


def is_wind(name: str) -> bool:
    """Says whether a channel is the eastward or the northward part of the wind; an unknown name is none."""
    variable = identify(name) or identify(re.sub(r"_?\d+$", "", name))
    return variable is not None and variable.name.endswith("_component_of_wind")


def channel_unit(name: str) -> str:
    """Returns the unit of a channel's values: ``m2 s-2`` for ``z500``."""
    return parse_channel(name).variable.unit


def variable_title(variable: Variable) -> str:
    """Names a variable in words for pictures and files: ``Geopotential``, ``10 m eastward wind``."""
    words = variable.name.replace("_", " ")
    words = words.replace("u component of wind", "eastward wind").replace("v component of wind", "northward wind")
    words = re.sub(r"\b(\d+)(m|hr)\b", lambda match: f"{match[1]} {match[2][0]}", words)
    return words[0].upper() + words[1:]


def channel_title(name: str) -> str:
    """Names a channel in words for pictures: ``Geopotential at 500 hPa``, ``10 m eastward wind``."""
    channel = parse_channel(name)
    words = variable_title(channel.variable)
    return words if channel.level is None else f"{words} at {channel.level} hPa"
