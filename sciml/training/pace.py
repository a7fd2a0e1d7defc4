"""How fast steps follow one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


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


def seconds_of(history: Sequence[Mapping[str, Any]], batch: int) -> float | None:
    """Returns the seconds that the steps of a training took; None where no pace was logged.

    Paces differ within a training, as where rollouts grow: each logged one is that of the steps since the one before,
    and the steps behind the last are taken to go on at its pace.

    Args:
        history: rows of ``metrics.jsonl``; a validation tells that its step was reached.
        batch: samples of a step over all ranks.
    """
    total, before, step_s = 0.0, 0, None
    for row in history:
        if row.get("samples_per_s"):
            step_s = batch / row["samples_per_s"]
            total += (row["step"] - before) * step_s
            before = row["step"]
    return None if step_s is None else total + (max(row["step"] for row in history) - before) * step_s
