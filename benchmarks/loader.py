"""Measures how many samples a second the loader gives, beside plain xarray indexing of the same data.

    python benchmarks/loader.py                         # the committed archive
    python benchmarks/loader.py --path era5.nc --grid 64x32

A sample is a state and the state 72 h (``--lead``) later, of all channels. Every row goes through the same
random order of initial times; plain xarray opens the source and the store as a user would and stacks the
channels of a batch with ``isel``. The last column is relative to the first row.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice, repeat
from typing import Any

import netCDF4
import numpy as np
import torch
import xarray as xr
from torch.utils.data import DataLoader, Dataset

from domains.climate.data.readers import open_source
from domains.climate.data.readers.files import is_zarr
from domains.climate.data.samples import ClimateDataConfig, ForecastSource, open_or_prepare
from domains.climate.data.store import ClimateStore
from domains.climate.data.variables import parse_channel
from sciml.data.loader import ShuffledSampler, training_batches

Batches = Callable[[], Iterator[object]]


def with_loader(source: ForecastSource, batch_size: int, workers: int, seed: int) -> Batches:
    """Returns a function that yields batches as the trainer gets them."""
    stream = ShuffledSampler(len(source), batch_size, seed)
    return lambda: training_batches(
        source, stream, start_step=0, stop_step=10**6, micro_batch_size=batch_size, num_workers=workers
    )


def with_xarray(
    dataset: xr.Dataset, store: ClimateStore, source: ForecastSource, batch_size: int, steps: int, seed: int
) -> Batches:
    """Returns a function that yields batches by plain indexing: state and target of each sample, channel by
    channel where they are apart.
    """
    channels = [parse_channel(name) for name in store.schema.channels]
    times = dataset["time"].values.astype("datetime64[m]")
    position = {time: i for i, time in enumerate(times)}
    starts = [position[time] for time in store.times[store.indices("train")][: len(source)]]
    offset = position[store.times[steps]] - position[store.times[0]]
    stream = ShuffledSampler(len(starts), batch_size, seed)

    def state(at: int) -> np.ndarray:
        if "fields" in dataset:
            return dataset["fields"].isel(time=at).values
        fields = [dataset[c.variable.name].isel(time=at) for c in channels]
        return np.stack(
            [f.sel(level=c.level).values if c.level else f.values for f, c in zip(fields, channels, strict=True)]
        )

    def batches() -> Iterator[object]:
        for step in range(10**6):
            pairs = [(state(starts[d.index]), state(starts[d.index] + offset)) for d in stream.draws(step)]
            yield torch.from_numpy(np.stack([np.stack(pair) for pair in pairs]))

    return batches


class Pairs(Dataset):
    """The plainest data set of pairs of states that one would write: no symmetries, no lead times, no checks."""

    def __init__(self, states: Any, starts: Sequence[int], offset: int) -> None:
        self.states, self.starts, self.offset = states, starts, offset

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        at = int(self.starts[index])
        return self.states[at], self.states[at + self.offset]


def with_pairs(states: Any, store: ClimateStore, source: ForecastSource, batch_size: int, steps: int) -> Batches:
    """Returns a function that yields batches of torch's own loader over an array of states, wherever it lies."""
    pairs = Pairs(states, store.indices("train")[: len(source)], steps)
    return lambda: chain.from_iterable(repeat(DataLoader(pairs, batch_size, shuffle=True, drop_last=True)))


def as_netcdf(store: ClimateStore, folder: str) -> netCDF4.Dataset:
    """Writes all states into a NetCDF file, uncompressed, a state a chunk, and opens it."""
    path = f"{folder}/states.nc"
    states = store.read(np.arange(len(store.times)))
    with netCDF4.Dataset(path, "w") as file:
        for name, size in zip(("time", "channel", "latitude", "longitude"), states.shape, strict=True):
            file.createDimension(name, size)
        dims = ("time", "channel", "latitude", "longitude")
        file.createVariable("fields", "f4", dims, chunksizes=(1, *states.shape[1:]))[:] = states
    opened = netCDF4.Dataset(path)
    opened.set_auto_maskandscale(False)
    return opened


def rate(batches: Batches, batch_size: int, seconds: float) -> float:
    """Returns the samples a second after a warm-up of two batches."""
    iterator = batches()
    list(islice(iterator, 2))
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(iterator)
        count += batch_size
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", default=ClimateDataConfig.path)
    parser.add_argument("--grid", default=None, help="longitudes x latitudes; the data's own if not given")
    parser.add_argument("--lead", type=float, default=72.0, help="hours")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        store = open_or_prepare(ClimateDataConfig(path=args.path, cache=cache, grid=args.grid))
        shape = (len(store.schema.channels), *store.schema.grid_shape)
        plain = open_or_prepare(ClimateDataConfig(path=args.path, cache=cache, grid=args.grid, compress=False))
        memory, disk, disk_plain = (
            ForecastSource(one, "train", [(args.lead,)], preload_gb=gb)
            for one, gb in ((store, 1e3), (store, 0.0), (plain, 0.0))
        )
        steps = round(args.lead / store.schema.step_hours)
        opened = {"plain xarray, store": xr.open_zarr(store.path, chunks=None)}
        if args.grid is None:
            # names of CDS and of GRIB differ from those of the store: there our reader stands in
            source = xr.open_zarr(args.path, chunks=None) if is_zarr(args.path) else open_source(args.path)
            opened["plain xarray, source"] = source
        netcdf, states = as_netcdf(store, cache), store.read(np.arange(len(store.times)))
        rows = {
            **{name: with_xarray(data, store, memory, args.batch, steps, 0) for name, data in opened.items()},
            "netCDF4 in a DataLoader": with_pairs(netcdf["fields"], store, memory, args.batch, steps),
            "numpy array in a DataLoader": with_pairs(states, store, memory, args.batch, steps),
            "loader, from disk": with_loader(disk, args.batch, 0, 0),
            "loader, from disk, compress=false": with_loader(disk_plain, args.batch, 0, 0),
            f"loader, from disk, {args.workers} workers": with_loader(disk, args.batch, args.workers, 0),
            "loader, preloaded": with_loader(memory, args.batch, 0, 0),
            f"loader, preloaded, {args.workers} workers": with_loader(memory, args.batch, args.workers, 0),
        }
        print(f"{len(memory)} samples of 2 states {shape}, batches of {args.batch}")
        print(f"{'':40}{'samples/s':>12}{'MB/s':>10}{'ratio':>8}")
        first = None
        for name, batches in rows.items():
            speed = rate(batches, args.batch, args.seconds)
            first = first or speed
            print(f"{name:40}{speed:12.0f}{speed * 2 * store.state_bytes / 1e6:10.0f}{speed / first:8.1f}", flush=True)


if __name__ == "__main__":
    main()
