"""From any source to a training store, in bounded memory; an interrupted run goes on where it was.

The store grows in a hidden folder beside its place, with a ledger of what is finished, and is renamed into its
place at the end: a store is whole or not there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from domains.climate.data import zarr_layout as layout
from domains.climate.data.climatology import DAYS, HALF_WINDOW_DAYS, WEEKS, Calendar, daily_means
from domains.climate.data.readers import Source
from domains.climate.data.readers.files import is_remote
from domains.climate.data.schema import cell_area_weights
from domains.climate.data.selection import Selection
from domains.climate.data.staging import Workplace
from domains.climate.data.statistics import ReadFields, compute_statistics
from domains.climate.data.store_layout import PreparePlan, make_plan
from sciml.core.config import positive
from sciml.core.errors import ConfigError, DataError
from sciml.core.files import disk_errors
from sciml.core.lock import claimed
from sciml.core.progress import track


@dataclass(frozen=True)
class PrepareConfig(Selection):
    """What :func:`prepare` makes of what.

    Attributes:
        path: source: a file, folder, pattern or URL.
        out: the store to write; null makes one named after the source in the current folder.
        overwrite: whether a store that is there may be replaced.
        max_memory_gb: memory for blocks of fields; more is faster where data are large.
    """

    path: str = ""
    out: str | None = None
    overwrite: bool = False
    max_memory_gb: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ConfigError("no source is named", key="path", hint="e.g. path=era5.nc")
        positive(self.max_memory_gb, "max_memory_gb", example=2)

    @property
    def target(self) -> Path:
        """The store to write."""
        return Path(self.out or f"{source_stem(self.path)}-store.zarr")


def source_stem(path: str) -> str:
    """What a store is named after: ``era5`` for ``/data/era5.nc`` and for ``gs://bucket/era5.zarr``."""
    name = path.rstrip("/").rsplit("/", 1)[-1]
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name.split(".")[0]) or "data"


def prepare(config: PrepareConfig, *, keep_existing: bool = False) -> Path:
    """Makes a store of a source.

    Args:
        keep_existing: whether a store that another process has made in the meantime is good as it is.

    Returns:
        The store's path.

    Raises:
        ConfigError: the store is there already; channels, dates or splits that do not fit the data.
        DataError: the source is missing, damaged, incomplete or in impossible units.
        RunError: the disk is full; running it again goes on from there.
    """
    out = config.target
    with claimed(out, layout.is_store, overwrite=config.overwrite, keep_existing=keep_existing) as needed:
        if not needed:
            return out
        source = Source.open(config.path, config.member)
        plan = make_plan(source, config)
        work = Workplace.open(out, identity(source.files, config))
        max_bytes = config.max_memory_gb * 2**30
        try:
            _write_fields(plan, work, max_bytes)
            if "statistics" not in work.ledger:
                _write_statistics(plan, work, max_bytes)
        except DataError:
            if not any(is_remote(file) for file in source.files):  # a network may recover, a broken file will not
                work.remove()
            raise
        with disk_errors(out):
            _write_climatology(plan, work, max_bytes)
            work.publish(out, plan.attributes())
    return out


