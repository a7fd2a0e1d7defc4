"""Made-up weather for tests: waves that travel round the globe, a daily and a yearly cycle, and noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from domains.climate.data.regrid import LatLonGrid
from domains.climate.data.variables import parse_channels

NUM_WAVES = 6
CHANNELS = ("z500", "z850", "t500", "t850", "v500", "v850", "t2m", "u10")

_MEAN_AND_SPREAD = {
    "geopotential": (5.4e4, 2.0e3),
    "temperature": (270.0, 10.0),
    "2m_temperature": (280.0, 12.0),
    "mean_sea_level_pressure": (1.01e5, 1.0e3),
    "surface_pressure": (9.7e4, 1.0e3),
    "specific_humidity": (5e-3, 1e-3),
    "u_component_of_wind": (5.0, 8.0),
}
_WIND = (0.0, 6.0)
TITLE = "Synthetic waves, not weather"


def synthetic_source(
    num_times: int = 240,
    grid: str = "16x8",
    step_hours: float = 6.0,
    seed: int = 0,
    channels: Sequence[str] = CHANNELS,
    start: str = "2001-01-01",
    noise: float = 0.1,
) -> xr.Dataset:
    """Makes fields in WeatherBench 2's layout: long names, (time, level, longitude, latitude), latitude increasing.

    All channels share the same waves with phases of their own, so that they can be predicted from one another
    and from the past; ``noise`` is the part of the spread that cannot.

    Args:
        channels: short names; a layout with one list of levels gives each variable all levels that are named.
        grid: longitudes x latitudes.
        start: date of the first time.
        noise: standard deviation of white noise over the spread of the waves.
    """
    generator = np.random.default_rng(seed)
    target = LatLonGrid.parse(grid)
    latitude, longitude = np.deg2rad(target.latitude[::-1]), np.deg2rad(target.longitude)
    hours = step_hours * np.arange(num_times)
    wavenumber = np.arange(1, NUM_WAVES + 1)
    speed = generator.uniform(0.2, 1.2, NUM_WAVES) * np.pi / 72.0  # rad/h: half a turn of phase in 60 h to 15 days
    amplitude = generator.uniform(0.5, 1.0, NUM_WAVES) / np.sqrt(NUM_WAVES)
    envelope = np.cos(latitude)[:, None] ** 2 * np.exp(-(((np.abs(latitude[:, None]) - 0.8) / 0.6) ** 2))
    season = np.cos(2 * np.pi * hours / (24 * 365.25))
    times = np.datetime64(start, "ns") + (hours * 60).round().astype("timedelta64[m]")
    parsed = parse_channels(channels)
    levels = sorted({channel.level for channel in parsed if channel.level is not None})
    variables = {}
    for variable in dict.fromkeys(channel.variable for channel in parsed):
        mean, spread = _MEAN_AND_SPREAD.get(variable.name, _WIND)
        fields = []
        for _ in levels if variable.on_levels else [None]:
            phase = generator.uniform(0, 2 * np.pi, NUM_WAVES)
            # (time, longitude, wave)
            angle = wavenumber * longitude[None, :, None] - (speed * hours[:, None])[:, None] + phase
            waves = (amplitude * np.cos(angle)).sum(-1)[:, :, None] * (0.3 + envelope[:, 0])
            waves = waves + np.sin(latitude) * season[:, None, None] - 0.5 * np.sin(latitude) ** 2
            waves = waves + noise * generator.standard_normal(waves.shape)
            fields.append((mean + spread * waves).astype(np.float32))
        dims = ("time", "level", "longitude", "latitude") if variable.on_levels else ("time", "longitude", "latitude")
        values = np.stack(fields, axis=1) if variable.on_levels else fields[0]
        variables[variable.name] = (dims, values, {"units": variable.unit})
    coords = {"time": times, "longitude": np.rad2deg(longitude), "latitude": np.rad2deg(latitude)}
    if levels:
        coords["level"] = np.asarray(levels)
    return xr.Dataset(variables, coords, {"title": TITLE, "source": f"synthetic_source, seed {seed}"})
