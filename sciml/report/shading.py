"""Turns the values of a field into colors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float

ERROR_COLORS = "RdBu_r"
S = TypeVar("S", bound="Shading")


@dataclass(frozen=True)
class Shading:
    """Holds a color map and the values at its ends."""

    cmap: str
    low: float
    high: float

    @classmethod
    def spanning(cls: type[S], cmap: str, *fields: Float[np.ndarray, "..."]) -> S:
        """Returns colors from about the smallest to about the largest finite value."""
        values = _finite(fields)
        low, high = map(float, np.percentile(values, [0.1, 99.9]))
        return cls(cmap, low, high) if high > low else cls(cmap, low - 1, high + 1)

    @classmethod
    def centered(cls: type[S], cmap: str, *fields: Float[np.ndarray, "..."]) -> S:
        """Returns colors as far above zero as below it."""
        size = float(np.percentile(np.abs(_finite(fields)), 99.9)) or 1.0
        return cls(cmap, -size, size)

    @classmethod
    def of_errors(cls: type[S], *fields: Float[np.ndarray, "..."]) -> S:
        """Returns colors white at zero, as far to red as to blue."""
        return cls.centered(ERROR_COLORS, *fields)


def _finite(fields: tuple[np.ndarray, ...]) -> Float[np.ndarray, "value"]:
    values = np.concatenate([np.ravel(field) for field in fields])
    values = values[np.isfinite(values)]
    return values if len(values) else np.zeros(1)
