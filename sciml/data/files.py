"""From a path as users give it to files: one, several, a folder, a pattern."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from sciml.core.errors import DataError, nearest

LONGEST_NAME = 255


def is_remote(path: str) -> bool:
    """Says whether a path is an address such as ``gs://bucket/era5.zarr``."""
    return "://" in path


def source_stem(path: str | Sequence[str]) -> str:
    """Returns what an output is named after: ``era5`` for ``/data/era5.nc`` and for ``gs://bucket/era5.zarr``; the
    first of several.
    """
    if not isinstance(path, str):
        path = path[0]
    name = path.rstrip("/").rsplit("/", 1)[-1]
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name.split(".")[0]) or "data"


def locate(
    path: str | Sequence[str],
    *,
    in_folder: Callable[[Path], Sequence[str]],
    kinds: str,
    is_whole: Callable[[str], bool] = lambda path: Path(path).is_file(),
) -> list[str]:
    """Returns the files that a path stands for, sorted.

    Args:
        path: a file, a folder, a pattern such as ``runs/*/vasprun.xml``, or several of them.
        in_folder: the files of a folder that are data.
        kinds: what these are, for a message: ``flows (.nc, .am)``.
        is_whole: whether a path is taken as it is; what matches a pattern is taken where this is true.

    Raises:
        DataError: there is none.
    """
    if not isinstance(path, str):
        files = [f for part in path for f in locate(str(part), in_folder=in_folder, kinds=kinds, is_whole=is_whole)]
        if not files:
            raise DataError("no data files were named; write data.path=FILE")
        return files
    if max(len(os.fsencode(name)) for name in path.split("/")) > LONGEST_NAME and not is_remote(path):
        raise DataError(f"{path[:40]}...: a name in it is longer than {LONGEST_NAME} bytes, no file has that")
    if is_whole(path):
        return [path]
    if glob.has_magic(path):
        files = [file for file in sorted(glob.glob(path, recursive=True)) if is_whole(file)]
        if not files:
            raise DataError(f"no file matches {path}")
        return files
    if Path(path).is_dir():
        files = list(in_folder(Path(path)))
        if not files:
            raise DataError(f"{path}: the folder has no {kinds} in it")
        return files
    raise _missing(path)


def _missing(path: str) -> DataError:
    """Says why there is no file or folder of a name, with the name beside it that is nearest."""
    if Path(path).exists():
        return DataError(f"{path}: is neither a file nor a folder; name one that can be read")
    if Path(path).is_symlink():
        return DataError(f"{path}: is a link to {os.readlink(path)}, which is not there")
    parent = Path(path).parent
    hidden = Path(path).name.startswith(".")
    beside = [name for name in _names_in(parent) if hidden or not name.startswith(".")]
    advice = f"; {nearest(Path(path).name, beside)}" if beside else ""
    advice = advice if parent.is_dir() else f" (there is no folder {parent} either)"
    return DataError(f"{path}: no such file or folder{advice}")


def _names_in(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    except OSError:
        return []  # a folder whose files may be read, and not listed
