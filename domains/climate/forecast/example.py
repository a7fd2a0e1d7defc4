"""One forecast with all that pictures of it need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from domains.climate.data.schema import ClimateSchema, cell_area_weights
from domains.climate.data.variables import parse_channel


@dataclass(frozen=True)
class ForecastExample:
    """A rollout from one initial time.

    Attributes:
        init_time: hours since 1970-01-01 00:00 UTC.
        lead_times: hours, increasing, all above 0.
        truth: None where it is not known.
        land_sea_mask: share of land; None where there is none to draw coasts from.
    """

    schema: ClimateSchema
    init_time: float
    lead_times: Float[np.ndarray, "lead"]
    forecast: Float[np.ndarray, "lead channel latitude longitude"]
    truth: Float[np.ndarray, "lead channel latitude longitude"] | None
    initial: Float[np.ndarray, "channel latitude longitude"]
    land_sea_mask: Float[np.ndarray, "latitude longitude"] | None = None

    @classmethod
    def of(cls, schema: ClimateSchema, values: Mapping[str, np.ndarray]) -> ForecastExample | None:
        """From arrays named as the attributes; None where there is no forecast among them."""
        if "forecast" not in values:
            return None
        names = ("lead_times", "forecast", "truth", "initial", "land_sea_mask")
        arrays: dict[str, Any] = {name: np.asarray(values[name], np.float64) for name in names if name in values}
        arrays.setdefault("truth", None)
        return cls(schema=schema, init_time=float(np.ravel(values["init_time"])[0]), **arrays)

    def nearest_lead(self, hours: float | None) -> int:
        """Position of the lead time nearest to the wanted one; the last one where none is wanted."""
        return len(self.lead_times) - 1 if hours is None else int(np.abs(self.lead_times - hours).argmin())

    def channel(self, name: str) -> int:
        """Position of a channel."""
        return self.schema.channels.index(name)

    def valid_text(self, lead_hours: float) -> str:
        """``2017-01-04 02:00 UTC, lead 72 h``."""
        minutes = round((self.init_time + lead_hours) * 60)
        time = np.datetime64(0, "m") + np.timedelta64(minutes, "m")
        return f"{str(time).replace('T', ' ')} UTC, lead {lead_hours:g} h"

    def rmse(self, error: Float[np.ndarray, "latitude longitude"]) -> float:
        """Area-weighted root mean square of one map."""
        weights = cell_area_weights(self.schema.latitude)[:, None]
        return float(np.sqrt((weights * np.asarray(error) ** 2).mean()))


def long_name(channel: str) -> str:
    """The long name with the level: ``2m_temperature``, ``geopotential_500``."""
    parsed = parse_channel(channel)
    return parsed.variable.name if parsed.level is None else f"{parsed.variable.name}_{parsed.level}"


def choose(channels: tuple[str, ...], preferred: tuple[str, ...], most: int) -> list[str]:
    """At most so many channels, the preferred ones first, then in the order of the schema."""
    ranked = [name for name in preferred if name in channels]
    return (ranked + [name for name in channels if name not in ranked])[:most]
