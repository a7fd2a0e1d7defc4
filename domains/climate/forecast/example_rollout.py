"""One test case for the pictures: forecast here, or read back from a forecast file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import nn

from domains.climate.data.batch import FieldBatch
from domains.climate.data.boundary import Surroundings, boundary_frame
from domains.climate.data.samples import ForecastSource
from domains.climate.data.schema import ClimateSchema
from domains.climate.data.states import States
from domains.climate.data.variables import parse_channel
from domains.climate.forecast.example import WeatherExample
from domains.climate.model.task import ClimateTask
from sciml.forecast.rollout import rollout


def forecast_example(task: ClimateTask, model: nn.Module, source: ForecastSource) -> dict[str, np.ndarray]:
    """Returns a forecast from the middle of a source's period along each of its paths, with the truth beside it.

    Returns:
        ``init_time``, ``lead_times``, ``forecast`` and ``truth`` (lead, channel, latitude, longitude), ``initial``,
        ``std`` of each channel in the training; of a region ``frame``, the cells that are given.
    """
    store, starts = source.store, source.starts()
    start = int(starts[len(starts) // 2])
    initial = torch.from_numpy(store.read(np.array([start]))).to(task.device)
    hours = float(store.hours[start])
    forecasts: dict[float, np.ndarray] = {}
    for path in source.paths:
        zero = torch.zeros(1, dtype=torch.float64, device=task.device)
        intervals = torch.tensor([path], dtype=torch.float64, device=task.device)
        around = Surroundings(store) if store.schema.is_region else None
        batch = FieldBatch(initial, initial, zero + hours, zero, intervals, surroundings=around)
        for step, prediction in rollout(task, model, batch):
            forecasts[float(step.next_lead_time[0])] = prediction.values["fields"][0].cpu().numpy()
    leads = np.array(sorted(forecasts))
    truth = store.read(np.searchsorted(store.hours, hours + leads))
    mask = land_sea_mask(store)
    return {
        **({} if mask is None else {"land_sea_mask": mask}),
        **({} if task.frame is None else {"frame": task.frame.cpu().numpy()}),
        "std": task.statistics.std.cpu().numpy(),
        "init_time": np.array(hours),
        "lead_times": leads,
        "forecast": np.stack([forecasts[lead] for lead in leads]),
        "truth": truth,
        "initial": initial[0].cpu().numpy(),
    }


def read_example(path: Path, store: States, boundary_rows: int) -> WeatherExample:
    """Returns the longest lead time of a written forecast (the mean of its members) beside the truth, where the store
    holds it.

    Args:
        boundary_rows: width of the frame in which a region's weather is given.
    """
    engine = "zarr" if path.suffix == ".zarr" else "netcdf4"
    with xr.open_dataset(path, engine=engine, decode_times=False, decode_timedelta=False) as dataset:
        dataset = dataset.isel(prediction_timedelta=[-1])
        if "number" in dataset.dims:
            dataset = dataset.mean("number", keep_attrs=True)
        fields = np.stack([_channel(dataset, name) for name in store.schema.channels], axis=1)
        hours = float(dataset["time"].values[0]) / 60
        leads = dataset["prediction_timedelta"].values / 60
    known = {round(float(hour) * 60): position for position, hour in enumerate(store.hours)}
    start, *ahead = [known.get(round((hours + lead) * 60)) for lead in (0.0, *leads)]
    truth = store.read(np.array(ahead)) if None not in ahead else None
    initial = store.read(np.array([start]))[0]
    return WeatherExample(
        schema=store.schema, init_time=hours, lead_times=leads, forecast=fields, truth=truth, initial=initial,
        land_sea_mask=land_sea_mask(store), frame=boundary_frame(store.schema, boundary_rows),
    )  # fmt: skip


def read_members(path: Path, schema: ClimateSchema, last_hours: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns lead times in hours and fields (lead, member, channel, latitude, longitude) of a forecast's last part."""
    engine = "zarr" if path.suffix == ".zarr" else "netcdf4"
    with xr.open_dataset(path, engine=engine, decode_times=False, decode_timedelta=False) as dataset:
        leads = dataset["prediction_timedelta"].values / 60
        chosen = np.flatnonzero(leads > leads[-1] - last_hours)
        leads, dataset = leads[chosen], dataset.isel(prediction_timedelta=chosen)
        fields = np.stack([_channel(dataset, name) for name in schema.channels], axis=-3)
        return leads, fields if "number" in dataset.dims else fields[:, None]


def land_sea_mask(store: States) -> np.ndarray | None:
    """Returns the store's land-sea mask, to draw coasts from; None where it has none."""
    if "lsm" not in store.schema.statics:
        return None
    return store.statistics.statics[store.schema.statics.index("lsm")].numpy()


def _channel(dataset: xr.Dataset, name: str) -> np.ndarray:
    parsed = parse_channel(name)
    values = dataset[parsed.variable.name].isel(time=0)
    return (values if parsed.level is None else values.sel(level=parsed.level)).values
