"""How fast steps follow one another."""

from __future__ import annotations


class Pace:
    """Measures steps from one reading of results to the next: only then is an accelerator known to be done with them.

    Attributes:
        step_s: mean seconds of the steps before the last reading; infinite before the first.
        data_wait: the share of them in which the host waited for samples.
    """

    def __init__(self) -> None:
        self.step_s, self.data_wait = float("inf"), 0.0
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0

    def add(self, seconds: float, waited: float) -> None:
        """Takes notice of a step, of which the host has spent some seconds waiting for samples."""
        self._steps, self._seconds, self._waited = self._steps + 1, self._seconds + seconds, self._waited + waited

    def read(self, seconds: float) -> None:
        """Takes notice of a reading, for which the host has waited some seconds."""
        self._seconds += seconds
        self.step_s, self.data_wait = self._seconds / self._steps, self._waited / self._seconds
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
