"""One forecast of the weather with all that pictures of it need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from domains.climate.data.boundary import score_weights
from domains.climate.data.calendar import Calendar
from domains.climate.data.schema import ClimateSchema
from sciml.forecast.example import ForecastExample

SHOWN_CHANNELS = ("z500", "t850", "t2m", "u10", "msl")
"""In curves, those that the field looks at first."""


@dataclass(frozen=True, kw_only=True)
class WeatherExample(ForecastExample):
    """Holds a rollout from one initial time, on latitude and longitude.

    Attributes:
        init_time: hours since 1970-01-01 00:00 UTC.
        land_sea_mask: share of land; None where there is none to draw coasts from.
        frame: the cells of a region that are given and not predicted; None where there are none.
        std: standard deviation of each channel in the training; None where it is not at hand.
    """

    schema: ClimateSchema
    init_time: float
    land_sea_mask: Float[np.ndarray, "latitude longitude"] | None = None
    frame: Bool[np.ndarray, "latitude longitude"] | None = None
    std: Float[np.ndarray, "variable"] | None = None

    @classmethod
    def of(cls, schema: ClimateSchema, values: Mapping[str, np.ndarray]) -> WeatherExample | None:
        """Returns the example of arrays named as the attributes; None where there is no forecast among them."""
        if "forecast" not in values:
            return None
        arrays = cls.arrays_of(values, "lead_times", "land_sea_mask", "std")
        frame = np.asarray(values["frame"], dtype=bool) if "frame" in values else None
        return cls(schema=schema, init_time=float(np.ravel(values["init_time"])[0]), frame=frame, **arrays)

    def channel(self, name: str) -> int:
        """Returns the position of a channel."""
        return self.schema.channels.index(name)

    def valid_text(self, lead_hours: float) -> str:
        """Returns both times as text: ``from 2017-01-01 02:00, valid 2017-01-04 02:00 UTC (72 h)``."""
        return f"from {self._time(0.0)}, valid {self._time(lead_hours)} UTC ({lead_hours:g} h)"

    def _time(self, lead_hours: float) -> str:
        time = np.datetime64(round((self.init_time + lead_hours) * 60), "m")
        return Calendar(self.schema.calendar).show(time).replace("T", " ")

    def rmse(self, error: Float[np.ndarray, "latitude longitude"]) -> float:
        """Returns the area-weighted root mean square of one map, of a region inside of its given edges."""
        squares = np.asarray(error) ** 2
        known = np.isfinite(squares)
        weights = np.where(known, score_weights(self.schema, self.frame), 0.0)
        return float(np.sqrt((weights * np.where(known, squares, 0.0)).sum() / weights.sum()))

    @property
    def scored_part(self) -> str:
        """Says in words of pictures of which part of a map an error is the mean."""
        return "" if self.frame is None else "inside the given edges"


def choose(channels: tuple[str, ...], preferred: tuple[str, ...], most: int) -> list[str]:
    """Returns at most so many channels, the preferred ones first, then in the order of the schema."""
    ranked = [name for name in preferred if name in channels]
    return (ranked + [name for name in channels if name not in ranked])[:most]
