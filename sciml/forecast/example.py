"""One forecast with the truth beside it, as pictures of forecasts need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

ARRAYS = ("forecast", "truth", "initial")


@dataclass(frozen=True, kw_only=True)
class ForecastExample:
    """Holds a rollout from one state on a grid.

    Attributes:
        lead_times: hours, increasing, all above 0.
        truth: None where it is not known; not a number at lead times at which it is not known any more.
    """

    lead_times: Float[np.ndarray, "lead"]
    forecast: Float[np.ndarray, "lead variable row column"]
    initial: Float[np.ndarray, "variable row column"]
    truth: Float[np.ndarray, "lead variable row column"] | None = None

    @staticmethod
    def arrays_of(values: Mapping[str, np.ndarray], *more: str) -> dict[str, Any]:
        """Returns the fields of an example that are among some values, and more of them by name, in float64."""
        return {name: np.asarray(values[name], np.float64) for name in (*ARRAYS, *more) if name in values}

    def nearest_lead(self, hours: float | None) -> int:
        """Returns the position of the lead time nearest to the wanted one; where none is wanted, the last one at which
        the forecast can be compared.
        """
        return self.last_compared if hours is None else int(np.abs(self.lead_times - hours).argmin())

    @property
    def last_compared(self) -> int:
        """Returns the position of the last lead time whose truth is known; of the last one where none is."""
        known = np.zeros(len(self.lead_times), bool) if self.truth is None else np.isfinite(self.truth).any((1, 2, 3))
        return int(np.flatnonzero(known)[-1]) if known.any() else len(self.lead_times) - 1

    def leads_up_to(self, last: int) -> list[int]:
        """Returns the first, a middle and the last position, each once."""
        return sorted({0, last // 2, last})

    @property
    def frame_times(self) -> Float[np.ndarray, "frame"]:
        """Returns the lead times in hours, with that of the initial state before them."""
        return np.concatenate([[0.0], self.lead_times])

    def runs(self) -> dict[str, Float[np.ndarray, "frame variable row column"]]:
        """Returns truth, where known, and forecast, each with the initial state before it."""
        known = {"truth": self.truth, "forecast": self.forecast}
        return {name: np.concatenate([self.initial[None], run]) for name, run in known.items() if run is not None}
