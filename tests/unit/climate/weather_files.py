"""The same synthetic weather, written as each center delivers it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from domains.climate.data.variables import find


def short_names(dataset: xr.Dataset) -> dict[str, str]:
    return {str(name): find(str(name)).short for name in dataset.data_vars}


def as_cds(dataset: xr.Dataset) -> xr.Dataset:
    """(time, level, latitude, longitude), latitude from north to south, short names."""
    ordered = dataset.transpose("time", ..., "latitude", "longitude").isel(latitude=slice(None, None, -1))
    return ordered.rename(short_names(dataset))


def write_cds_new(dataset: xr.Dataset, path: Path, expver: str = "0001") -> Path:
    """CDS since 2024: valid_time, pressure_level decreasing, and number and expver beside them."""
    new = as_cds(dataset).rename(time="valid_time")
    if "level" in new.dims:
        new = new.rename(level="pressure_level").isel(pressure_level=slice(None, None, -1))
        new.pressure_level.attrs["units"] = "hPa"
    new = new.assign_coords(number=0, expver=("valid_time", np.full(new.sizes["valid_time"], expver)))
    new.to_netcdf(path, encoding={"valid_time": {"units": "seconds since 1970-01-01", "dtype": "int64"}})
    return path


def write_cds_old(dataset: xr.Dataset, path: Path) -> Path:
    """CDS before: packed integers in the classic format, time in hours since 1900, longitudes -180 to 180."""
    old = as_cds(dataset)
    old = old.assign_coords(longitude=(old.longitude + 180) % 360 - 180).sortby("longitude")
    encoding: dict[str, dict[str, object]] = {"time": {"units": "hours since 1900-01-01", "dtype": "int32"}}
    for name, field in old.data_vars.items():
        low, high = float(field.min()), float(field.max())
        packed = {"dtype": "int16", "scale_factor": (high - low) / 65000, "add_offset": (high + low) / 2}
        encoding[str(name)] = {**packed, "_FillValue": np.int16(-32767)}
        field.attrs["units"] = field.attrs["units"].replace("m2 s-2", "m**2 s**-2").replace("m s-1", "m s**-1")
    old.to_netcdf(path, format="NETCDF3_64BIT", encoding=encoding)
    return path


def write_wb2(dataset: xr.Dataset, path: Path | str) -> Path:
    """WeatherBench 2: long names, (longitude, latitude), time as whole hours."""
    encoding = {"time": {"units": "hours since 1959-01-01", "dtype": "int64"}}
    dataset.to_zarr(path, zarr_format=2, encoding=encoding, consolidated=True)
    return Path(path)


def canonical(dataset: xr.Dataset) -> xr.Dataset:
    """What every reader should make of them, computed by xarray alone."""
    return dataset.transpose("time", "level", "latitude", "longitude", missing_dims="ignore").sortby(
        "latitude", ascending=False
    )
