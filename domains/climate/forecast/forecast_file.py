"""A forecast as a file in WeatherBench 2's layout that grows with each lead time.

Dims are ``time`` (of initialization), ``prediction_timedelta``, ``number`` for an ensemble, ``level``, ``latitude``
and ``longitude``; variables have ERA5's long names. ``valid_time`` stands beside them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from domains.climate.data.calendar import WORLD, Calendar
from domains.climate.data.schema import ClimateSchema
from domains.climate.data.variable import Variable
from domains.climate.data.variables import parse_channel, variable_title
from domains.climate.data.zarr_layout import TIME_UNITS, consolidate
from domains.climate.forecast.calibration import EnsembleCalibration
from sciml import __version__
from sciml.core.duration import format_hours
from sciml.domain.protocol import Prediction

STEP_DIM = "prediction_timedelta"
STEP_BOUNDS = f"{STEP_DIM}_bounds"
"""Where the periods begin and end that sums, means and extremes speak of."""
_METHODS = {"sum": "sum", "mean": "mean", "max": "maximum", "min": "minimum"}


class ForecastFile:
    """Writes one lead time after the other, to zarr or NetCDF by the path's suffix.

    Args:
        init_time: hours since 1970-01-01 00:00 UTC.
        calibrated: what is written of an ensemble; None writes it as it is forecast.
    """

    def __init__(
        self, path: Path, schema: ClimateSchema, init_time: float, calibrated: EnsembleCalibration | None = None
    ) -> None:
        self.path, self.schema, self.init_time, self.calibrated = path, schema, init_time, calibrated
        self.started = False
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, lead_hours: float, prediction: Prediction) -> None:
        """Adds a lead time; ``prediction.values["fields"]`` is (member, channel, latitude, longitude)."""
        fields = prediction.values["fields"]
        if self.calibrated is not None and len(fields) > 1:
            fields = self.calibrated(fields[None], torch.tensor([lead_hours]))[0]
        dataset = self._dataset(lead_hours, fields.cpu().numpy())
        if self.path.suffix == ".nc":
            self._append_netcdf(dataset)
        elif not self.started:
            encoding = {name: {"chunks": field.shape} for name, field in dataset.data_vars.items()}
            encoding |= _step_encoding(dataset)
            dataset.to_zarr(self.path, mode="w", zarr_format=2, consolidated=False, encoding=encoding)
        else:
            dataset.to_zarr(self.path, append_dim=STEP_DIM, consolidated=False)
        self.started = True

    def close(self) -> None:
        """Makes the file quick to open; nothing is lost without it."""
        if self.started and self.path.suffix == ".zarr":
            consolidate(self.path)

    def _dataset(self, lead_hours: float, fields: np.ndarray) -> xr.Dataset:
        members = len(fields)
        variables: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]] = {}
        levels: dict[str, list[int]] = defaultdict(list)
        parts: dict[str, list[np.ndarray]] = defaultdict(list)
        attrs: dict[str, dict[str, str]] = {}
        for position, channel in enumerate(self.schema.channels):
            parsed = parse_channel(channel)
            parts[parsed.variable.name].append(fields[:, position])
            attrs[parsed.variable.name] = self._attributes(parsed.variable)
            if parsed.level is not None:
                levels[parsed.variable.name].append(parsed.level)
        all_levels = sorted({level for chosen in levels.values() for level in chosen})
        for name, members_of in parts.items():
            dims: tuple[str, ...] = ("number", "latitude", "longitude")
            values = members_of[0]
            if name in levels:
                dims = ("number", "level", "latitude", "longitude")
                values = np.full((members, len(all_levels), *self.schema.grid_shape), np.nan, dtype=np.float32)
                for level, field in zip(levels[name], members_of, strict=True):
                    values[:, all_levels.index(level)] = field
            if members == 1:
                dims, values = dims[1:], values[0]
            variables[name] = (("time", STEP_DIM, *dims), values[None, None], attrs[name])
        lead = round(lead_hours * 60)
        init = round(self.init_time * 60)
        calendar = Calendar(self.schema.calendar)
        name = "proleptic_gregorian" if calendar == WORLD else calendar.name
        clock = {"units": TIME_UNITS, "calendar": name}
        coords: dict[str, Any] = {
            "time": (
                "time",
                np.array([init]),
                {**clock, "standard_name": "forecast_reference_time", "long_name": "init_time"},
            ),
            STEP_DIM: (
                STEP_DIM,
                np.array([lead], "timedelta64[m]").astype("timedelta64[ns]"),
                {"standard_name": "forecast_period", "long_name": "lead_time"},
            ),
            "valid_time": (("time", STEP_DIM), np.array([[init + lead]]), {**clock, "standard_name": "time"}),
            "latitude": (
                "latitude",
                list(self.schema.latitude),
                {"units": "degrees_north", "standard_name": "latitude"},
            ),
            "longitude": (
                "longitude",
                list(self.schema.longitude),
                {"units": "degrees_east", "standard_name": "longitude"},
            ),
        }
        if any("cell_methods" in own for own in attrs.values()):
            coords[STEP_DIM][2]["bounds"] = STEP_BOUNDS
            begin = lead - round(self.schema.step_hours * 60)
            coords[STEP_BOUNDS] = ((STEP_DIM, "bounds"), np.array([[begin, lead]], "timedelta64[m]").astype("m8[ns]"))
        if all_levels:
            coords["level"] = ("level", all_levels, {"units": "hPa", "standard_name": "air_pressure"})
        if members > 1:
            coords["number"] = ("number", np.arange(members), {"standard_name": "realization"})
        attributes = {
            "Conventions": "CF-1.8",
            "title": f"Forecast from: {self.schema.title}",
            "source": f"sciml {__version__}",
        }
        return xr.Dataset(variables, coords, attributes)

    def _attributes(self, variable: Variable) -> dict[str, str]:
        """Returns what the conventions want to be said of a variable, for sums and the like of which period they are:
        that of a step, however far lead times lie apart.
        """
        known = {"units": variable.unit, "long_name": variable_title(variable)}
        if variable.standard_name:
            known["standard_name"] = variable.standard_name
        if variable.over != "instant":
            period = format_hours(self.schema.step_hours)
            known["long_name"] += f" ({_METHODS[variable.over]} over the {period} before)"
            known["cell_methods"] = f"{STEP_DIM}: {_METHODS[variable.over]}"
        return known

    def _append_netcdf(self, dataset: xr.Dataset) -> None:
        if not self.started:
            dataset.to_netcdf(self.path, unlimited_dims=[STEP_DIM], encoding=_step_encoding(dataset))
            return
        import netCDF4

        with netCDF4.Dataset(self.path, "a") as file:
            position = file.dimensions[STEP_DIM].size
            for name, variable in file.variables.items():
                if STEP_DIM in variable.dimensions:
                    axis = variable.dimensions.index(STEP_DIM)
                    index = [slice(None)] * variable.ndim
                    index[axis] = slice(position, position + 1)
                    variable[tuple(index)] = _encoded(dataset[name].values)


def _step_encoding(dataset: xr.Dataset) -> dict[Hashable, Any]:
    known = [name for name in (STEP_DIM, STEP_BOUNDS) if name in dataset.variables]
    return {name: {"units": "minutes", "dtype": "int64"} for name in known}


def _encoded(values: np.ndarray) -> np.ndarray:
    """Returns numbers as they stand in the file: lead times in minutes."""
    return values // np.timedelta64(1, "m") if values.dtype.kind == "m" else values
