"""Makes a training store of any source, in bounded memory; an interrupted run goes on where it was."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from domains.climate.data import zarr_layout as layout
from domains.climate.data.climatology import DAYS, HALF_WINDOW_DAYS, DailyMeans, DayTimes, daily_means
from domains.climate.data.readers import Source
from domains.climate.data.schema import cell_area_weights
from domains.climate.data.selection import Selection
from domains.climate.data.statistics import ReadFields, compute_statistics
from domains.climate.data.store_layout import PreparePlan, make_plan, wanted_names
from sciml.core.errors import ConfigError, DataError
from sciml.core.files import disk_errors
from sciml.core.lock import lock_output
from sciml.core.progress import track
from sciml.core.types import FilePath, Positive
from sciml.data.files import is_remote, source_stem
from sciml.data.staging import Staging, fingerprint


@dataclass(frozen=True)
class PrepareConfig(Selection):
    """Holds the keys of ``scripts/prepare.py domain=climate``.

    Attributes:
        path: source: a file, folder, pattern or URL, or several of them.
        out: the store to write; null makes one named after the source in the current folder.
        overwrite: whether a store that is there may be replaced.
        max_memory_gb: memory for blocks of fields; more is faster where data are large.
    """

    path: FilePath | list[FilePath] = ""
    out: str | None = None
    overwrite: bool = False
    max_memory_gb: Positive[float] = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ConfigError("no source is named", key="path", hint="e.g. path=era5.nc")

    @property
    def target(self) -> Path:
        """Returns the path of the store to write."""
        return Path(self.out or f"{source_stem(self.path)}-store.zarr")


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
    with lock_output(out, layout.is_store, overwrite=config.overwrite, keep_existing=keep_existing) as needed:
        if not needed:
            return out
        source = Source.open(config.path, config.member, wanted_names(config))
        plan = make_plan(source, config)
        _say_what_is_left_out(source, plan)
        staging = Staging(out, store_fingerprint(source.files, config))
        max_bytes = config.max_memory_gb * 2**30
        try:
            _write_fields(plan, staging, max_bytes)
            if "statistics" not in staging.journal:
                _write_statistics(plan, staging, max_bytes)
        except DataError:
            if not any(is_remote(file) for file in source.files):  # a network may recover, a broken file will not
                staging.remove()
            raise
        with disk_errors(out):
            windows = _write_climatology(plan, staging, max_bytes)
            found = {name: staging.journal.get(name, []) for name in ("missing", "gaps")}
            layout.open_group(staging.store, "r+").attrs.update({**plan.attributes(), **found, "windows": windows})
            if found["gaps"]:
                print(f"unknown in places and masked there: {', '.join(found['gaps'])}", file=sys.stderr, flush=True)
            layout.consolidate(staging.store)
            staging.publish()
    return out


def _say_what_is_left_out(source: Source, plan: PreparePlan) -> None:
    """Writes one line to stderr on what the source has and the store will not."""
    read = {channel.variable.name for channel in plan.channels}
    unread = [one.variable.short for name, one in source.fields.items() if name not in read]
    unused = [f"{name} (name it under channels)" for name in unread]
    names = [*(f"{name} ({why})" for name, why in sorted(source.left_out.items())), *unused]
    if names:
        print(f"left out of {source.label}: {', '.join(names)}", file=sys.stderr, flush=True)


def store_fingerprint(files: tuple[str, ...], selection: Selection) -> str:
    """Returns a short hash of the source files and of everything that is chosen of them."""
    return fingerprint(files, layout.VERSION, selection.selected())


def _write_fields(plan: PreparePlan, staging: Staging, max_bytes: float) -> None:
    shape = (len(plan.channels), *plan.grid.shape)
    chunk = layout.times_per_chunk(shape)
    block = plan.block_size(max_bytes, chunk)
    if "block" in staging.journal:
        block = staging.journal["block"]
    else:
        with disk_errors(staging.folder):
            group = layout.open_group(staging.store, "w")
            layout.create_array(
                group,
                "fields",
                (len(plan.positions), *shape),
                layout.field_chunks(shape, chunk),
                ("time", "channel", "latitude", "longitude"),
                compress=plan.compress,
            )
            staging.record(block=block)
    fields = layout.open_group(staging.store, "r+")["fields"]
    starts = list(range(0, len(plan.positions), block))
    rest = starts[staging.journal.get("blocks", 0) :]
    for start in track(rest, f"reading {len(plan.positions)} times of {len(plan.channels)} channels"):
        values = plan.read(slice(start, start + block))
        unknown = np.isnan(values)
        nowhere = unknown.all(axis=(2, 3)).any(axis=1)
        in_places = unknown[~nowhere].any(axis=(0, 2, 3))
        missing = [*staging.journal.get("missing", []), *(start + np.flatnonzero(nowhere)).tolist()]
        names = [plan.channels[number].name for number in np.flatnonzero(in_places)]
        gaps = {*staging.journal.get("gaps", []), *names}
        with disk_errors(staging.folder):
            fields[start : start + len(values)] = values
            staging.record(blocks=start // block + 1, missing=missing, gaps=sorted(gaps))


def _write_statistics(plan: PreparePlan, staging: Staging, max_bytes: float) -> None:
    """Writes everything that is small: coordinates, statistics of the training period, constant fields."""
    first, last = plan.splits["train"]
    rows = _training_rows(plan, staging)
    minutes = plan.times[rows].astype(np.int64)
    read = _training_reader(plan, staging)
    variables = [channel.variable for channel in plan.channels]
    parts = compute_statistics(read, minutes, variables, plan.grid.latitude, len(plan.grid.longitude), max_bytes)
    results = [part for _, part in track(parts, "statistics of the training period")]
    names = ("mean", "std", "target_mean", "target_std")
    of_channels = {name: np.concatenate([getattr(result, name) for result in results]) for name in names}
    increment_std = np.concatenate([r.increment_std for r in results], axis=1)
    constant = ~((of_channels["std"] > 0) & (increment_std > 0).all(0))
    if constant.any():
        channel, show = plan.channels[int(constant.argmax())], plan.source.calendar.show
        raise DataError(
            f"{plan.source.label}: {channel.variable.name} ({channel.name}) is the same at all times from "
            f"{show(plan.times[first])} to {show(plan.times[last])}; leave it out"
        )
    dataset = xr.Dataset(
        {
            **{name: ("channel", values) for name, values in of_channels.items()},
            "increment_std": (("lead_time", "channel"), increment_std),
            "static": (("static", "latitude", "longitude"), standardized(plan.read_statics(), plan.grid.latitude)),
        },
        {
            "time": layout.time_coordinate(plan.times, plan.source.calendar),
            "channel": [channel.name for channel in plan.channels],
            "latitude": ("latitude", plan.grid.latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", plan.grid.longitude, {"units": "degrees_east"}),
            "lead_time": ("lead_time", results[0].lead_hours, {"long_name": "lead time in hours"}),
            "static_name": ("static", np.asarray(plan.statics, dtype="U32")),
        },
    )
    if gaps := staging.journal.get("gaps"):
        known = np.concatenate([result.known for result in results])
        number = {channel.name: position for position, channel in enumerate(plan.channels)}
        dataset["known"] = (("gap", "latitude", "longitude"), known[[number[name] for name in gaps]])
    with disk_errors(staging.folder):
        layout.write_dataset(staging.store, dataset)
        staging.record(statistics=True)


def standardized(fields: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Returns constant fields (static, latitude, longitude) with area-weighted mean 0 and standard deviation 1, in
    float32.
    """
    area = cell_area_weights(latitude)[:, None]
    centered = fields - (fields * area).mean((1, 2), keepdims=True)
    spread = np.sqrt((centered**2 * area).mean((1, 2), keepdims=True))
    return (centered / np.where(spread > 0, spread, 1)).astype(np.float32)


