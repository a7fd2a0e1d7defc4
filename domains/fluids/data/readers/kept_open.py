"""Files that stay open from one frame to the next."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

from sciml.core.errors import DataError


def kept_open(open_file: Callable[[str], Any]) -> Callable[[str], Any]:
    """Returns an opener whose files stay open; one that has changed is opened anew, and so does every process.

    Raises:
        DataError: by the opener, besides what it raises itself, where a file is missing.
    """

    @lru_cache(maxsize=32)
    def opened(file: str, changed: int, size: int, process: int) -> Any:
        return open_file(file)

    @wraps(open_file)
    def open_or_reuse(file: str) -> Any:
        try:
            facts = Path(file).stat()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror})") from error
        return opened(file, facts.st_mtime_ns, facts.st_size, os.getpid())

    return open_or_reuse
