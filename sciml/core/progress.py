"""Shows progress on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")

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
    start = last = time.monotonic()
    count = 0
    for count, item in enumerate(iterable, start=1):
        yield item
        now = time.monotonic()
        if now - last >= PLAIN_INTERVAL_S:
            of_total = f"/{total}" if total else ""
            eta = f", {(total - count) * (now - start) / count:.0f} s left" if total else ""
            print(f"{description}: {count}{of_total}{eta}", file=sys.stderr, flush=True)
            last = now
    print(f"{description}: {count} done in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
