"""A trace of a few training steps, on request: what ran when, on the host, the device and the wires."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import profiler

from sciml.core.files import disk_errors, write_text

NUM_ROWS = 25


class Trace:
    """Traces some steps of a run with torch.profiler.

    A callback for every rank: the first steps, in which memory is set up and kernels are compiled, are left alone, and
    the profiler warms up during one more. Then ``trace-rank<r>.json.gz`` (open it in Perfetto or chrome://tracing)
    and ``trace-rank<r>.txt``, a table of the operators that took longest, appear in the folder. A run that ends
    earlier leaves what it has got by then.

    Args:
        folder: of the run.
        rank: number of this process.
        steps: how many to trace; 0 traces nothing and costs nothing.
        after: steps before, at least 2.
    """

    def __init__(self, folder: Path, rank: int, steps: int, after: int = 3) -> None:
        self.path = folder / f"trace-rank{rank}.json.gz"
        self.table = folder / f"trace-rank{rank}.txt"
        self.steps, self.after = steps, max(after, 2)
        self.done = 0
        self.profiler: profiler.profile | None = None

    def step(self) -> None:
        """Takes notice of the end of each training step."""
        self.done += 1
        if self.steps == 0 or self.done > self.after + self.steps:
            return
        if self.done == self.after - 1:
            schedule = profiler.schedule(wait=0, warmup=1, active=self.steps, repeat=1)
            self.profiler = profiler.profile(schedule=schedule, on_trace_ready=self._write, acc_events=True)
            self.profiler.start()
        elif self.profiler is not None:
            self.profiler.step()

    def on_step(self, step: int, record: Mapping[str, Any]) -> None:
        self.step()

    def on_validation(self, step: int, record: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        """Ends the tracing, and writes what was traced of a run that ended early."""
        if self.profiler is not None:
            self.profiler.stop()
            self.profiler = None

    def _write(self, traced: profiler.profile) -> None:
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            traced.export_chrome_trace(str(self.path))
        order = "self_device_time_total" if torch.accelerator.is_available() else "self_cpu_time_total"
        write_text(self.table, traced.key_averages().table(sort_by=order, row_limit=NUM_ROWS) + "\n")
