"""Locks an output on disk for one process: ranks of a job that all want the same store wait for the first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from sciml.core.errors import ConfigError
from sciml.core.files import disk_errors, make_folder


@contextlib.contextmanager
def exclusive(out: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds a lock beside ``out``; the file goes away with the last holder.

    Raises:
        BlockingIOError: where another process holds it and ``wait`` is false.
        UnwritableError: where its folder cannot be written.
    """
    import fcntl

    lock = out.with_name(f".{out.name}.lock")
    while True:
        with _opened(lock, out) as file:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            # the process before removed the file when it was done: then this lock guards nothing
            if not lock.exists() or os.fstat(file.fileno()).st_ino != lock.stat().st_ino:
                continue
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _opened(lock: Path, out: Path) -> IO[str]:
    with disk_errors(out):
        make_folder(lock.parent)
        return lock.open("w")


@contextlib.contextmanager
def lock_output(out: Path, is_store: Callable[[Path], bool], *, overwrite: bool, keep_existing: bool) -> Iterator[bool]:
    """Locks the place where a store is to be made against other processes.

    Args:
        is_store: whether what is there is a store, of the kind that is made.
        overwrite: whether such a store may be replaced.
        keep_existing: whether one that another process has made in the meantime is good as it is.

    Yields:
        Whether there is work to do.

    Raises:
        ConfigError: something is there that must not be replaced.
        UnwritableError: the folder cannot be written.
    """
    if not keep_existing:
        _refuse_existing(out, is_store, overwrite)
    with exclusive(out):
        done = keep_existing and is_store(out)
        if not done:
            _refuse_existing(out, is_store, overwrite)
        yield not done


def _refuse_existing(out: Path, is_store: Callable[[Path], bool], overwrite: bool) -> None:
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} is there already", key="out", hint="choose another name or say overwrite=true")
    if out.exists() and not is_store(out):
        raise ConfigError(f"{out} is no store of ours and is not overwritten", key="out", hint="choose another name")
