"""Time steps, and after which of them a frame is written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Says when a simulation steps and writes.

    Attributes:
        step: time step, s; a last one may be shorter.
        duration: s.
        interval: between frames, s.
    """

    step: float
    duration: float
    interval: float

    @classmethod
    def uniform(cls, largest_step: float, frames: int, interval: float) -> Schedule:
        """Returns a schedule of frames at exact multiples of an interval, the first at the start.

        Args:
            largest_step: that is stable, s; the step that is taken divides the interval.
        """
        return cls(interval / math.ceil(interval / largest_step), (frames - 1) * interval, interval)

    def original(self) -> Iterator[tuple[float, float, bool]]:
        """Counts as the original does: frames fall on steps, and where they fall depends on rounding.

        Yields:
            The step, the time after it, and whether a frame is written then.
        """
        time, since_frame = 0.0, 0.0
        while time < self.duration:
            step = min(self.step, self.duration - time) if time + self.step > self.duration else self.step
            time += step
            since_frame += step
            written = since_frame >= self.interval
            if written:
                since_frame -= self.interval
            yield step, time, written

    def exact(self) -> Iterator[tuple[float, float, bool]]:
        """Yields steps at times that are products, not sums, so that nothing drifts. The step divides the interval."""
        steps = round(self.interval / self.step)
        for number in range(1, round(self.duration / self.interval) * steps + 1):
            written = number % steps == 0
            yield self.step, number // steps * self.interval + number % steps * self.step, written