def _write_climatology(plan: PreparePlan, staging: Staging, max_bytes: float) -> dict[str, Any] | None:
    """Writes climatologies by day, by week and of all times; returns what it takes to smooth means of few days."""
    times = plan.times[_training_rows(plan, staging)]
    shape = (len(plan.channels), *plan.grid.shape)
    day_times = DayTimes.of(plan.times, plan.source.calendar)
    shutil.rmtree(staging.scratch, ignore_errors=True)
    staging.scratch.mkdir()
    block = plan.block_size(max_bytes / 4, 1, regridded=True)
    means = daily_means(_training_reader(plan, staging), times, day_times, shape, staging.scratch, block, max_bytes)
    states_per_day = (len(times) - 1) / ((times[-1] - times[0]) / np.timedelta64(1, "D"))
    group = layout.open_group(staging.store, "r+")
    windows = None
    if len(means.days) < DAYS / 2:
        windows = _write_daily(group, means, states_per_day)
    else:
        _write_smoothed(group, means, states_per_day, max_bytes)
    chunks = layout.field_chunks(shape, layout.times_per_chunk(shape))
    dims = ("channel", "latitude", "longitude")
    weekly = layout.create_array(group, "weekly_climatology", (len(means.weeks), *shape), chunks, ("week", *dims))
    for start in range(0, len(means.weeks), chunks[0]):
        part = slice(start, min(start + chunks[0], len(means.weeks)))
        weekly[part] = means.weekly.value((part,))
    coords = {"hour": np.asarray(day_times.hours), "week": means.weeks}
    mean = (dims, means.all_time().astype(np.float32))
    layout.write_dataset(staging.store, xr.Dataset({"mean_climatology": mean}, coords))
    return windows


