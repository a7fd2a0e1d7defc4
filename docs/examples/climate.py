"""Weather: a forecast of five days by the committed model, beside what happened.

A few seconds on a laptop: python docs/examples/climate.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import xarray as xr

import sciml
from sciml.core.installation import located

archive = xr.open_zarr(located("data/climate/simulated_archive.zarr"))
start = archive.isel(time=[1200])

model = sciml.load("models/climate")
forecast = model.forecast(start, "120h")

dam = 9.81 * 10  # m2/s2 in a decameter
lead = forecast["geopotential"].sel(level=500).squeeze("time").isel(prediction_timedelta=-1)
truth = archive["geopotential"].sel(level=500).isel(time=1210)
figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained", sharey=True)
for panel, field, title in zip(axes, (lead, truth), ("forecast, 5 days ahead", "truth"), strict=True):
    longitude, latitude = field["longitude"], field["latitude"]
    image = panel.contourf(longitude, latitude, field / dam, levels=range(490, 591, 10), extend="both")
    panel.set(title=f"500 hPa height: {title}", xlabel="longitude", aspect="equal")
axes[0].set_ylabel("latitude")
figure.colorbar(image, ax=axes, label="dam")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)
