"""New results, which appear whole, under a name that no other process takes meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sciml.core.errors import ConfigError
from sciml.core.files import disk_errors, make_folder


@dataclass
class NewOutput:
    """Holds a result that is being made.

    Attributes:
        temporary: the file or folder to write, under a hidden name; it ends as the result's name does.
        path: where the result is, once it is done.
    """

    temporary: Path
    path: Path


@contextlib.contextmanager
def new_output(
    out: str | None, folder: Path, stem: str, suffixes: Sequence[str], *, key: str = "out"
) -> Iterator[NewOutput]:
    """Makes a result under a hidden name, and gives it its own when the block ends well; else it is removed.

    Args:
        out: the name that a user wants; None takes the next number in the folder, as in ``forecast-002.zarr``.
        folder: of results without a name.
        stem: of their names, without the number.
        suffixes: that a name may have, the usual one first.
        key: of ``out``, for messages.

    Raises:
        ConfigError: the name has another suffix, or is taken, now or when the result is done.
        UnwritableError: the folder cannot be written, which is tried first.
    """
    wanted = None if out is None else Path(out)
    suffix = suffixes[0] if out is None else next((suffix for suffix in suffixes if out.endswith(suffix)), None)
    if suffix is None:
        example = f"{Path(str(out)).stem}{suffixes[0]}"
        raise ConfigError(f"{out!r} does not end in {' or '.join(suffixes)}", key=key, hint=f"for example {example}")
    if wanted is not None and wanted.exists():
        raise _taken(wanted, key)
    parent = folder if wanted is None else wanted.parent
    target = wanted or parent / f"{stem}{suffix}"
    made = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    with disk_errors(target):
        make_folder(parent)
        hidden = Path(tempfile.mkdtemp(prefix=f".{target.stem}-", dir=parent))
        hidden.chmod(0o755)
    try:
        output = NewOutput(hidden / target.name, target)
        yield output
        with disk_errors(target):
            if wanted is None:
                output.path = _numbered(output.temporary, parent / stem, suffix)
            else:
                output.path = _named(output.temporary, wanted, key)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        for folder in made:  # which are empty where nothing came of it
            with contextlib.suppress(OSError):
                folder.rmdir()


def numbered_folder(parent: Path) -> Path:
    """Makes a new folder whose name is the next number, as in ``003``.

    Raises:
        UnwritableError: it cannot be made.
    """
    with disk_errors(parent):
        make_folder(parent)
        numbers = [int(entry.name) for entry in parent.iterdir() if entry.name.isdecimal()]
        for number in itertools.count(1 + max(numbers, default=0)):
            with contextlib.suppress(FileExistsError):
                path = parent / f"{number:03d}"
                path.mkdir()
                return path
    raise AssertionError("numbers do not end")


def _named(made: Path, path: Path, key: str) -> Path:
    try:
        _claim(made, path)
    except FileExistsError:
        raise _taken(path, key) from None
    return made.rename(path)


def _numbered(made: Path, name: Path, suffix: str) -> Path:
    """Gives a result the next number that is free, beyond all that are taken."""
    taken = [entry.name.removeprefix(f"{name.name}-").split(".")[0] for entry in name.parent.glob(f"{name.name}-*")]
    for number in itertools.count(1 + max((int(text) for text in taken if text.isdecimal()), default=0)):
        path = name.with_name(f"{name.name}-{number:03d}{suffix}")
        with contextlib.suppress(FileExistsError):
            _claim(made, path)
            return made.rename(path)
    raise AssertionError("numbers do not end")


def _claim(made: Path, path: Path) -> None:
    """Takes a name for a file or folder that is to replace what takes it.

    Raises:
        FileExistsError: where it is taken.
    """
    if made.is_dir():
        path.mkdir()
    else:
        path.touch(exist_ok=False)


def _taken(path: Path, key: str) -> ConfigError:
    return ConfigError(f"{path} is there already", key=key, hint="choose another name, or remove it first")
