"""Loops whose rounds all cost the same, of which whoever counts operations need see one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_weigh: ContextVar[Callable[[int], None] | None] = ContextVar("weigh", default=None)


def equal_rounds(count: int) -> Iterator[int]:
    """Yields the numbers of rounds; while operations are counted and not computed, 0 alone, which then stands for all.

    A loop may use this if no backward pass needs what a round computes, and if a round keeps nothing but what it writes
    into memory that was there before.
    """
    weigh = _weigh.get()
    if weigh is None:
        yield from range(count)
        return
    weigh(count)
    yield 0
    weigh(1)


@contextmanager
def counted_rounds(weigh: Callable[[int], None]) -> Iterator[None]:
    """Lets loops of equal rounds make one, telling ``weigh`` how many it stands for."""
    token = _weigh.set(weigh)
    try:
        yield
    finally:
        _weigh.reset(token)
