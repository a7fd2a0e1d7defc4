"""Makes era5_week.nc from one week of ERA5 on the 1 degree grid.

    python data/climate/make_era5_week.py SOURCE.nc [TARGET.nc]

The fields are averaged conservatively onto the 64 x 32 grid of the simulated archive, so that a model
pretrained there goes on here without a change of grid. Names, units and the irregular times stay as
they came; every value is rounded to the step in ``STEPS`` and stored as a 16-bit integer.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import xarray as xr

from domains.climate.data.regrid import Grid, Regridder

GRID = "64x32"
# Rounding steps in the variable's unit; the weather's standard deviation is over a hundred times larger (README.md).
STEPS = {"t2m": 0.01, "u10": 0.005, "v10": 0.005, "msl": 2.0, "tp": 1e-6}
STANDARD_NAMES = {"t2m": "air_temperature", "u10": "eastward_wind", "v10": "northward_wind",
                  "msl": "air_pressure_at_mean_sea_level", "tp": "lwe_thickness_of_precipitation_amount"}  # fmt: skip
LICENSE = "CC-BY 4.0. Contains modified Copernicus Climate Change Service information"


def coarsen(dataset: xr.Dataset, grid: Grid) -> xr.Dataset:
    """Averages over the cells of a coarser grid, weighted by exact area."""
    regrid = Regridder(Grid(dataset.latitude.values, dataset.longitude.values), grid)
    fields = {name: (field.dims, regrid(field.values), field.attrs) for name, field in dataset.items()}
    coords = {"time": dataset.time, "latitude": grid.latitude, "longitude": grid.longitude}
    return xr.Dataset(fields, coords, dataset.attrs)


def main(source: str, target: str) -> None:
    with xr.open_dataset(source) as full:
        week = coarsen(full.load(), Grid.parse(GRID))
    encoding = {}
    for name, field in week.items():
        middle = STEPS[name] * round(float(field.min() + field.max()) / 2 / STEPS[name])
        field.attrs = {
            "units": field.units,
            "standard_name": STANDARD_NAMES[name],
            "long_name": field.long_name,
            "cell_methods": "area: mean",
        }
        encoding[name] = {"dtype": "int16", "scale_factor": STEPS[name], "add_offset": middle, "zlib": True,
                          "complevel": 9, "shuffle": True, "_FillValue": np.int16(-32768)}  # fmt: skip
    week.time.attrs = {"standard_name": "time"}
    week.time.encoding = {"units": "hours since 1900-01-01", "dtype": "int32"}
    week.latitude.attrs = {"units": "degrees_north", "standard_name": "latitude"}
    week.longitude.attrs = {"units": "degrees_east", "standard_name": "longitude"}
    week.attrs = {
        "title": "ERA5 reanalysis, one week, 64 x 32 points, 5 surface variables",
        "source": week.attrs["source"],
        "license": LICENSE,
        "history": "averaged conservatively from the 1 degree grid by data/climate/make_era5_week.py",
        "Conventions": "CF-1.7",
    }
    week.to_netcdf(target, encoding=encoding, engine="netcdf4")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else str(Path(__file__).with_name("era5_week.nc")))
