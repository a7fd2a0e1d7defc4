"""Names keys of reading and preparing as the user of a command types them: ``species``, or ``data.species``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_PREFIX: ContextVar[str] = ContextVar("prefix", default="")


@contextmanager
def keys_under(prefix: str) -> Iterator[None]:
    """Says what stands before the names of keys within, such as ``data.`` in training."""
    token = _PREFIX.set(prefix)
    try:
        yield
    finally:
        _PREFIX.reset(token)


def typed(name: str) -> str:
    """Returns a key as the user types it, for messages."""
    return f"{_PREFIX.get()}{name}"
