"""Tells how much memory a process has, and how much it had at most."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil


def peak_memory(process: psutil.Process) -> int | None:
    """Returns the most memory that a process had, in bytes: Linux remembers it; elsewhere what the process has now.

    Returns:
        None where the process has ended.
    """
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    with suppress(psutil.Error):
        return process.memory_info().rss
    return None
