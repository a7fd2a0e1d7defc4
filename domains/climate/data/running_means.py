"""Means of fields in bins, whose cells may have no value at some times."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


class RunningMeans:
    """Keeps means of fields in bins, of each cell over the times at which it has a value.

    Args:
        bins: shape of the bins, e.g. (hour, day).
        shape: (channel, latitude, longitude).
        make: makes an array of zeros of a name and a shape.

    Attributes:
        mean: (*bins, channel, latitude, longitude); 0 where there is none.
        count: (*bins), of fields.
        unknown: of channels with gaps: in how many fields each cell has no value (*bins, latitude, longitude).
    """

    def __init__(
        self, name: str, bins: tuple[int, ...], shape: tuple[int, int, int], make: Callable[..., np.ndarray]
    ) -> None:
        self._name, self._make = name, make
        self.mean, self.count = make(f"{name}.npy", (*bins, *shape)), np.zeros(bins)
        self.unknown: dict[int, np.ndarray] = {}

    def add(self, at: tuple[int, ...], field: np.ndarray, gaps: Sequence[int]) -> None:
        """Adds a field (channel, latitude, longitude) to a bin.

        Args:
            gaps: channels of the field that are not a number somewhere.
        """
        self.count[at] += 1
        if not gaps:
            self.mean[at] += (field - self.mean[at]) / self.known(at, field)
            return
        for channel in gaps:
            if channel not in self.unknown:
                shape = (*self.count.shape, *field.shape[1:])
                self.unknown[channel] = self._make(f"{self._name}_unknown_{channel}.npy", shape)
            self.unknown[channel][at] += np.isnan(field[channel])
        change = np.where(np.isnan(field), 0.0, field - self.mean[at])
        self.mean[at] += change / np.maximum(self.known(at, field), 1)

    def known(self, at: tuple[int, ...], like: np.ndarray) -> np.ndarray | float:
        """Returns how many values each cell of a bin has, one number where all have as many."""
        if not self.unknown:
            return float(self.count[at])
        counts = np.full(like.shape, self.count[at])
        for channel, unknown in self.unknown.items():
            counts[channel] -= unknown[at]
        return counts

    def value(self, at: tuple[int | slice, ...]) -> np.ndarray:
        """Returns the means of one bin or of several (..., channel, latitude, longitude), not a number where there is
        none.
        """
        mean, count = np.array(self.mean[at]), np.asarray(self.count[at])[..., None, None]
        for channel, unknown in self.unknown.items():
            mean[..., channel, :, :][unknown[at] >= count] = np.nan
        return mean
