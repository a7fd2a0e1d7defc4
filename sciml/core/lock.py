"""One process at a time: ranks of a job that all want the same store wait for the first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def exclusive(out: Path) -> Iterator[None]:
    """Holds a lock beside ``out``; the file goes away with the last holder."""
    import fcntl

    lock = out.with_name(f".{out.name}.lock")
    while True:
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # the one before took the file away when it was done: then this lock guards nothing
            if not lock.exists() or os.fstat(file.fileno()).st_ino != lock.stat().st_ino:
                continue
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return
