"""A training store: fields by time and channel, statistics and climatology of the training period."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from typing_extensions import TypedDict

from domains.climate.data import zarr_layout as layout
from domains.climate.data.calendar import STANDARD, Calendar
from domains.climate.data.chunk_reader import ChunkReader
from domains.climate.data.climatology import DailyWindow, DayTimes
from domains.climate.data.schema import ClimateSchema, ClimateStatistics, is_mirrored
from domains.climate.data.states import MINUTES_PER_HOUR, States
from sciml.core.command_line import command
from sciml.core.errors import ConfigError, DataError, nearest
from sciml.core.files import read_json

REMEMBERED_BYTES = 256 * 2**20
"""Most memory for fields of climatologies that are kept."""


class ClimateStore(States):
    """Reads a store that :func:`domains.climate.data.prepare.prepare` made.

    The files are opened when they are first read, in each process for itself, so that a store may be handed to
    data workers however they are started.

    Attributes:
        path: the zarr folder.
        schema: channels, grid, step and title.
        times: datetime64[m], increasing; evenly spaced unless the store was prepared with ``allow_gaps``.
        source: where the data come from and their license, as far as their makers say.
        symmetries: ``longitude`` and ``equator`` where the data are a simulation that is the same in every direction;
            empty for all other data.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._fields_read: dict[tuple[str | int, ...], np.ndarray] = {}
        attrs = _attributes(self.path)
        self._splits: dict[str, list[str]] = attrs["splits"]
        self.source: str = attrs["source"]
        self.symmetries: tuple[str, ...] = tuple(attrs.get("symmetries", ()))
        with self._readable("coordinates"):
            group = self._group
            _check_whole(self.path, group["fields"])
            self._windows: dict[str, Any] | None = attrs.get("windows")
            times = group["time"][:].astype("datetime64[m]")
            self._rows = np.setdiff1d(np.arange(len(times)), np.asarray(attrs.get("missing", ()), dtype=np.int64))
            self.times = times[self._rows]
            calendar = attrs.get("calendar", STANDARD)  # older stores know no other
            self._day_times = DayTimes(tuple(float(h) for h in group["hour"][:]), Calendar(calendar))
            self.schema = ClimateSchema(
                channels=tuple(str(name) for name in group["channel"][:]),
                statics=tuple(str(name) for name in group["static_name"][:]),
                latitude=tuple(float(v) for v in group["latitude"][:]),
                longitude=tuple(float(v) for v in group["longitude"][:]),
                step_hours=float(attrs["step_hours"]),
                title=attrs["title"],
                calendar=calendar,
                gaps=tuple(attrs.get("gaps", ())),
            )

    @classmethod
    def open(cls, path: str | Path) -> ClimateStore:
        """Opens a store.

        Raises:
            DataError: there is none, it is something else, or it is damaged.
        """
        return cls(Path(path))

    def __getstate__(self) -> dict[str, Any]:
        kept = {key: value for key, value in self.__dict__.items() if key not in ("_group", "statistics")}
        return {**kept, "_fields_read": {}}

    @cached_property
    def _group(self) -> Any:
        return layout.open_group(self.path, "r")

    @cached_property
    def statistics(self) -> ClimateStatistics:
        """Returns the statistics of the whole training period, and the constant fields."""
        with self._readable("statistics"):
            group = self._group
            return ClimateStatistics(
                mean=torch.from_numpy(group["mean"][:]).float(),
                std=torch.from_numpy(group["std"][:]).float(),
                lead_hours=torch.from_numpy(group["lead_time"][:].astype(np.float32)),
                increment_std=torch.from_numpy(group["increment_std"][:]).float(),
                statics=torch.from_numpy(self._statics()),
                target_mean=torch.from_numpy(group["target_mean"][:]).float(),
                target_std=torch.from_numpy(group["target_std"][:]).float(),
                known=self._known(),
            )

    def _known(self) -> Bool[Tensor, "gap latitude longitude"] | None:
        if not self.schema.gaps or "known" not in self._group:  # older stores do not say it
            return None
        return torch.from_numpy(self._group["known"][:].astype(bool))

    def _statics(self) -> np.ndarray:
        shape = (len(self.schema.statics), *self.schema.grid_shape)
        return self._group["static"][:] if self.schema.statics else np.zeros(shape, dtype=np.float32)

    @property
    def augmentation(self) -> str:
        """Returns how samples may be turned without becoming impossible: ``none``, ``roll`` or ``roll_mirror``."""
        return turns(self.symmetries, self.schema)

    def indices(self, split: str) -> np.ndarray:
        """Returns the positions of a split's times, increasing.

        Raises:
            ConfigError: an unknown split.
        """
        if split not in self._splits:
            raise ConfigError(f"unknown split {split!r}", key="split", hint=nearest(split, self._splits))
        first, last = (self.calendar.moment(date) for date in self._splits[split])
        return np.flatnonzero((self.times >= first) & (self.times <= last))

    def period(self, split: str) -> tuple[str, str]:
        """Returns first and last time of a split, as ISO dates."""
        self.indices(split)
        return self._splits[split][0], self._splits[split][1]

    def read(self, indices: np.ndarray | slice) -> np.ndarray:
        """Reads states (n, channel, latitude, longitude) in float32 and physical units at positions in time.

        Raises:
            DataError: the store is damaged there.
        """
        with self._readable("fields"):
            rows = self._rows[indices]
            if self._reader is not None:
                values = self._reader.read(rows)
            else:
                values = layout.read_rows(self._group["fields"], rows)
        lowest = values.min(axis=(2, 3))  # which is NaN where any value is, and makes no copy of them
        wrong = np.isnan(lowest[:, self._whole]).any(axis=1)
        if wrong.any():
            number = int(wrong.argmax())
            when = self.calendar.show(self.times[indices][number])
            lost = np.isnan(lowest[number]) & self._whole
            channel = self.schema.channels[int(lost.argmax())]
            raise DataError(f"{self.path}: {channel} at {when} is gone from the store; prepare it again")
        return np.asarray(values, dtype=np.float32)

    @cached_property
    def _reader(self) -> ChunkReader | None:
        return ChunkReader.of(self._group["fields"])

    @cached_property
    def _whole(self) -> np.ndarray:
        """Says which channels must be known everywhere."""
        return np.array([name not in self.schema.gaps for name in self.schema.channels])

    def climatology(self, valid_times: np.ndarray) -> np.ndarray:
        """Returns mean fields (n, channel, latitude, longitude) by day of year and hour, at hours since 1970."""
        hour, day = self._day_times.locate(_minutes(valid_times))
        flat = [self._climatology_at(int(h), int(d)) for h, d in zip(hour, day, strict=True)]
        return np.stack(flat) if flat else np.empty((0, len(self.schema.channels), *self.schema.grid_shape), np.float32)

    def _climatology_at(self, hour: int, day: int) -> np.ndarray:
        return self._remembered("climatology", (hour, day), self._read_climatology)

    def _read_climatology(self, hour: int, day: int) -> np.ndarray:
        group = self._group
        if self._windows is None:
            return np.asarray(group["climatology"][hour, day])
        days, counts = np.asarray(self._windows["days"]), np.asarray(self._windows["counts"][hour])
        window = DailyWindow(days, counts, self._windows["states_per_day"], self.calendar)

        def read(positions: np.ndarray) -> np.ndarray:
            return np.asarray(group["daily_means"].oindex[hour, positions])

        return window.smooth(day, read, np.asarray(group["hourly_means"][hour]))

    def weekly_climatology(self, valid_times: np.ndarray) -> np.ndarray:
        """Returns mean fields (n, channel, latitude, longitude) by week of the year, at hours since 1970."""
        weeks = self._day_times.week(_minutes(valid_times))
        out = self.mean_climatology(valid_times)  # where the week never occurred
        with self._readable("weekly_climatology"):
            have = np.asarray(self._group["week"][:])
        for week in np.intersect1d(weeks, have):
            row = int(np.searchsorted(have, week))
            out[weeks == week] = self._remembered("weekly_climatology", (row,), self._read_week)
        return out

    def _read_week(self, row: int) -> np.ndarray:
        return np.asarray(self._group["weekly_climatology"][row])

    def _remembered(self, what: str, key: tuple[int, ...], read: Callable[..., np.ndarray]) -> np.ndarray:
        """Returns fields that are read once: every predictor is scored against them, at the same times."""
        if (what, *key) not in self._fields_read:
            with self._readable(what):
                fields = read(*key)
            if (1 + len(self._fields_read)) * fields.nbytes > REMEMBERED_BYTES:
                self._fields_read.clear()
            self._fields_read[what, *key] = fields
        return self._fields_read[what, *key]

    def mean_climatology(self, valid_times: np.ndarray) -> np.ndarray:
        """Returns mean fields of the whole training period (n, channel, latitude, longitude), the same at all times.

        The best climatology there is where there are no seasons, or too few years to know them.
        """
        with self._readable("mean_climatology"):
            mean = np.asarray(self._group["mean_climatology"][:])
        return np.repeat(mean[None], len(valid_times), axis=0)

    def _readable(self, what: str) -> _Readable:
        return _Readable(f"{self.path}: the store's {what} cannot be read, it is damaged")


