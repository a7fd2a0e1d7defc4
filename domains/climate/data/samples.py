"""Samples of a store: a state, and the states some hours ahead of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from domains.climate.data.augmentation import Augmentation, AugmentationName
from domains.climate.data.batch import FieldBatch, FieldSample, collate
from domains.climate.data.prepare import PrepareConfig, prepare, store_fingerprint
from domains.climate.data.readers.files import locate
from domains.climate.data.selection import Selection
from domains.climate.data.states import States
from domains.climate.data.store import ClimateStore
from domains.climate.data.zarr_layout import is_store
from sciml.core.duration import as_typed, format_hours
from sciml.core.errors import ConfigError
from sciml.core.types import FilePath, NonNegative, Positive
from sciml.data.files import source_stem

INDEPENDENT_HOURS = 240
"""Time after which weather is no longer like itself: forecasts that begin so far apart are independent cases."""


@dataclass(frozen=True)
class ClimateDataConfig(Selection):
    """Holds the ``data`` keys of a climate run.

    Attributes:
        path: a store, or any source (or several) that :mod:`domains.climate.data.readers` reads, which is then
            prepared once.
        cache: where stores prepared on the way are kept.
        max_memory_gb: memory for preparing.
        preload_gb: a split up to this size is kept in memory, a larger one read as it is needed.
        augment: for planets that are the same at every longitude: ``roll`` turns each sample by a random angle,
            ``roll_mirror`` also swaps the hemispheres at random; ``auto`` does so only where the data say that they
            are such a simulation.
    """

    practical: ClassVar[tuple[str, ...]] = ("path", "cache", "max_memory_gb", "preload_gb")

    key_prefix: ClassVar[str] = "data."

    path: FilePath | list[FilePath] = "data/climate/simulated_archive.zarr"
    cache: FilePath = "data/cache"
    max_memory_gb: Positive[float] = 2.0
    preload_gb: NonNegative[float] = 2.0
    augment: AugmentationName = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ConfigError("no data are named", key="data.path", hint="e.g. data.path=era5.nc")


def open_or_prepare(config: ClimateDataConfig) -> ClimateStore:
    """Opens the store of a run's data; prepares it first where the path is not one already.

    Raises:
        ConfigError: a selection that the data do not have, or one asked of a finished store.
        DataError: missing, damaged or incomplete data.
    """
    store = ClimateStore.open(ensure_store(config.path, config.cache, config, max_memory_gb=config.max_memory_gb))
    if isinstance(config.path, str) and is_store(config.path):
        refuse_selection(config, store)
    return store


def ensure_store(
    path: str | list[str], cache: str | Path, selection: Selection | None = None, *, max_memory_gb: float = 2.0
) -> Path:
    """Returns a store's own path, or that of the store prepared from a source, now or by an earlier run.

    The name in the cache has the source's name and a hash of its files and of the selection, so that changed
    files or choices make a new store. Several processes may ask at once: one prepares, the others wait.
    """
    if isinstance(path, str) and is_store(path):
        return Path(path)
    selection = selection or Selection()
    out = prepared_store(path, cache, selection)
    if not out.exists():
        config = PrepareConfig(path=path, out=str(out), max_memory_gb=max_memory_gb, **selection.selected())
        prepare(config, keep_existing=True)
    return out


def prepared_store(path: str | list[str], cache: str | Path, selection: Selection) -> Path:
    """Returns where the store that is prepared from a source is kept, whether it is there or not.

    Raises:
        DataError: the source is not there.
    """
    return Path(cache) / f"{source_stem(path)}-{store_fingerprint(tuple(locate(path)), selection)}.zarr"


def refuse_selection(config: ClimateDataConfig, store: ClimateStore) -> None:
    """Refuses keys that were decided when a store was made, channels, grid and splits, unless they are what it has."""
    plain, schema = Selection().selected(), store.schema
    own = {"grid": f"{schema.grid_shape[1]}x{schema.grid_shape[0]}", "step": as_typed(schema.step_hours)}
    for name, value in config.selected().items():
        if value not in (plain[name], own.get(name)):
            raise ConfigError(
                f"{config.path} is a finished store and keeps its own {name}",
                key=config.key(name),
                hint="leave it out, or name the source that the store was made of",
            )


class ForecastSource:
    """Pairs a state with what came after it, within one split.

    A path is what lies ahead of a state: hours of one step after the other, e.g. ``(24.0, 24.0, 24.0)``. Each
    initial time is used for which the states of at least one path are in the split. For training a sample is an
    initial time, and its path is drawn evenly from those that it has; for evaluation each initial time goes with
    each path that it has, in order of time.

    Args:
        store: where the states are.
        split: ``train``, ``valid`` or ``test``.
        paths: all with the same number of steps.
        draw: whether paths are drawn at random, as in training; by default for the training split.
        augment: see :class:`ClimateDataConfig`.
        preload_gb: a split up to this size is kept in memory.

    Raises:
        ConfigError: a step that is no multiple of the data's; a path that no part of the split is long enough for;
            an augmentation that the planet does not allow.
    """

    def __init__(
        self,
        store: States,
        split: str,
        paths: Sequence[Sequence[float]],
        *,
        draw: bool | None = None,
        augment: str = "none",
        preload_gb: float = 2.0,
    ) -> None:
        self.store, self.split = store, split
        self.draw = split == "train" if draw is None else draw
        self.paths = _checked_paths(paths, store.schema.step_hours)
        self._ahead = [np.round(60 * np.cumsum(path)).astype(np.int64) for path in self.paths]
        self._positions = store.indices(split)
        self._minutes = store.times[self._positions].astype(np.int64)
        # which initial times have which paths: (path, time)
        self._fits = np.stack([self._has(ahead) for ahead in self._ahead])
        self._check_fits()
        self._starts = np.flatnonzero(self._fits.any(0))
        self._pairs = np.argwhere(self._fits.T)  # (start, path), in order of time
        self._augment = Augmentation(store, augment)
        self._preload = len(self._positions) * store.state_bytes <= preload_gb * 2**30
        self._states = self._load() if self._preload else None

    def _has(self, ahead: np.ndarray) -> np.ndarray:
        """Says for which initial times all states of a path are in the split."""
        wanted = self._minutes[:, None] + ahead
        positions = np.minimum(np.searchsorted(self._minutes, wanted), len(self._minutes) - 1)
        return (self._minutes[positions] == wanted).all(1)

    def _check_fits(self) -> None:
        """Refuses a lead time that is never met; of unevenly spaced times some are bound to be."""
        used = self._fits.any(1)
        if used.all() or (self.draw and not self.store.is_even and used.any()):
            return
        wanted = int(self._ahead[int((~used).argmax())][-1])
        hours = wanted / 60
        first, last = self.store.period(self.split)
        nearest_span = _nearest_span(self._minutes, wanted) / 60
        shorter = (
            f", or the lead time {nearest_span:g}h" if nearest_span else ": one time has nothing to be compared with"
        )
        raise ConfigError(
            f"no two times of the {self.split} split ({first} to {last}) are {format_hours(hours)} apart",
            key=f"data.splits.{self.split}",
            hint=f"make it longer{shorter}",
        )

    def with_paths(self, paths: Sequence[Sequence[float]]) -> ForecastSource:
        """Returns the same split for evaluation on other paths, as far as it is long enough; itself where it is not."""
        minutes = {tuple(path): np.round(60 * np.cumsum(path)).astype(np.int64) for path in paths}
        fitting = [path for path, ahead in minutes.items() if self._has(ahead).any()]
        if not fitting:
            return self
        return ForecastSource(self.store, self.split, fitting, draw=False, preload_gb=math.inf if self._preload else 0)

    def __len__(self) -> int:
        return len(self._starts) if self.draw else len(self._pairs)

    def group(self, index: int) -> str:
        """Returns the ten days that a sample begins in."""
        start = int(self._starts[index]) if self.draw else int(self._pairs[index][0])
        return f"{self._minutes[start] // (60 * INDEPENDENT_HOURS)}"

    def starts(self) -> np.ndarray:
        """Returns the positions in the store of the initial times that have the states of every path."""
        return self._positions[np.flatnonzero(self._fits.all(0))]

    def __getstate__(self) -> dict[str, Any]:
        # a spawned worker reads for itself; a forked one shares the parent's memory
        return {**self.__dict__, "_states": None}

    def _load(self) -> Float[Tensor, "time channel latitude longitude"]:
        return torch.from_numpy(self.store.read(self._positions))

    def _read(self, rows: np.ndarray) -> tuple[Float[Tensor, "time channel latitude longitude"], np.ndarray]:
        """Reads states at positions within the split, each once; returns them and where each of the rows is."""
        if self._preload:
            if self._states is None:
                self._states = self._load()
            return self._states, rows
        once, places = np.unique(rows, return_inverse=True)
        return torch.from_numpy(self.store.read(self._positions[once])), places

    def sample(self, index: int, generator: np.random.Generator) -> FieldSample:
        """Returns one state with the states after each step of its path, in physical units."""
        return self.samples([index], [generator])[0]

    def samples(self, indices: Sequence[int], generators: Sequence[np.random.Generator]) -> list[FieldSample]:
        """Returns several samples, whose states are read together, each once."""
        chosen = [self._rows_of(index, generator) for index, generator in zip(indices, generators, strict=True)]
        states, places = self._read(np.concatenate([own for *_, own in chosen]))
        samples, first = [], 0
        for (start, path, own), generator in zip(chosen, generators, strict=True):
            selected = _chosen(states, places[first : first + len(own)])
            first += len(own)
            drawn = self._augment(selected, generator)
            hours = float(self._minutes[start]) / 60
            noise_seed = int(generator.integers(2**62))
            samples.append(FieldSample(drawn[0], hours, self.paths[path], drawn[1:], noise_seed))
        return samples

    def _rows_of(self, index: int, generator: np.random.Generator) -> tuple[int, int, np.ndarray]:
        """Returns a sample's initial time, its path, and the positions of its states within the split."""
        if self.draw:
            start = int(self._starts[index])
            fitting = np.flatnonzero(self._fits[:, start])
            path = int(fitting[generator.integers(len(fitting))])
        else:
            start, path = (int(number) for number in self._pairs[index])
        rows = np.searchsorted(self._minutes, self._minutes[start] + np.append(0, self._ahead[path]))
        return start, path, rows

    @staticmethod
    def collate(samples: Sequence[FieldSample]) -> FieldBatch:
        return collate(samples)


