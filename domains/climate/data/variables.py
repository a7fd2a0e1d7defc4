"""One vocabulary of variables: what a field is called in each place it may come from, and what its numbers mean.

Long names are ERA5's (``2m_temperature``), as in WeatherBench 2; short names (``t2m``) are for channels and
pictures. A channel is a variable at a level: ``z500`` is the geopotential at 500 hPa.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Any

from sciml.core.errors import ConfigError, nearest

STANDARD_GRAVITY = 9.80665
"""m/s2; geopotential over standard gravity is geopotential height (WMO, ISO 2533)."""


class Role(str, Enum):
    """Says what a model may do with a variable."""

    PROGNOSTIC = "prognostic"  # goes in and comes out
    DIAGNOSTIC = "diagnostic"  # only asked for
    FORCING = "forcing"  # known beforehand at all times; computed, not stored
    STATIC = "static"  # does not change


@dataclass(frozen=True)
class Conversion:
    """Converts: canonical value = ``scale`` * value + ``offset``."""

    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, eq=False)
class Variable:
    """Describes one physical quantity.

    Attributes:
        name: long ERA5 name, as WeatherBench 2 has it.
        short: short name in channels and pictures.
        unit: the unit in stores and scores.
        on_levels: whether it is given at pressure levels.
        aliases: names it has elsewhere (CDS, GRIB, ECMWF, CMIP).
        units: other accepted units and their exact conversion.
        valid_range: values outside it are an error in the data, most often of the unit.
        odd_under_mirror: whether reflection at the equator changes its sign (meridional wind, vorticity).
    """

    name: str
    short: str
    unit: str
    role: Role = Role.PROGNOSTIC
    on_levels: bool = False
    aliases: tuple[str, ...] = ()
    units: Mapping[str, Conversion] = field(default_factory=dict)
    valid_range: tuple[float, float] = (-float("inf"), float("inf"))
    odd_under_mirror: bool = False

    def conversion(self, unit: str) -> Conversion | None:
        """Returns how to get from a unit, however it is spelled, to this variable's; None where there is no way."""
        spelled = plain_unit(unit)
        if spelled == plain_unit(self.unit):
            return Conversion()
        return {plain_unit(name): how for name, how in self.units.items()}.get(spelled)

    @property
    def accepted_units(self) -> str:
        return ", ".join([self.unit, *self.units])


def plain_unit(unit: str) -> str:
    """Returns a unit in one spelling: ``m**2 s**-2``, ``m^2/s^2`` and ``m2 s-2`` all become ``m2s-2``."""
    numerator, *denominators = unit.strip().replace("**", "").replace("^", "").split("/")
    if numerator.strip() == "(0 - 1)" or unit.strip() in ("(0 - 1)", "Proportion", "dimensionless", "1", "", "~", "-"):
        return "1"
    inverse = []
    for denominator in denominators:
        for symbol, power in re.findall(r"([A-Za-z]+)(\d*)", denominator):
            inverse.append(f"{symbol}-{power or 1}")
    return re.sub(r"[\s.*]", "", numerator) + "".join(inverse)


_ONE = Conversion()
_CELSIUS = Conversion(1.0, 273.15)
_TEMPERATURE: dict[str, Conversion] = {
    "kelvin": _ONE,
    "degK": _ONE,
    "degC": _CELSIUS,
    "C": _CELSIUS,
    "°C": _CELSIUS,
    "celsius": _CELSIUS,
}
_PRESSURE = {"hPa": Conversion(100.0), "mbar": Conversion(100.0), "millibars": Conversion(100.0)}
_SPEED = {"kt": Conversion(1852 / 3600), "knots": Conversion(1852 / 3600)}
_HEIGHT = Conversion(STANDARD_GRAVITY)
_GEOPOTENTIAL = {"m": _HEIGHT, "gpm": _HEIGHT, "dam": Conversion(10 * STANDARD_GRAVITY), "J kg-1": _ONE}
_WATER = {"mm": Conversion(1e-3), "kg m-2": Conversion(1e-3), "m of water equivalent": _ONE}
_HUMIDITY = {"1": _ONE, "g kg-1": Conversion(1e-3)}
_SHARE = {"%": Conversion(0.01)}

_WIND: dict[str, Any] = {"units": _SPEED, "valid_range": (-250.0, 250.0)}
_P, _D, _F, _S = Role.PROGNOSTIC, Role.DIAGNOSTIC, Role.FORCING, Role.STATIC

