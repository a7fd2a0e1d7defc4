"""Computes what is known of any time beforehand: the sun's position. It is never stored.

The sun's position follows the Astronomical Almanac's low-precision formulas, good to 0.01 degrees from 1950 to
2050: Michalsky (1988), https://doi.org/10.1016/0038-092X(88)90045-X. The solar constant is that of Kopp and Lean
(2011), https://doi.org/10.1029/2010GL045777.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from sciml.domain.optional import AUTO

SOLAR_CONSTANT = 1360.8
"""W/m2 at one astronomical unit."""

_J2000_HOURS = 262_980.0  # 2000-01-01 12:00 UTC in hours since 1970
_GLOBAL_MEAN = SOLAR_CONSTANT / 4
_DAYS_PER_YEAR = 365.2425

FORCINGS: dict[str, tuple[str, ...]] = {
    "toa_incident_solar_radiation": ("tisr", "tisr_valid"),
    "time_of_day": ("sin_local_time", "cos_local_time"),
    "time_of_year": ("sin_year", "cos_year"),
}
"""Forcings by name, each with the names of its fields."""


def chosen(forcings: Sequence[str]) -> tuple[str, ...]:
    """Returns forcings by name; none where they were left to data that never came, as of an imported model."""
    return () if AUTO in forcings else tuple(forcings)


def forcing_names(forcings: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the fields of some forcings, in order."""
    return tuple(field for forcing in chosen(forcings) for field in FORCINGS[forcing])


def forcing_fields(
    name: str,
    time: Float[Tensor, "batch"],
    valid_time: Float[Tensor, "batch"],
    latitude: Sequence[float],
    longitude: Sequence[float],
) -> Float[Tensor, "batch field latitude longitude"]:
    """Returns fields of one forcing as model input, of order one, in float32.

    Args:
        name: one of :data:`FORCINGS`.
        time: hours since 1970-01-01 00:00 UTC of the state.
        valid_time: of the end of the step; the sun's radiation is given at both.
        latitude, longitude: degrees.
    """
    shape = (len(time), len(latitude), len(longitude))
    if name == "toa_incident_solar_radiation":
        fields = [toa_solar_radiation(t, latitude, longitude) / _GLOBAL_MEAN - 1.0 for t in (time, valid_time)]
    elif name == "time_of_day":
        turns = time.double()[:, None] / 24.0 + _tensor(longitude, time) / 360.0
        angle = (2 * math.pi * turns)[:, None, :].expand(shape)
        fields = [angle.sin(), angle.cos()]
    else:
        angle = (2 * math.pi * time.double() / 24.0 / _DAYS_PER_YEAR)[:, None, None].expand(shape)
        fields = [angle.sin(), angle.cos()]
    return torch.stack(fields, dim=1).float()


def toa_solar_radiation(
    time: Float[Tensor, "batch"], latitude: Sequence[float], longitude: Sequence[float]
) -> Float[Tensor, "batch latitude longitude"]:
    """Returns solar radiation at the top of the atmosphere on a horizontal surface, at an instant, in W/m2 (float64).

    Args:
        time: hours since 1970-01-01 00:00 UTC.
        latitude, longitude: degrees.
    """
    declination, hour_angle_at_greenwich, distance = sun_position(time)
    north = torch.deg2rad(_tensor(latitude, time))[:, None]
    hour_angle = hour_angle_at_greenwich[:, None, None] + torch.deg2rad(_tensor(longitude, time))
    declination = declination[:, None, None]
    height = north.sin() * declination.sin() + north.cos() * declination.cos() * hour_angle.cos()
    return SOLAR_CONSTANT / distance[:, None, None] ** 2 * height.clamp(min=0.0)


def sun_position(
    time: Float[Tensor, "batch"],
) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch"], Float[Tensor, "batch"]]:
    """Returns declination and hour angle at Greenwich in radians, and distance in astronomical units, in float64.

    Args:
        time: hours since 1970-01-01 00:00 UTC.
    """
    hours = time.double() - _J2000_HOURS
    days = hours / 24.0
    mean_longitude = torch.deg2rad(280.460 + 0.9856474 * days)
    mean_anomaly = torch.deg2rad(357.528 + 0.9856003 * days)
    center = torch.deg2rad(1.915 * mean_anomaly.sin() + 0.020 * (2 * mean_anomaly).sin())
    ecliptic_longitude = mean_longitude + center
    obliquity = torch.deg2rad(23.439 - 0.0000004 * days)
    declination = (obliquity.sin() * ecliptic_longitude.sin()).asin()
    right_ascension = torch.atan2(obliquity.cos() * ecliptic_longitude.sin(), ecliptic_longitude.cos())
    # sidereal time in hours; the day's fraction runs from midnight
    sidereal = 6.697375 + 0.0657098242 * days + (hours + 12.0) % 24.0
    distance = 1.00014 - 0.01671 * mean_anomaly.cos() - 0.00014 * (2 * mean_anomaly).cos()
    return declination, 2 * math.pi * sidereal / 24.0 - right_ascension, distance


def _tensor(degrees: Sequence[float], like: Shaped[Tensor, "..."]) -> Float[Tensor, "point"]:
    return torch.as_tensor(degrees, dtype=torch.float64, device=like.device)
