"""Files that are whole or not there: written beside their place, then renamed into it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sciml.core.errors import RunError


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A temporary sibling to fill; it takes the place of ``path`` when the block ends well, else it is removed.

    Raises:
        RunError: where the disk is full or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    temporary.chmod(0o755)
    try:
        with disk_errors(path):
            yield temporary
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary sibling to write; it takes the place of ``path`` when the block ends well, else it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        with disk_errors(path):
            yield temporary
            temporary.chmod(0o644)  # temporary files are private, and some writers make theirs so too
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON document atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2, default=str) + "\n")


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Says in one sentence that a file could not be written; wherever the cause hides in a chain of errors."""
    try:
        yield
    except Exception as error:
        cause = _os_error(error)
        if cause is None:
            raise
        reason = "the disk is full" if cause.errno in (errno.ENOSPC, errno.EDQUOT) else str(cause)
        raise RunError(f"could not write {path}: {reason}; what was there before is kept") from error


def _os_error(error: BaseException | None) -> OSError | None:
    while error is not None:
        if isinstance(error, OSError):
            return error
        error = error.__cause__ or error.__context__
    return None


def sha256(path: Path) -> str:
    """The checksum of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
