"""Writes files that are whole or not there, and reads them back checked."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sciml.core.errors import DataError, RunError, SciMLError, UnwritableError
from sciml.core.sentences import misfit


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yields a temporary folder to fill; it replaces ``path`` when the block ends well, else it is removed.

    Raises:
        UnwritableError: where the folder cannot be written.
        RunError: where the disk is full.
    """
    with disk_errors(path):
        make_folder(path.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            temporary.chmod(0o755)
            yield temporary
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary file to write; it replaces ``path`` when the block ends well, else it is removed.

    Raises:
        UnwritableError: where the folder cannot be written.
        RunError: where the disk is full.
    """
    with disk_errors(path):
        make_folder(path.parent)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)  # temporary files are private, and some writers make theirs so too
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Tries to write into a folder, or where it is to be made, before work whose result is to go there.

    Raises:
        UnwritableError: it cannot be written.
        RunError: the disk is full.
    """
    with disk_errors(folder), _places(folder):
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0")
            file.flush()


def make_folder(folder: Path) -> None:
    """Makes a folder, and those that it lies in, unless it is there.

    Raises:
        UnwritableError: it cannot be made there.
        RunError: the disk is full.
    """
    with disk_errors(folder), _places(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def _places(folder: Path) -> Iterator[None]:
    """Says that a folder cannot be made where a file has its name, or where nothing can be made, as below /proc."""
    try:
        yield
    except (FileNotFoundError, FileExistsError) as error:
        raise _unwritable(folder, error) from error


def allocate(path: Path, size: int) -> None:
    """Takes the bytes of a file from the disk, so that writing into a map of it cannot fail: a full disk kills then.

    Raises:
        RunError: where there is no room for it.
    """
    with disk_errors(path), path.open("r+b" if path.exists() else "x+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:  # macOS, whose maps grow on demand
            file.truncate(size)


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON document atomically."""
    write_text(path, json.dumps(document, indent=2, default=str) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path, kind: Any, *, advice: str | None = None) -> Any:
    """Reads a JSON document and checks its form.

    Args:
        kind: the type that it must have, e.g. ``list[str]``, a TypedDict or a dataclass; keys beyond it are kept.
        advice: what to do about a file that is corrupted, for the message.

    Returns:
        The document, of that type.

    Raises:
        DataError: there is no such file, it is no JSON, or it has another form; it says which part is wrong.
    """
    return parse_json(_text_of(path, advice), kind, str(path), advice)


def read_json_lines(path: Path, kind: Any) -> list[Any]:
    """Reads a file with one JSON document a line; a last line without an end is still being written and left out.

    Raises:
        DataError: a line is no JSON or has another form; it says which one.
    """
    lines = [line for line in _text_of(path).splitlines(keepends=True) if line.endswith("\n")]
    return [parse_json(line, kind, f"{path}, line {number},") for number, line in enumerate(lines, start=1)]


def _text_of(path: Path, advice: str | None = None) -> str:
    _refuse_special(path, advice)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _corrupted(str(path), str(error), advice) from None


def parse_json(text: str, kind: Any, where: str, advice: str | None = None) -> Any:
    """Returns a JSON document of a certain form; takes what :func:`read_json` takes.

    Args:
        where: the text stands, for the message.

    Raises:
        DataError: it is no JSON, or has another form.
    """
    from pydantic import ValidationError

    try:
        (document,) = _adapter(kind).validate_python((json.loads(text),))
    except ValidationError as error:  # which is a ValueError, too
        raise _corrupted(where, misfit(error), advice) from None
    except (ValueError, RecursionError) as error:  # also a number of too many digits
        raise _corrupted(where, f"it is no JSON ({error})", advice) from None
    return document


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    # A TypedDict or plain dataclass takes this setting from the type around it only, hence the tuple.
    return TypeAdapter(tuple[kind], config=ConfigDict(extra="allow"))


def _corrupted(where: str, why: str, advice: str | None) -> DataError:
    return DataError(f"{where} is corrupted: {why}{f'; {advice}' if advice else ''}")


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Says in one sentence that a file or folder could not be written; wherever the cause hides in a chain of errors.

    Errors that are a sentence already pass through.

    Raises:
        UnwritableError: where it is for another place, or for want of permission.
        RunError: in place of another error of an operating system, or that of a library that hides it.
    """
    try:
        yield
    except SciMLError:
        raise
    except Exception as error:
        if (refusal := _refusal(error)) is not None:
            raise _unwritable(path, refusal) from error
        reason = _disk_reason(error)
        if reason is None:
            raise
        if not isinstance(error, OSError) and _is_full(path):  # libraries do not tell why a file cannot be written
            reason = FULL
        raise RunError(f"could not write {path}: {reason}; what was there before is kept") from error


def _is_full(path: Path) -> bool:
    there = next(one for one in (path.absolute(), *path.absolute().parents) if os.path.exists(one))
    return shutil.disk_usage(there).free < LEAST_FREE


FULL = "the disk is full"
LEAST_FREE = 2**20
"""Bytes."""
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG)
"""Lists what an operating system says of places where nothing can be made."""


def _refusal(error: BaseException | None) -> OSError | None:
    """Returns the error of an operating system that a place can have no such file, anywhere in a chain of errors."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            return error
        error = error.__cause__ or error.__context__
    return None


def _unwritable(path: Path, error: OSError) -> UnwritableError:
    if error.errno == errno.ENAMETOOLONG:
        return UnwritableError(f"{str(path)[:40]}...", "the name is too long for a file")
    there = next(one for one in (path.absolute(), *path.absolute().parents) if os.path.exists(one))
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return UnwritableError(path, f"{there} is no folder")
    folder = there if there.is_dir() else there.parent
    return UnwritableError(path, f"{os.strerror(error.errno or 0).lower()} in {folder}")


def in_a_sentence(error: BaseException) -> BaseException:
    """Returns an error that a user can mend as a sentence, if the operating system raised it; any other as it is."""
    if isinstance(error, SciMLError) or not isinstance(error, Exception):
        return error
    if isinstance(error, MemoryError):
        return RunError("the memory is not enough; try less at once")
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return DataError(f"{str(error.filename)[:40]}...: the name is too long for a file")
    if isinstance(error, BrokenPipeError | ConnectionError | TimeoutError):
        return error
    if (refusal := _refusal(error)) is not None and refusal.filename:
        return DataError(f"{refusal.filename} cannot be read or written: {os.strerror(refusal.errno or 0).lower()}")
    reason = _disk_reason(error)
    return error if reason is None else RunError(f"a file cannot be read or written: {reason}")


def _disk_reason(error: BaseException | None) -> str | None:
    """Returns what an operating system said; None where the chain of errors has nothing of it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return FULL
        text = str(error)
        if isinstance(error, OSError):
            return text
        if match := _HIDDEN.search(f"{type(error).__name__}: {text}"):
            return FULL if "No space left" in text else match[0]
        error = error.__cause__ or error.__context__
    return None


_HIDDEN = re.compile(r"SafetensorError: .*(I/O|os error).*|RuntimeError: NetCDF: .*|.*No space left on device.*", re.S)
"""Names the errors that libraries make of one of the operating system."""


def read_safetensors(path: Path, framework: Literal["pt", "np"] = "pt", *, advice: str | None = None) -> dict[str, Any]:
    """Reads the tensors of a file by name, as those of torch or arrays of numpy.

    Raises:
        DataError: there is no such file, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors import numpy as numpy_files
    from safetensors import torch as torch_files

    _refuse_special(path, advice)
    try:
        return torch_files.load_file(path) if framework == "pt" else numpy_files.load_file(path)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise _corrupted(str(path), str(error), advice) from None


def _refuse_special(path: Path, advice: str | None) -> None:
    """Refuses what is no plain file: a pipe or a device might never end."""
    if not os.path.isfile(path):  # False also of names that are too long, where Path raises
        what = "is no plain file" if os.path.exists(path) else "is missing"
        raise DataError(f"{path} {what}{f'; {advice}' if advice else ''}")


def sha256(path: Path) -> str:
    """Returns the SHA-256 checksum of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
