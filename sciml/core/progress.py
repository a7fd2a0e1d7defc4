"""Shows progress on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")

FIRST_S = 2.0
"""After this time something is said of what takes longer."""
PLAIN_INTERVAL_S = 10.0


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yields the items of an iterable and shows how far it is.

    Args:
        iterable: what to go through.
        description: what is being done, shown in front of the bar.
        total: number of items, where ``len(iterable)`` does not tell it.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    yield from (_live if sys.stderr.isatty() else _plain)(iterable, description, total)


def _live(iterable: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(iterable, description, total=total, console=Console(stderr=True))


def _plain(iterable: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    start, count = time.monotonic(), 0

    def now(spent: float) -> str:
        left = f"{(total - count) * spent / count:.0f} s left" if total and count else f"{spent:.0f} s"
        return f"{description}: {count}{f'/{total}' if total else ''}, {left}"

    with _telling(now):
        for item in iterable:
            yield item
            count += 1
    print(f"{description}: {count} done in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


@contextlib.contextmanager
def waiting(description: str) -> Iterator[None]:
    """Says now and then that something is still being done, of which no parts can be counted."""
    with _telling(lambda spent: f"{description}: {spent:.0f} s"):
        yield


@contextlib.contextmanager
def _telling(now: Callable[[float], str]) -> Iterator[None]:
    """Prints a line about what is being done, from a thread, so that one long part is no silence either.

    Args:
        now: makes the line, of the seconds since the beginning.
    """
    start, ended = time.monotonic(), threading.Event()

    def tell() -> None:
        wait = FIRST_S
        while not ended.wait(wait):
            print(now(time.monotonic() - start), file=sys.stderr, flush=True)
            wait = PLAIN_INTERVAL_S

    threading.Thread(target=tell, daemon=True, name="progress").start()
    try:
        yield
    finally:
        ended.set()
