"""Flows: bubbles that rise and meet, forecast by the committed model, beside the solver.

A few seconds on a laptop: python docs/examples/fluids.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import xarray as xr

import sciml
from sciml.core.installation import located

path = located("data/fluids/flow.nc")
flow = xr.open_dataset(path).isel(member=0)

model = sciml.load("models/fluids")
forecast = model.forecast(flow["time"].values[0], "200s", **{"data.path": path})

figure, axes = plt.subplots(2, 1, figsize=(7, 5.4), layout="constrained", sharex=True)
last = forecast["theta"].squeeze().isel(time=-1)
for panel, field, title in zip(axes, (last, flow["theta"].isel(time=-1)), ("model", "solver"), strict=True):
    image = panel.pcolormesh(flow["x"] / 1000, flow["z"] / 1000, field, cmap="RdBu_r", vmin=-8, vmax=8)
    panel.set(title=f"{title}, after 200 s", ylabel="height, km", aspect="equal")
axes[1].set_xlabel("x, km")
figure.colorbar(image, ax=axes, label="potential temperature, change from the background, K")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)
