"""Says how pictures name a channel, and in which unit weather maps have it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from domains.climate.data.variables import channel_title, channel_unit, parse_channel
from domains.climate.data.vocabulary import STANDARD_GRAVITY
from sciml.report.scores import format_value
from sciml.report.style import pretty_unit

USUAL_UNITS = {"Pa": ("hPa", 0.01), "m": ("mm", 1000.0), "kg kg-1": ("g kg-1", 1000.0)}
"""By unit of the store: the usual one, and how many of it that is. Water is all that is stored in m."""


@dataclass(frozen=True)
class Shown:
    """Describes a channel in a picture.

    Attributes:
        title: in words, e.g. ``Geopotential height at 500 hPa``.
        unit: the usual one, as text.
        scale: how many of it are one of the unit in stores and scores.
        stored_unit: the unit in stores and scores, as text.
    """

    title: str
    unit: str
    scale: float
    stored_unit: str

    def of(self, field: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Returns values of a store in the usual unit."""
        return np.asarray(field * self.scale)

    def error_text(self, error: float) -> str:
        """Returns an error in the usual unit, with that in the unit of scores beside it where it differs."""
        usual = f"{format_value(error * self.scale)} {self.unit}"
        return usual if self.scale == 1 else f"{usual} ({format_value(error)} {self.stored_unit})"


def shown(name: str) -> Shown:
    """Returns how pictures show a channel."""
    stored, title = channel_unit(name), channel_title(name)
    if parse_channel(name).variable.name == "geopotential":
        title, unit, scale = title.replace("Geopotential", "Geopotential height"), "dam", 0.1 / STANDARD_GRAVITY
    else:
        unit, scale = USUAL_UNITS.get(stored, (stored, 1.0))
    return Shown(title, pretty_unit(unit), scale, pretty_unit(stored))
