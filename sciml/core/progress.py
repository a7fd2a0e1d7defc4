"""Shows progress: a live bar on a terminal, one line that changes in a notebook, plain lines on stderr elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TypeVar

T = TypeVar("T")

FIRST_S = 2.0
"""After this time something is said of what takes longer."""
PLAIN_INTERVAL_S = 10.0
NOTEBOOK_INTERVAL_S = 0.5


class NotebookBar:
    """Shows a bar and a line of text in a notebook, below the cell that runs; each update takes the place of the last,
    and so a saved notebook keeps one line.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self._last = 0.0

    def show(self, text: str, share: float, *, at_once: bool = False) -> None:
        """Replaces what is shown, unless that is half a second old at most.

        Args:
            share: of the work that is done, from 0 to 1.
            at_once: whether it is shown however young the last one is.
        """
        now = time.monotonic()
        if not at_once and now - self._last < NOTEBOOK_INTERVAL_S:
            return
        self._last = now
        from html import escape

        from IPython.display import display

        bar = f'<progress value="{share:.4f}" max="1" style="width: 12em"></progress> <code>{escape(text)}</code>'
        shown = {"text/plain": text, "text/html": bar}
        if self._handle is None:
            self._handle = display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)


def in_notebook() -> bool:
    """Says whether this process is the kernel of a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yields the items of an iterable and shows how far it is.

    Args:
        iterable: what to go through.
        description: what is being done, shown in front of the bar.
        total: number of items, where ``len(iterable)`` does not tell it.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    show = _live if sys.stderr.isatty() else _in_notebook if in_notebook() else _plain
    yield from show(iterable, description, total)


def _live(iterable: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(iterable, description, total=total, console=Console(stderr=True))


def _in_notebook(iterable: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    bar, start, count = NotebookBar(), time.monotonic(), 0
    for item in iterable:
        bar.show(f"{description}: {count}{f'/{total}' if total else ''}", count / total if total else 0.0)
        yield item
        count += 1
    bar.show(f"{description}: {count} done in {time.monotonic() - start:.0f} s", 1.0, at_once=True)


def _plain(iterable: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    start, count, on_those = time.monotonic(), 0, 0.0

    def now(spent: float) -> str:
        known = total and count
        left = f"{seconds_left(spent, count, total or 0, on_those):.0f} s left" if known else f"{spent:.0f} s"
        return f"{description}: {count}{f'/{total}' if total else ''}, {left}"

    with _telling(now):
        for item in iterable:
            yield item
            count += 1
            on_those = time.monotonic() - start
    print(f"{description}: {count} done in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def seconds_left(spent: float, done: int, total: int, on_those: float) -> float:
    """Returns how long the rest takes, if each item takes as long as those that are done.

    Args:
        spent: seconds since the beginning.
        done: items, of a total.
        on_those: seconds that they took; an item that takes long does not make those behind it longer.
    """
    one = on_those / done
    return max(total * one - spent, (total - done - 1) * one)


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