def identity(files: tuple[str, ...], selection: Selection) -> str:
    """A short hash of the source files (place, size, time of change) and of everything that is chosen of them."""
    described = [_describe(file) for file in files]
    text = json.dumps([layout.VERSION, described, selection.selected()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _describe(file: str) -> list[Any]:
    if is_remote(file):
        return [file]
    path = Path(file).resolve()
    parts = (
        [path]
        if path.is_file()
        else sorted(p for p in path.rglob("*") if p.is_file() and p.name.startswith((".z", "zarr")))
    )
    # a zarr store's arrays are known by their metadata and by how full their folders are
    folders = [] if path.is_file() else sorted(p for p in path.iterdir() if p.is_dir())
    return [
        str(path),
        [[p.stat().st_size, p.stat().st_mtime_ns] for p in parts],
        [p.stat().st_mtime_ns for p in folders],
    ]


def _write_fields(plan: PreparePlan, work: Workplace, max_bytes: float) -> None:
    shape = (len(plan.channels), *plan.grid.shape)
    chunk = layout.times_per_chunk(shape)
    block = plan.block_size(max_bytes, chunk)
    if "block" in work.ledger:
        block = work.ledger["block"]
    else:
        with disk_errors(work.folder):
            group = layout.open_group(work.store, "w")
            layout.create_array(
                group,
                "fields",
                (len(plan.positions), *shape),
                layout.field_chunks(shape, chunk),
                ("time", "channel", "latitude", "longitude"),
            )
            work.note(block=block)
    fields = layout.open_group(work.store, "r+")["fields"]
    starts = list(range(0, len(plan.positions), block))
    rest = starts[work.ledger["blocks"] :]
    for start in track(rest, f"reading {len(plan.positions)} times of {len(plan.channels)} channels"):
        values = plan.read(slice(start, start + block))
        with disk_errors(work.folder):
            fields[start : start + len(values)] = values
            work.note(blocks=start // block + 1)


def _write_statistics(plan: PreparePlan, work: Workplace, max_bytes: float) -> None:
    """Everything that is small: coordinates, statistics of the training period, constant fields."""
    first, last = plan.splits["train"]
    minutes = plan.times[first : last + 1].astype(np.int64)
    read = _training_reader(plan, work)
    parts = compute_statistics(
        read, minutes, len(plan.channels), plan.grid.latitude, len(plan.grid.longitude), max_bytes
    )
    results = [part for _, part in track(parts, "statistics of the training period")]
    mean, std = (np.concatenate([getattr(r, name) for r in results]) for name in ("mean", "std"))
    increment_std = np.concatenate([r.increment_std for r in results], axis=1)
    constant = ~((std > 0) & (increment_std > 0).all(0))
    if constant.any():
        channel = plan.channels[int(constant.argmax())]
        raise DataError(
            f"{plan.source.label}: {channel.variable.name} ({channel.name}) is the same at all times from "
            f"{plan.times[first]} to {plan.times[last]}; leave it out"
        )
    dataset = xr.Dataset(
        {
            "mean": ("channel", mean),
            "std": ("channel", std),
            "increment_std": (("lead_time", "channel"), increment_std),
            "static": (("static", "latitude", "longitude"), standardized(plan.read_statics(), plan.grid.latitude)),
        },
        {
            "time": plan.times.astype("datetime64[ns]"),
            "channel": [channel.name for channel in plan.channels],
            "latitude": ("latitude", plan.grid.latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", plan.grid.longitude, {"units": "degrees_east"}),
            "lead_time": ("lead_time", results[0].lead_hours, {"long_name": "lead time in hours"}),
            "static_name": ("static", np.asarray(plan.statics, dtype="U32")),
        },
    )
    with disk_errors(work.folder):
        layout.write_dataset(work.store, dataset)
        work.note(statistics=True)


def standardized(fields: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Constant fields (static, latitude, longitude) with area-weighted mean 0 and standard deviation 1, in float32."""
    area = cell_area_weights(latitude)[:, None]
    centered = fields - (fields * area).mean((1, 2), keepdims=True)
    spread = np.sqrt((centered**2 * area).mean((1, 2), keepdims=True))
    return (centered / np.where(spread > 0, spread, 1)).astype(np.float32)


def _write_climatology(plan: PreparePlan, work: Workplace, max_bytes: float) -> None:
    first, last = plan.splits["train"]
    times = plan.times[first : last + 1]
    shape = (len(plan.channels), *plan.grid.shape)
    calendar = Calendar.of(plan.times)
    shutil.rmtree(work.scratch, ignore_errors=True)
    work.scratch.mkdir()
    block = plan.block_size(max_bytes / 4, 1, regridded=True)
    means = daily_means(_training_reader(plan, work), times, calendar, shape, work.scratch, block, max_bytes)
    group = layout.open_group(work.store, "r+")
    chunks = layout.field_chunks(shape, layout.times_per_chunk(shape))
    target = layout.create_array(
        group,
        "climatology",
        (len(calendar.hours), DAYS, *shape),
        (1, *chunks),
        ("hour", "dayofyear", "channel", "latitude", "longitude"),
    )
    states_per_day = (len(times) - 1) / ((times[-1] - times[0]) / np.timedelta64(1, "D"))
    # a window is 61 days: blocks as long are read twice, shorter ones more often
    days = max(1, int(min(2 * HALF_WINDOW_DAYS, max_bytes / 4 / (4 * np.prod(shape)))) // chunks[0]) * chunks[0]
    parts = means.smoothed(states_per_day, days)
    total = len(calendar.hours) * -(-DAYS // days)
    for hour, which, values in track(parts, "climatology by day of year and hour", total):
        target[hour, which] = values
    weekly = layout.create_array(
        group, "weekly_climatology", (WEEKS, *shape), chunks, ("week", "channel", "latitude", "longitude")
    )
    for start in range(0, WEEKS, chunks[0]):
        weekly[start : start + chunks[0]] = means.weekly[start : start + chunks[0]]
    coords = {"hour": np.asarray(calendar.hours), "dayofyear": np.arange(1, DAYS + 1), "week": np.arange(WEEKS)}
    mean = (("channel", "latitude", "longitude"), means.all_time().astype(np.float32))
    layout.write_dataset(work.store, xr.Dataset({"mean_climatology": mean}, coords))


def _training_reader(plan: PreparePlan, work: Workplace) -> ReadFields:
    """Reads what was written of the training period, counted from its first time."""
    offset = plan.splits["train"][0]
    fields = layout.open_group(work.store, "r")["fields"]

    def read(times: slice, channels: slice) -> np.ndarray:
        return np.asarray(fields[offset + times.start : offset + times.stop, channels])

    return read
