"""Files of structures being written, compressed where their name says so."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import IO, Any

SUFFIXES = (".extxyz", ".extxyz.xz")


def open_to_write(path: Path) -> IO[Any]:
    """Opens a file to write bytes to; ``.xz`` is compressed on the way."""
    return lzma.open(path, "wb", preset=9) if path.suffix == ".xz" else path.open("wb")
