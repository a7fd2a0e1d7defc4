"""Signals that end a training: collected on each rank, obeyed by all together behind the same step."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

from sciml.distributed.world import World

VOTE_S = 1.0
"""Seconds between votes, about: a vote makes every rank wait for all others."""


class Stopping:
    """Collects SIGTERM and SIGINT instead of dying of them, in a ``with`` block; a second SIGINT is obeyed at once.

    A second SIGTERM is not: launchers and schedulers may each send one.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._received: list[int] = []
        self._previous: dict[int, Any] = {}
        self._next_vote = 0

    def __enter__(self) -> Stopping:
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received.append(number)

    def agreed(self, step: int, step_s: float) -> bool:
        """Says whether all ranks stop behind this step, since any of them was told to.

        Ranks vote at the first step and then about once a second, by the pace of the slowest.

        Args:
            step_s: seconds of a step on this rank.
        """
        if self.world.size == 1:
            return bool(self._received)
        if step < self._next_vote:
            return False
        stopping, slowest = self.world.greatest([float(bool(self._received)), step_s])
        self._next_vote = step + max(1, int(VOTE_S / max(slowest, 1e-6)))
        return bool(stopping)
