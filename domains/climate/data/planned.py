"""States for a plan: their channels, grid and times are known, and nothing of what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from domains.climate.data.augmentation import Augmentation
from domains.climate.data.readers import Source
from domains.climate.data.readers.files import locate
from domains.climate.data.regrid import LatLonGrid
from domains.climate.data.samples import (
    ClimateDataConfig,
    ForecastSource,
    prepared_store,
    refuse_selection,
)
from domains.climate.data.schema import ClimateSchema, ClimateStatistics
from domains.climate.data.selection import SPLITS
from domains.climate.data.states import States
from domains.climate.data.statistics import increment_leads
from domains.climate.data.store import ClimateStore, turns
from domains.climate.data.store_layout import make_plan, wanted_names
from domains.climate.data.zarr_layout import is_store
from sciml.core.duration import parse_hours
from sciml.core.errors import DataError

USUAL_STEP = "6h"
"""Hours between two times of data that are not there and whose step is not given."""
ASSUMED_DAYS = 365
"""Length of each split of such data."""


class PlannedStates(States):
    """Describes states that a training would have; none can be read."""

    def __init__(
        self, schema: ClimateSchema, times: np.ndarray, splits: Mapping[str, np.ndarray], augmentation: str
    ) -> None:
        self.schema, self.times, self._splits, self._augmentation = schema, times, splits, augmentation

    @property
    def statistics(self) -> ClimateStatistics:
        """Returns numbers of the right shapes: zeros and ones."""
        channels, leads = len(self.schema.channels), increment_leads(self.times[self.indices("train")].astype(np.int64))
        return ClimateStatistics(
            mean=torch.zeros(channels),
            std=torch.ones(channels),
            lead_hours=torch.from_numpy((leads / 60.0).astype(np.float32)),
            increment_std=torch.ones(len(leads), channels),
            statics=torch.zeros(len(self.schema.statics), *self.schema.grid_shape),
        )

    @property
    def augmentation(self) -> str:
        return self._augmentation

    def indices(self, split: str) -> np.ndarray:
        return self._splits[split]

    def read(self, indices: np.ndarray | slice) -> np.ndarray:
        raise AssertionError("a plan reads no fields")


class PlannedForecasts(ForecastSource):
    """Gives samples of the shapes that a training's have, on the meta device."""

    def __init__(self, store: States, split: str, paths: Any, *, augment: str = "none", **options: Any) -> None:
        Augmentation(store, augment)  # refuses what a training would refuse
        super().__init__(store, split, paths, **{**options, "preload_gb": 0.0})

    def _read(self, rows: np.ndarray) -> tuple[Float[Tensor, "time channel latitude longitude"], np.ndarray]:
        schema = self.store.schema
        states = torch.empty(len(rows), len(schema.channels), *schema.grid_shape, device="meta")
        return states, np.arange(len(rows))


def planned_states(config: ClimateDataConfig) -> PlannedStates:
    """Describes the states of a run's data: a store's by its coordinates, a source's by the headers of its files, and
    those of data that are not there by the keys, where these name channels and grid.

    Raises:
        ConfigError: a selection that the data do not have, or one asked of a finished store.
        DataError: data that are missing or damaged.
    """
    if isinstance(config.path, str) and is_store(config.path):
        store = ClimateStore.open(config.path)
        refuse_selection(config, store)
        return _of_store(store)
    try:
        locate(config.path)
    except DataError as error:
        if config.channels is None or config.grid is None:
            advice = "to plan without data, say data.channels=[z500,t850,...] and data.grid=1440x721"
            raise DataError(f"{error}; {advice}") from None
        return _of_keys(config)
    prepared = prepared_store(config.path, config.cache, config)
    return _of_store(ClimateStore.open(prepared)) if prepared.exists() else _of_source(config)


def _of_store(store: ClimateStore) -> PlannedStates:
    splits = {name: store.indices(name) for name in SPLITS}
    return PlannedStates(store.schema, store.times, splits, store.augmentation)


def _of_source(config: ClimateDataConfig) -> PlannedStates:
    plan = make_plan(Source.open(config.path, config.member, wanted_names(config)), config)
    splits = {name: np.arange(first, last + 1) for name, (first, last) in plan.splits.items()}
    schema = ClimateSchema(
        tuple(channel.name for channel in plan.channels),
        plan.statics,
        tuple(map(float, plan.grid.latitude)),
        tuple(map(float, plan.grid.longitude)),
        plan.step_hours,
        plan.source.title,
        plan.source.calendar.name,
    )
    return PlannedStates(schema, plan.times, splits, turns(plan.source.symmetries, schema))


def _of_keys(config: ClimateDataConfig) -> PlannedStates:
    """Takes the Earth, for as many days in each split as any lead time needs."""
    assert config.channels is not None
    assert config.grid is not None
    hours = parse_hours(config.step or USUAL_STEP)
    grid = LatLonGrid.parse(config.grid)
    latitude, longitude = (tuple(map(float, degrees)) for degrees in (grid.latitude, grid.longitude))
    schema = ClimateSchema(tuple(config.channels), tuple(config.statics or ()), latitude, longitude, hours)
    count = round(24 * ASSUMED_DAYS / hours)
    times = np.datetime64("2000-01-01", "m") + np.arange(3 * count) * np.timedelta64(round(60 * hours), "m")
    splits = {name: np.arange(number * count, (number + 1) * count) for number, name in enumerate(SPLITS)}
    return PlannedStates(schema, times, splits, "none")