def turns(symmetries: Sequence[str], schema: ClimateSchema) -> str:
    """Returns how states of a planet may be turned: ``none``, ``roll`` or ``roll_mirror``."""
    if "longitude" not in symmetries or schema.statics or schema.is_region:
        return "none"
    return "roll_mirror" if "equator" in symmetries and is_mirrored(schema.latitude) else "roll"


class _Readable:
    """Turns whatever a damaged zarr makes the libraries raise into one sentence."""

    def __init__(self, message: str) -> None:
        self.message = message

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, (DataError, ConfigError)):
            raise DataError(f"{self.message} ({type(error).__name__}: {error}); prepare it again") from error


def _minutes(hours: np.ndarray) -> np.ndarray:
    """Returns datetime64[m] of hours since 1970; of tensors, too."""
    return np.round(np.asarray(hours, dtype=np.float64) * MINUTES_PER_HOUR).astype("int64").astype("datetime64[m]")


class StoreAttributes(TypedDict):
    """Says what the attributes of a store must have beside those that describe its data."""

    format: str
    version: int


def _attributes(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise DataError(f"{path}: no such store; make one with: {command('prepare', 'path=SOURCE', out=path)}")
    if not layout.is_store(path):
        raise DataError(f"{path}: no climate store; make one with: {command('prepare', 'out=STORE', path=path)}")
    attrs: dict[str, Any] = read_json(path / ".zattrs", StoreAttributes, advice="prepare it again")
    if attrs["version"] != layout.VERSION:
        raise DataError(
            f"{path}: a store of version {attrs['version']}, this program reads {layout.VERSION}; prepare it again"
        )
    return attrs


def _check_whole(path: Path, fields: Any) -> None:
    """Refuses a store that lacks a chunk, which would be read as not a number in the middle of a training."""
    total = int(np.prod([-(-size // chunk) for size, chunk in zip(fields.shape, fields.chunks, strict=True)]))
    there = int(fields.nchunks_initialized)
    if there != total:
        raise DataError(f"{path}: {total - there} of {total} pieces of the store's fields are gone; prepare it again")
