"""Describes one physical quantity: its names, its unit, and what its numbers mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np

from domains.climate.data.units import plain_unit

Over = Literal["instant", "sum", "mean", "max", "min"]


class Role(StrEnum):
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
        standard_name: that of the CF conventions; fields at several heights share one.
        height: m above the ground at which it is given, where its standard name needs it.
        over: what its values say of the time since those before: ``instant`` nothing, else their ``sum``, ``mean``,
            ``max`` or ``min`` over it. Names that end in a duration have one of their own.
        has_gaps: whether it may be missing in places: the sea's surface on land.
        log_scale: as a diagnostic output it is learned by log(1 + x / log_scale); None: as it is.
        bounds: predictions of a diagnostic output are cut to them.
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
    standard_name: str = ""
    height: float | None = None
    over: Over = "instant"
    has_gaps: bool = False
    log_scale: float | None = None
    bounds: tuple[float, float] = (-float("inf"), float("inf"))

    def learned(self, values: np.ndarray) -> np.ndarray:
        """Returns what a model learns of it as a diagnostic output, before it is standardized."""
        return values if self.log_scale is None else np.log1p(np.maximum(values, 0.0) / self.log_scale)

    def conversion(self, unit: str) -> Conversion | None:
        """Returns how to get from a unit, however it is spelled, to this variable's; None where there is no way."""
        spelled = plain_unit(unit)
        if spelled == plain_unit(self.unit):
            return Conversion()
        return {plain_unit(name): how for name, how in self.units.items()}.get(spelled)

    @property
    def accepted_units(self) -> str:
        return ", ".join([self.unit, *self.units])
