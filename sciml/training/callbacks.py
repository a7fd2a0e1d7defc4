"""Views of a running training: they hear what happens and change nothing."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from typing_extensions import TypedDict

from sciml.core.files import disk_errors, read_json_lines, write_text
from sciml.core.progress import NotebookBar, in_notebook


class Callback(Protocol):
    """Describes an observer of a training run; the record of a step whose result was not read is empty."""

    def on_step(self, step: int, record: Mapping[str, Any]) -> None: ...

    def on_validation(self, step: int, record: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


def is_logged(step: int, every: int) -> bool:
    """Says whether a step's record goes into the log: the first step's, and that of every so many steps after it."""
    return step == 1 or step % every == 0


class MetricsRow(TypedDict):
    """Says what every line of ``metrics.jsonl`` must have; the rest are numbers by name."""

    step: int
    split: str


class MetricsLog:
    """Writes ``metrics.jsonl``, one JSON object a line: the truth about a run.

    On resume, lines of steps that will be done again are removed first.
    """

    def __init__(self, path: Path, *, every: int, resume_step: int = 0) -> None:
        self.every, self.path = every, path
        if path.exists():
            rows = read_json_lines(path, MetricsRow)
            write_text(path, "".join(f"{json.dumps(row)}\n" for row in rows if row["step"] <= resume_step))
        with disk_errors(path):
            self.file = path.open("a", buffering=1, encoding="utf-8")

    def on_step(self, step: int, record: Mapping[str, Any]) -> None:
        if is_logged(step, self.every):
            self._write({"step": step, "split": "train", **record})

    def on_validation(self, step: int, record: Mapping[str, Any]) -> None:
        self._write({"step": step, "split": "valid", **record})

    def close(self) -> None:
        with disk_errors(self.path):
            self.file.close()

    def _write(self, row: Mapping[str, Any]) -> None:
        with disk_errors(self.path):
            self.file.write(json.dumps(row) + "\n")


class ProgressView:
    """Shows step, loss, samples/s, TFLOP/s of a device, most memory and time left: a live bar on a terminal, one line
    that changes in a notebook, plain lines elsewhere.
    """

    PLAIN_INTERVAL_S = 10.0

    def __init__(self, max_steps: int, start_step: int = 0) -> None:
        self.max_steps, self.start_step = max_steps, start_step
        self.began = self.last_line = time.monotonic()
        self.loss = self.rate = math.nan
        self.valid = self.memory = self.flops = ""
        self.bar = _rich_bar(max_steps, start_step) if sys.stderr.isatty() else None
        self.notebook = NotebookBar() if self.bar is None and in_notebook() else None

    def on_step(self, step: int, record: Mapping[str, Any]) -> None:
        if "memory_peak_gb" in record:
            self.memory = f"  {record['memory_peak_gb']:.1f} GB"
        if "tflops_per_device" in record:
            self.flops = _flops(record)
        if record:
            self.loss, self.rate = record["loss"], record["samples_per_s"]
        text = f"loss {self.loss:.4f}{self.valid}  {self.rate:.0f} samples/s{self.flops}{self.memory}"
        if self.bar is not None:
            progress, task = self.bar
            progress.update(task, completed=step, info=text)
            return
        now = time.monotonic()
        left = (now - self.began) / (step - self.start_step) * (self.max_steps - step)
        line = f"step {step}/{self.max_steps}  {text}  {left:.0f} s left"
        if self.notebook is not None:
            self.notebook.show(line, step / self.max_steps, at_once=step == self.max_steps)
            return
        if now - self.last_line >= self.PLAIN_INTERVAL_S or step in (self.start_step + 1, self.max_steps):
            self.last_line = now
            print(line, file=sys.stderr, flush=True)

    def on_validation(self, step: int, record: Mapping[str, Any]) -> None:
        if record:  # none where there are no validation samples
            self.valid = f"  valid {record['loss']:.4f}"

    def close(self) -> None:
        if self.bar is not None:
            self.bar[0].stop()


def _flops(record: Mapping[str, Any]) -> str:
    """Returns what a device computes, and the share of its peak where that is known."""
    share = f" ({100 * record['mfu']:.0f}% MFU)" if "mfu" in record else ""
    return f"  {record['tflops_per_device']:.3g} TFLOP/s{share}"


def _rich_bar(max_steps: int, start_step: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    progress = Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[info]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    task = progress.add_task("training", total=max_steps, completed=start_step, info="starting")
    progress.start()
    return progress, task
