"""The one writer of everything that grows on disk and may be interrupted: stores, ensembles, screens.

Work grows in a hidden folder beside its output, with a journal of what is finished. The same work, started again,
goes on from there; other work empties the folder. The output appears whole, by one rename.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from sciml.core.errors import DataError
from sciml.core.files import disk_errors, read_json, write_json
from sciml.data.files import is_remote

JOURNAL = "journal.json"


class Staging:
    """Keeps the hidden folder ``.<name>.partial`` beside an output, and the journal of what is finished in it.

    Args:
        out: the output, a file or a folder.
        identity: all that decides what the output holds, as JSON; a folder that was begun with another one is emptied.

    Attributes:
        folder: the hidden folder.
        journal: entries by name, as :meth:`record` wrote them.

    Raises:
        UnwritableError: the folder cannot be written.
    """

    def __init__(self, out: Path, identity: Any) -> None:
        self.out, self.folder = out, out.with_name(f".{out.name}.partial")
        self.journal: dict[str, Any] = {}
        identity = json.loads(json.dumps(identity, default=str))
        with contextlib.suppress(DataError):  # a journal that is not there or corrupted is as none
            journal = read_json(self.folder / JOURNAL, dict[str, Any])
            if "identity" in journal and journal["identity"] == identity:
                self.journal = journal
                return
        shutil.rmtree(self.folder, ignore_errors=True)
        with disk_errors(out):
            self.folder.mkdir(parents=True)
            self.record(identity=identity)

    @property
    def store(self) -> Path:
        """Returns the folder that :meth:`publish` puts in the output's place."""
        return self.folder / "store"

    @property
    def scratch(self) -> Path:
        """Returns a folder for what is needed on the way only."""
        return self.folder / "scratch"

    def record(self, **entries: Any) -> None:
        """Adds entries to the journal, atomically; call it after what they say is on disk."""
        self.journal.update(entries)
        write_json(self.folder / JOURNAL, self.journal)

    def publish(self) -> None:
        """Puts the finished store in the output's place and removes the staging folder."""
        old = self.out.with_name(f".{self.out.name}.old")
        with disk_errors(self.out):
            if self.out.exists():
                self.out.rename(old)
            self.store.rename(self.out)
        shutil.rmtree(old, ignore_errors=True)
        self.remove()

    def remove(self) -> None:
        """Removes the staging folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


class StagedParts:
    """Makes an output's parts one by one, or in several processes; those that are there are not made again.

    Args:
        out, identity: as in :class:`Staging`.
        suffix: of a part's file, e.g. ``.json``.
    """

    def __init__(self, out: Path, identity: Any, suffix: str) -> None:
        self.staging, self.suffix = Staging(out, identity), suffix

    def path(self, part: int | str) -> Path:
        """Returns the file of a part, by its number or name."""
        name = f"{part:06d}" if isinstance(part, int) else part
        return self.staging.folder / f"{name}{self.suffix}"

    def make(self, make: Callable[[Path, int], None], count: int, workers: int = 0) -> Iterator[int]:
        """Makes the parts that are missing; yields the number of each part, in order.

        Args:
            make: writes the part of a number to a path, whole or not at all; workers must be able to import it.
            count: how many parts there are.
            workers: processes; 0 works in this one.
        """
        one = partial(_make_missing, make, self)
        if workers == 0:
            yield from map(one, range(count))
            return
        import multiprocessing

        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_use_one_thread) as pool:
            yield from pool.map(one, range(count))

    def remove(self) -> None:
        """Removes all parts, once the output is made of them."""
        self.staging.remove()


def _make_missing(make: Callable[[Path, int], None], parts: StagedParts, number: int) -> int:
    path = parts.path(number)
    if not path.exists():
        make(path, number)
    return number


def _use_one_thread() -> None:
    import torch  # whose threads would take the cores from one another

    torch.set_num_threads(1)


def fingerprint(files: Iterable[str], *settings: Any) -> str:
    """Returns a short hash of source files (path, size, time of change) and of settings (JSON).

    Of a folder, such as a zarr store, count the metadata files in it and how full its folders are.
    """
    text = json.dumps([[_describe(file) for file in files], *settings], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _describe(file: str) -> list[Any]:
    if is_remote(file):
        return [file]
    path = Path(file).resolve()
    if path.is_file():
        return [str(path), path.stat().st_size, path.stat().st_mtime_ns]
    metadata = sorted(p for p in path.rglob("*") if p.is_file() and p.name.startswith((".z", "zarr")))
    folders = sorted(p for p in path.iterdir() if p.is_dir())
    sizes = [[p.stat().st_size, p.stat().st_mtime_ns] for p in metadata]
    return [str(path), sizes, [p.stat().st_mtime_ns for p in folders]]
