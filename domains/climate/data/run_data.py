"""Opens data for a trained run: its own store, or any others in its terms."""

from __future__ import annotations

import sys

from domains.climate.data.readers import Source
from domains.climate.data.samples import ClimateDataConfig, open_or_prepare
from domains.climate.data.selection import by_share
from domains.climate.data.states import OtherStates
from domains.climate.data.store import ClimateStore
from domains.climate.data.zarr_layout import is_store
from sciml.core.errors import SciMLError
from sciml.domain.protocol import FittedData


def is_own(config: ClimateDataConfig, fitted: FittedData) -> bool:
    """Says whether keys name the very data that a run was trained on."""
    own = fitted.data
    return own is None or (config.path == own.path and config.selected() == own.selected())


def states_of(config: ClimateDataConfig, fitted: FittedData) -> OtherStates:
    """Opens data that a run was not trained on, on its channels and grid; nothing is prepared.

    Raises:
        DataError: missing or damaged data, or a channel of the run that is not there.
    """
    schema, statistics = fitted.schema, fitted.statistics
    if isinstance(config.path, str) and is_store(config.path):
        return OtherStates.from_store(ClimateStore.open(config.path), config.path, schema, statistics)
    dates = not by_share(config.splits) and config.splits != fitted.data.splits
    source = Source.open(config.path, config.member)
    return OtherStates.from_source(source, schema, statistics, config if dates else None)


def reference_of(fitted: FittedData) -> ClimateStore | None:
    """Opens the store that a run was trained on, for its climatologies and its ridge regression; None where it
    cannot be had, which is said.
    """
    try:
        return open_or_prepare(fitted.data)
    except SciMLError as error:
        print(f"without climatologies and ridge, because the run's own data cannot be had: {error}", file=sys.stderr)
        return None