def _chosen(
    states: Float[Tensor, "time channel latitude longitude"], places: np.ndarray
) -> Float[Tensor, "step channel latitude longitude"]:
    """Returns the states at increasing places, without a copy where these are evenly spaced."""
    strides = np.diff(places)
    if (strides == strides[0]).all():
        return states[places[0] : places[-1] + 1 : strides[0]]
    return states[places]


def _nearest_span(minutes: np.ndarray, wanted: int) -> int:
    """Returns how far apart those two times are, in order of time, whose distance is nearest to one; 0 for one time."""
    after = np.searchsorted(minutes, minutes + wanted)
    spans = [minutes[np.clip(after + shift, 0, len(minutes) - 1)] - minutes for shift in (-1, 0)]
    found = np.concatenate(spans)
    found = found[found > 0]
    return int(found[np.abs(found - wanted).argmin()]) if len(found) else 0


def _checked_paths(paths: Sequence[Sequence[float]], step_hours: float) -> tuple[tuple[float, ...], ...]:
    checked = tuple(tuple(float(hours) for hours in path) for path in paths)
    if not checked or len({len(path) for path in checked}) != 1 or not checked[0]:
        raise ConfigError(
            f"paths must have the same number of steps, got {paths!r}", key="lead_time", hint="e.g. [[24, 24, 24]]"
        )
    for hours in (hours for path in checked for hours in path):
        steps = hours / step_hours
        if steps < 1 - 1e-6 or abs(steps - round(steps)) > 1e-6:
            near = max(1, round(steps)) * step_hours
            raise ConfigError(
                f"lead time {format_hours(hours)} is not a multiple of the data's step of {format_hours(step_hours)}",
                key="lead_time",
                hint=f"nearest: {near:g}h",
            )
    return checked
