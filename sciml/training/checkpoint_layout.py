"""Where checkpoints lie in a folder; imports nothing, so that a run can be looked at without torch."""

from __future__ import annotations

from pathlib import Path

MANIFEST = "checkpoint.json"


def steps_in(directory: Path) -> list[int]:
    """Returns the steps of the complete checkpoints, increasing; folders with other names are passed over."""
    names = (file.parent.name.removeprefix("step-") for file in directory.glob(f"step-*/{MANIFEST}"))
    return sorted(int(name) for name in names if name.isascii() and name.isdecimal() and name == f"{int(name):08d}")


def step_of(checkpoint: Path) -> int:
    """Returns the step of a checkpoint by the name of its folder."""
    return int(checkpoint.name.removeprefix("step-"))
