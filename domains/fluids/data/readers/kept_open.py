"""Files that stay open from one frame to the next."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from sciml.core.errors import DataError

MOST = 32


def kept_open(open_file: Callable[[str], Any]) -> Callable[[str], Any]:
    """Returns an opener whose files stay open; one that has changed is opened anew, and so does every process.

    Of more than ``MOST`` the one that was not asked for longest is closed here and now. It refers to itself, and would
    else be closed whenever Python looks for such cycles: on any thread, while HDF5, which is not safe for threads, may
    be at work on another.

    Raises:
        DataError: by the opener, besides what it raises itself, where a file is missing.
    """
    files: OrderedDict[tuple[str, int, int, int], Any] = OrderedDict()

    @wraps(open_file)
    def open_or_reuse(file: str) -> Any:
        try:
            facts = Path(file).stat()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror})") from error
        key = (file, facts.st_mtime_ns, facts.st_size, os.getpid())
        if key not in files:
            files[key] = open_file(file)
            if len(files) > MOST:
                files.popitem(last=False)[1].close()
        files.move_to_end(key)
        return files[key]

    return open_or_reuse
