"""Describes what a climate model is built from: channels, grid and time step, and the statistics of the
training period.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from domains.climate.data.calendar import STANDARD
from domains.climate.data.variable import Role
from domains.climate.data.variables import parse_channel
from sciml.core.config import build

POLE_DEGREES = 1e-3
"""Distance at which a row is on a pole."""


@dataclass(frozen=True)
class ClimateSchema:
    """Describes the channels, grid and step of a store.

    Attributes:
        channels: short names in order, level appended where there is one: ``("z500", "t850", "t2m")``.
        statics: short names of the constant fields, e.g. ``("lsm", "orography")``; may be empty.
        latitude: degrees north, decreasing (90 first).
        longitude: degrees east in [0, 360), increasing.
        step_hours: hours between two stored times.
        title: what the data are, e.g. "Simulation (Held-Suarez), not ERA5"; shown on pictures.
        calendar: that the times are counted in, see :mod:`domains.climate.data.calendar`.
        gaps: channels that are unknown in places: the sea's surface on land, pressure levels below the ground.
    """

    channels: tuple[str, ...]
    statics: tuple[str, ...]
    latitude: tuple[float, ...]
    longitude: tuple[float, ...]
    step_hours: float
    title: str = ""
    calendar: str = STANDARD
    gaps: tuple[str, ...] = ()

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Returns (number of latitudes, number of longitudes)."""
        return len(self.latitude), len(self.longitude)

    @property
    def is_region(self) -> bool:
        """Says whether the grid covers a part of the globe alone."""
        return not (goes_round(self.longitude) and reaches_poles(self.latitude))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Returns the channels that a model is given: all but diagnostic outputs."""
        return tuple(name for name in self.channels if parse_channel(name).variable.role is not Role.DIAGNOSTIC)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClimateSchema:
        return build(cls, values, prefix="schema")


@dataclass(frozen=True)
class ClimateStatistics:
    """Holds area-weighted statistics over the whole training period, and the constant fields.

    Attributes:
        mean, std: per channel, in the channel's unit.
        target_mean, target_std: of what is learned of diagnostic outputs, e.g. of a logarithm; else ``mean`` and
            ``std``.
        lead_hours: increasing lead times for which increments were measured.
        increment_std: standard deviation of x(t + lead) - x(t) per lead and channel.
        statics: constant fields, standardized to mean 0 and standard deviation 1.
        known: of the schema's channels with gaps, in their order, whether a cell ever has a value; None where there are
            none, or in a run that was trained before this was kept.
    """

    mean: Float[Tensor, "channel"]
    std: Float[Tensor, "channel"]
    lead_hours: Float[Tensor, "lead"]
    increment_std: Float[Tensor, "lead channel"]
    statics: Float[Tensor, "static latitude longitude"]
    target_mean: Float[Tensor, "channel"] | None = None
    target_std: Float[Tensor, "channel"] | None = None
    known: Bool[Tensor, "gap latitude longitude"] | None = None

    def __post_init__(self) -> None:
        for name, usual in (("target_mean", self.mean), ("target_std", self.std)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, usual.clone())

    def increment_std_at(self, hours: Float[Tensor, "batch"]) -> Float[Tensor, "batch channel"]:
        """Returns the increment standard deviation at any lead time, interpolated linearly between the measured
        ones.
        """
        leads = self.lead_hours.to(hours.device)
        upper = torch.searchsorted(leads, hours.to(leads.dtype)).clamp(1, len(leads) - 1) if len(leads) > 1 else None
        table = self.increment_std.to(hours.device)
        if upper is None:
            return table.expand(len(hours), -1)
        weight = ((hours - leads[upper - 1]) / (leads[upper] - leads[upper - 1])).clamp(0, 1)[:, None]
        return torch.lerp(table[upper - 1], table[upper], weight.to(table.dtype))

    def to_tensors(self) -> dict[str, Tensor]:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> ClimateStatistics:
        return cls(**{name: tensors[name] for name in cls.__dataclass_fields__ if name in tensors})


def is_mirrored(latitude: np.ndarray | tuple[float, ...]) -> bool:
    """Says whether the rows of the two hemispheres are mirror images."""
    degrees = np.asarray(latitude)
    return bool(np.abs(degrees + degrees[::-1]).max() < 1e-4)


def goes_round(longitude: np.ndarray | tuple[float, ...]) -> bool:
    """Says whether longitudes go all around."""
    degrees = np.asarray(longitude, dtype=np.float64)
    gaps = np.diff(np.append(degrees, degrees[0] + 360.0))
    return bool(gaps.max() <= 1.5 * np.median(gaps))


def reaches_poles(latitude: np.ndarray | tuple[float, ...]) -> bool:
    """Says whether the outermost rows are so near to the poles that their cells end there."""
    degrees = np.asarray(latitude, dtype=np.float64)
    spacing = np.abs(np.diff(degrees)).max(initial=0.0)
    return bool(90.0 - np.abs(degrees[[0, -1]]).min() <= 1.5 * spacing)


def polar_ends(
    latitude: np.ndarray | tuple[float, ...], longitude: np.ndarray | tuple[float, ...]
) -> tuple[bool, bool]:
    """Says whether the first and the last row of a grid are the last before a pole, all around it, so that nothing
    comes in there from outside.
    """
    if not goes_round(longitude):
        return False, False
    if reaches_poles(latitude):
        return True, True
    degrees = np.asarray(latitude, dtype=np.float64)
    reach = np.abs(np.diff(degrees)).max(initial=0.0) + POLE_DEGREES
    return bool(90.0 - abs(degrees[0]) <= reach), bool(90.0 - abs(degrees[-1]) <= reach)


def cell_area_weights(latitude: np.ndarray | tuple[float, ...]) -> np.ndarray:
    """Returns the exact area of each latitude row's cells, sin(upper edge) - sin(lower edge), with mean 1.

    Cell edges lie midway between latitudes and at the poles, as in WeatherBench 2; those of a region half a spacing
    beyond its outermost rows.
    """
    degrees = np.asarray(latitude, dtype=np.float64)
    middle = (degrees[1:] + degrees[:-1]) / 2
    if reaches_poles(degrees):
        north = 90.0 if degrees[0] > degrees[-1] else -90.0
        ends = (north, -north)
    else:
        ends = (
            float(np.clip(2 * degrees[0] - middle[0], -90, 90)),
            float(np.clip(2 * degrees[-1] - middle[-1], -90, 90)),
        )
    edges = np.concatenate([[ends[0]], middle, [ends[1]]])
    area = np.abs(np.diff(np.sin(np.deg2rad(edges))))
    return area / area.mean()