VARIABLES: tuple[Variable, ...] = (
    Variable("geopotential", "z", "m2 s-2", on_levels=True, aliases=("gh", "zg", "phi", "geopotential_height"),
             units=_GEOPOTENTIAL, valid_range=(-3e4, 6e5)),
    Variable("temperature", "t", "K", on_levels=True, aliases=("ta",), units=_TEMPERATURE, valid_range=(120, 360)),
    Variable("u_component_of_wind", "u", "m s-1", on_levels=True, aliases=("ua",), **_WIND),
    Variable("v_component_of_wind", "v", "m s-1", on_levels=True, aliases=("va",), odd_under_mirror=True, **_WIND),
    Variable("specific_humidity", "q", "kg kg-1", on_levels=True, aliases=("hus",), units=_HUMIDITY,
             valid_range=(-0.01, 0.1)),
    Variable("relative_humidity", "r", "%", on_levels=True, aliases=("hur",), units={"1": Conversion(100.0)},
             valid_range=(-50, 250)),
    Variable("vertical_velocity", "w", "Pa s-1", on_levels=True, aliases=("wap",), valid_range=(-200, 200)),
    Variable("vorticity", "vo", "s-1", on_levels=True, aliases=("relative_vorticity",), valid_range=(-0.1, 0.1),
             odd_under_mirror=True),
    Variable("divergence", "d", "s-1", on_levels=True, valid_range=(-0.1, 0.1)),
    Variable("2m_temperature", "t2m", "K", aliases=("2t", "tas"), units=_TEMPERATURE, valid_range=(150, 360)),
    Variable("2m_dewpoint_temperature", "d2m", "K", aliases=("2d",), units=_TEMPERATURE, valid_range=(120, 340)),
    Variable("10m_u_component_of_wind", "u10", "m s-1", aliases=("10u", "uas"), **_WIND),
    Variable("10m_v_component_of_wind", "v10", "m s-1", aliases=("10v", "vas"), odd_under_mirror=True, **_WIND),
    Variable("100m_u_component_of_wind", "u100m", "m s-1", aliases=("100u",), **_WIND),
    Variable("100m_v_component_of_wind", "v100m", "m s-1", aliases=("100v",), odd_under_mirror=True, **_WIND),
    Variable("mean_sea_level_pressure", "msl", "Pa", aliases=("psl", "prmsl", "mslp"), units=_PRESSURE,
             valid_range=(7e4, 1.2e5)),
    Variable("surface_pressure", "sp", "Pa", aliases=("ps",), units=_PRESSURE, valid_range=(3e4, 1.2e5)),
    Variable("sea_surface_temperature", "sst", "K", aliases=("tos",), units=_TEMPERATURE, valid_range=(250, 320)),
    Variable("sea_ice_cover", "siconc", "1", aliases=("ci", "sic", "sea_ice_concentration"), units=_SHARE,
             valid_range=(-0.01, 1.01)),
    Variable("total_column_water_vapour", "tcwv", "kg m-2", aliases=("prw", "total_column_water_vapor"),
             units={"mm": _ONE}, valid_range=(-1, 150)),
    Variable("total_cloud_cover", "tcc", "1", _D, units=_SHARE, valid_range=(-0.01, 1.01)),
    Variable("total_precipitation", "tp", "m", _D, aliases=("total_precipitation_1hr",), units=_WATER,
             valid_range=(-0.001, 2)),
    Variable("total_precipitation_6hr", "tp6h", "m", _D, units=_WATER, valid_range=(-0.001, 5)),
    Variable("total_precipitation_12hr", "tp12h", "m", _D, units=_WATER, valid_range=(-0.001, 5)),
    Variable("total_precipitation_24hr", "tp24h", "m", _D, units=_WATER, valid_range=(-0.001, 5)),
    Variable("toa_incident_solar_radiation", "tisr", "J m-2", _F),
    Variable("land_sea_mask", "lsm", "1", _S, aliases=("sftlf",), units=_SHARE, valid_range=(-0.01, 1.01)),
    Variable("geopotential_at_surface", "orography", "m2 s-2", _S, aliases=("oro", "orog", "surface_geopotential"),
             units=_GEOPOTENTIAL, valid_range=(-2e4, 1e5)),
    Variable("soil_type", "slt", "1", _S),
)  # fmt: skip


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
        joined = f"{self.variable.short}{self.level}"
        return f"{self.variable.short}_{self.level}" if identify(joined) else joined


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


def channel_title(name: str) -> str:
    """Names a channel in words for pictures: ``Geopotential at 500 hPa``."""
    channel = parse_channel(name)
    words = channel.variable.name.replace("_", " ")
    words = words[0].upper() + words[1:]
    return words if channel.level is None else f"{words} at {channel.level} hPa"
