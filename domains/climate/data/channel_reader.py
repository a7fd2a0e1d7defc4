"""Reads the chosen channels of a source, checked and on another grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domains.climate.data.accumulation import is_complete, read_over
from domains.climate.data.readers import Source
from domains.climate.data.readers.field import Field
from domains.climate.data.regrid import GridSelection, Regridder
from domains.climate.data.variables import Channel
from domains.climate.data.vocabulary import STANDARD_GRAVITY
from sciml.core.errors import DataError

HIGHEST_GROUND_HPA = 500
"""Pressure levels below this one meet the ground somewhere; models leave them out there, and reanalyses do not."""
LARGEST_GROUND_SHARE = 0.3
LOWEST_TOLD_HPA = 700
"""Pressure levels up to this one are so high everywhere that heights in m cannot be taken for their geopotential."""


@dataclass(frozen=True)
class ChannelReader:
    """Reads states of a source, a few times at a go.

    Attributes:
        channels: in the order in which they are returned.
        regridder: from the source's grid to the wanted one.
        window: minutes over which sums, means and extremes are taken; 0 takes them as they are.
        allow_gaps: whether a channel may have no value at all at some times.
        advice: what to do about such a time where it may not be.
    """

    source: Source
    channels: Sequence[Channel]
    regridder: Regridder | GridSelection
    window: int = 0
    allow_gaps: bool = False
    advice: str = "choose other dates, or say allow_gaps=true"

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Reads fields (time, channel, latitude, longitude) at positions of the source's times.

        Raises:
            DataError: not a number, or a value that cannot be.
        """
        out = np.empty((len(positions), len(self.channels), *self.regridder.shape), dtype=np.float32)
        for name in dict.fromkeys(channel.variable.name for channel in self.channels):
            field = self.source.fields[name]
            mine = [i for i, channel in enumerate(self.channels) if channel.variable.name == name]
            # increasing, as files have them
            mine.sort(key=lambda i: self.channels[i].level or 0)
            levels = np.array([_level_position(field, self.channels[i].level) for i in mine])
            values = read_over(field, positions, levels, self.window)
            for number, i in enumerate(mine):
                self._check(values[:, number], self.channels[i], positions)
            out[:, mine] = self.regridder(values)
        return out

    def known(self) -> np.ndarray:
        """Says at which of the source's times all channels are known: bool (time,)."""
        fields = [(self.source.fields[channel.variable.name], channel.level) for channel in self.channels]
        return np.all([is_complete(field, level, self.window) for field, level in fields], axis=0)

    def bytes_per_time(self) -> int:
        """Returns the memory that reading one time takes, beside its result."""
        rows, columns = self.source.orientation.latitude, self.source.orientation.longitude
        levels = Counter(channel.variable.name for channel in self.channels).most_common(1)[0][1]
        # decoding a variable takes its float64 values, a reordered copy and the float32 result
        return levels * len(rows) * len(columns) * (8 + 8 + 8 + 4 + 4)

    def _check(self, values: np.ndarray, channel: Channel, positions: np.ndarray) -> None:
        """Checks values (time, latitude, longitude) of one channel; a time without any value may be a gap."""
        unknown = np.isnan(values)
        nowhere = unknown.all(axis=(1, 2))
        lowest = np.where(unknown, np.inf, values).min(axis=(1, 2))
        highest = np.where(unknown, -np.inf, values).max(axis=(1, 2))
        low, high = _possible(channel)
        wrong = ~((lowest >= low) & (highest <= high))
        if not (channel.variable.has_gaps or _below_ground(channel, unknown[~nowhere])):
            wrong |= unknown.any(axis=(1, 2))
        wrong = wrong & ~nowhere if self.allow_gaps else wrong | nowhere
        if not wrong.any():
            return
        at = int(wrong.argmax())
        when = self.source.calendar.show(self.source.times[positions[at]])
        file = self.source.fields[channel.variable.name].file_at(int(positions[at]), channel.level)
        what = f"{file}: {channel.variable.name} ({channel.name}) at {when}"
        if nowhere[at]:
            raise DataError(f"{what} is not a number anywhere; {self.advice}")
        if lowest[at] >= low and highest[at] <= high:
            raise DataError(
                f"{what} is not a number in {unknown[at].mean():.1%} of the grid; leave the channel out or choose "
                "other dates"
            )
        is_height = lowest[at] >= channel.variable.valid_range[0] and lowest[at] < low
        question = "are these heights in m" if is_height and low > 0 else "is its unit what the file says"
        raise DataError(
            f"{what} lies between {lowest[at]:.6g} and {highest[at]:.6g} {channel.variable.unit}, outside the "
            f"possible {low:g} to {high:g}; {question}?"
        )


def _possible(channel: Channel) -> tuple[float, float]:
    """Returns between what values of a channel may lie. Heights in m that are called a geopotential would be within
    what is possible at some level, and not at their own.
    """
    low, high = channel.variable.valid_range
    if channel.variable.name == "geopotential" and channel.level is not None and channel.level <= LOWEST_TOLD_HPA:
        usual = 44_330.0 * STANDARD_GRAVITY * (1 - (channel.level / 1013.25) ** 0.1903)  # of the standard atmosphere
        return usual / 3, high
    return low, high


def _below_ground(channel: Channel, unknown: np.ndarray) -> bool:
    """Says whether a pressure level is unknown where it may lie below the ground: in the same places at all times."""
    if channel.level is None or channel.level < HIGHEST_GROUND_HPA or not len(unknown):
        return False
    return bool(unknown.all(axis=0).any() and unknown.mean() <= LARGEST_GROUND_SHARE)


def _level_position(field: Field, level: int | None) -> int:
    return 0 if level is None else field.levels.index(level)
