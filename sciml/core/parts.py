"""Work done in parts that an interrupted run need not do again: a hidden folder beside what is made of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from sciml.core.files import write_json

SETTINGS = "settings.json"


class Parts:
    """The folder ``.<name>.parts`` beside an output; emptied where it was made with other settings.

    Args:
        out: what will be made of the parts.
        settings: everything that decides what is in them; JSON.
        suffix: of a part's file, e.g. ``.json``.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], suffix: str) -> None:
        self.folder, self.suffix = out.with_name(f".{out.name}.parts"), suffix
        told = json.loads(json.dumps(settings))
        kept = self.folder / SETTINGS
        if self.folder.exists() and not (kept.exists() and json.loads(kept.read_text()) == told):
            shutil.rmtree(self.folder)
        if not self.folder.exists():
            write_json(kept, told)

    def path(self, number: int) -> Path:
        """Of a part."""
        return self.folder / f"{number:06d}{self.suffix}"

    def make(self, make: Callable[[Path, int], None], count: int, workers: int = 0) -> Iterator[int]:
        """Makes the parts that are not there yet; yields the number of each.

        Args:
            make: writes the part of a number to a path, whole or not at all; workers must be able to import it.
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
        """When all is made of them."""
        shutil.rmtree(self.folder)


def _make_missing(make: Callable[[Path, int], None], parts: Parts, number: int) -> int:
    path = parts.path(number)
    if not path.exists():
        make(path, number)
    return number


def _use_one_thread() -> None:
    import torch  # whose threads would take the cores from one another

    torch.set_num_threads(1)
