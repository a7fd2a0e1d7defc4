"""Text as bytes: files opened without reading them, and cut into parts that never overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

import numpy as np

from domains.language.data_config import TextSplits
from sciml.core.errors import ConfigError, DataError

NUM_BYTES = 256


@dataclass(frozen=True)
class Passage:
    """Selects successive bytes of a file, read as they are needed.

    Attributes:
        path: the file.
        start, stop: the first byte, and the one behind the last.
    """

    path: Path
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def read(self, first: int = 0, count: int | None = None) -> np.ndarray:
        """Returns bytes from the passage's ``first`` on, uint8; all by default."""
        stop = len(self) if count is None else min(first + count, len(self))
        return np.memmap(self.path, np.uint8, "r", self.start + first, (stop - first,))


@dataclass(frozen=True)
class Blank:
    """Stands for a passage of which nothing but the length matters."""

    length: int
    path: Path = Path("blank")

    def __len__(self) -> int:
        return self.length

    def read(self, first: int = 0, count: int | None = None) -> np.ndarray:
        """Returns zero bytes, as many as a passage would."""
        return np.zeros(self.length - first if count is None else count, np.uint8)


def find_files(patterns: Sequence[str]) -> list[Path]:
    """Returns the files that patterns name, each once and in the order of the patterns.

    Raises:
        ConfigError: where one names none.
        DataError: for a file that is empty.
    """
    paths: dict[Path, None] = {}
    for pattern in patterns:
        names = sorted(glob(pattern, recursive=True)) if has_magic(pattern) else [pattern]
        files = [Path(name) for name in names if Path(name).is_file()]
        if not files:
            what = "is a folder" if Path(pattern).is_dir() else "does not exist" if names else "fits no file"
            hint = f"e.g. data.path='{pattern}/*.txt'" if Path(pattern).is_dir() else "name a text file, e.g. book.txt"
            raise ConfigError(f"{pattern} {what}", key="data.path", hint=hint)
        paths |= dict.fromkeys(files)
    for file in paths:
        if not file.stat().st_size:
            raise DataError(f"{file} is empty: there is no text to learn from")
    return list(paths)


def cut(files: Sequence[Path], splits: TextSplits) -> dict[str, list[Passage]]:
    """Returns the passages of each split: a part of every file, in the order train, valid, test."""
    shares = np.array([splits.train, splits.valid, splits.test])
    ends = np.concatenate([[0.0], np.cumsum(shares) / shares.sum()])
    passages: dict[str, list[Passage]] = {name: [] for name in ("train", "valid", "test")}
    for file in files:
        bounds = [round(end * file.stat().st_size) for end in ends]
        for name, start, stop in zip(passages, bounds, bounds[1:], strict=False):
            if stop > start:
                passages[name].append(Passage(file, start, stop))
    return passages