def _write_smoothed(group: Any, means: DailyMeans, states_per_day: float, max_bytes: float) -> None:
    """Writes the climatology of every hour and day of the year."""
    chunks = layout.field_chunks(means.shape, layout.times_per_chunk(means.shape))
    hours = len(means.day_times.hours)
    dims = ("hour", "dayofyear", "channel", "latitude", "longitude")
    target = layout.create_array(group, "climatology", (hours, DAYS, *means.shape), (1, *chunks), dims)
    # a window is 61 days: blocks as long are read twice, shorter ones more often
    fitting = int(min(2 * HALF_WINDOW_DAYS, max_bytes / 4 / (4 * np.prod(means.shape))))
    days = max(1, fitting // chunks[0]) * chunks[0]
    total = hours * -(-DAYS // days)
    for hour, which, values in track(means.smoothed(states_per_day, days), "climatology by day of year", total):
        target[hour, which] = values


def _write_daily(group: Any, means: DailyMeans, states_per_day: float) -> dict[str, Any]:
    """Writes the means of the few days that there are; returns what it takes to smooth them."""
    chunks = layout.field_chunks(means.shape, layout.times_per_chunk(means.shape))
    dims = ("hour", "day_with_data", "channel", "latitude", "longitude")
    daily = layout.create_array(group, "daily_means", means.daily.mean.shape, (1, *chunks), dims)
    hourly = layout.create_array(group, "hourly_means", means.hourly.mean.shape, chunks, (dims[0], *dims[2:]))
    for hour in range(len(means.day_times.hours)):
        hourly[hour] = means.overall(hour)
        for start in range(0, len(means.days), chunks[0]):
            part = slice(start, min(start + chunks[0], len(means.days)))
            daily[hour, part] = means.daily.value((hour, part))
    windows = [means.window(hour, states_per_day) for hour in range(len(means.day_times.hours))]
    return {
        "days": means.days.tolist(),
        "counts": [window.counts.tolist() for window in windows],
        "states_per_day": windows[0].states_per_day,
    }


def _training_rows(plan: PreparePlan, staging: Staging) -> np.ndarray:
    """Returns the positions of the training period's times, without those at which a channel has no value."""
    first, last = plan.splits["train"]
    return np.setdiff1d(np.arange(first, last + 1), np.asarray(staging.journal.get("missing", []), dtype=np.int64))


def _training_reader(plan: PreparePlan, staging: Staging) -> ReadFields:
    """Reads what was written of the training period, counted from its first time."""
    rows = _training_rows(plan, staging)
    fields = layout.open_group(staging.store, "r")["fields"]

    def read(times: slice, channels: slice) -> np.ndarray:
        return layout.read_rows(fields, rows[times], channels)

    return read
