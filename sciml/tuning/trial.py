"""A trial: a short training in processes of its own, watched from outside and ended when enough steps were measured."""

from __future__ import annotations

import json
import re
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from sciml.core.files import disk_errors, read_json_lines, write_text
from sciml.core.installation import training
from sciml.core.process_memory import peak_memory
from sciml.distributed.launcher import program, without_launcher
from sciml.training.callbacks import MetricsRow

LOOK_S = 0.25
"""How often a trial is looked at; its processes share the machine with whoever looks."""
MEASURED, FAILED = "measured", "failed"
NEVER = 10**9
_CONSEQUENCE = re.compile(r"rank \d+ is gone")
_EXCEPTION = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b: \S.*")
_NO_MEMORY = re.compile(r"OutOfMemoryError|can't allocate memory|MemoryError|bad_alloc")
_KILLED = re.compile(r"exitcode\s*: -9\b")
_REFUSED = re.compile(r"exitcode\s*: 2\b")
LONGEST = 300
"""Characters of a reason."""


@dataclass(frozen=True)
class Result:
    """Holds the result of a trial.

    Attributes:
        state: ``measured`` or ``failed``.
        reason: why it failed, in one line.
        step_s: median seconds of the steps behind the first few.
        quartiles_s: within them lies half of those steps; wide ones tell of a machine that does other work, too.
        samples_per_s: of all ranks together.
        steps: how many steps were measured.
        parts: median seconds of the first rank's steps, by what they were spent on, as the trainer logs them.
        peak_bytes: most memory of the fullest process on the host.
        took_s: of the whole trial.
    """

    state: str
    reason: str = ""
    step_s: float | None = None
    quartiles_s: tuple[float, float] | None = None
    samples_per_s: float | None = None
    steps: int = 0
    parts: dict[str, float] = field(default_factory=dict)
    peak_bytes: int | None = None
    took_s: float = 0.0


def warm_up(steps: int) -> int:
    """Returns the number of steps at the start of a trial that are not measured: buffers are made, kernels
    chosen, files read.
    """
    return min(5, max(2, steps // 4))


@dataclass(frozen=True)
class Trial:
    """Runs trials.

    Attributes:
        devices: processes.
        global_batch: samples of a step.
        steps: of the training.
        timeout_s: longest time of a trial.
        num_threads: of a process on a CPU.
    """

    devices: int
    global_batch: int
    steps: int
    timeout_s: float
    num_threads: int = 1

    def run(self, arguments: Sequence[str], place: Path) -> Result:
        """Trains for a few steps. Whatever happens is a result; ``PLACE.log`` and ``PLACE.jsonl`` are kept.

        Args:
            arguments: of ``scripts/train.py``.
            place: of a folder for the run, which is removed.
        """
        began = time.monotonic()
        shutil.rmtree(place, ignore_errors=True)
        with disk_errors(place):
            place.mkdir(parents=True)
        alone = without_launcher(self.num_threads)
        watched = _Watched(self._command(arguments, place), alone, place.with_suffix(".log"))
        try:
            late = not watched.until(lambda: len(_steps(place)) >= self.steps, self.timeout_s)
        finally:
            watched.kill()
            rows = _steps(place)
            write_text(place.with_suffix(".jsonl"), "".join(f"{json.dumps(row)}\n" for row in rows))
            shutil.rmtree(place, ignore_errors=True)
        took, peak = time.monotonic() - began, watched.peak_bytes
        if len(rows) >= self.steps:
            summary = _summary(rows[warm_up(self.steps) :], self.global_batch)
            return Result(MEASURED, **summary, peak_bytes=peak, took_s=took)
        if late:
            reason = f"ran past {self.timeout_s:g} s with {len(rows)} of {self.steps} steps done"
        else:
            reason = reason_of(place.with_suffix(".log").read_text(errors="replace"), watched.code)
        return Result(FAILED, reason, steps=len(rows), peak_bytes=peak, took_s=took)

    def _command(self, arguments: Sequence[str], place: Path) -> list[str]:
        quiet = {
            "runs_dir": "'{}'".format(str(place).replace("'", "\\'")),  # as Hydra quotes
            "run": "run",
            "resume": "null",
            "init_from": "null",
            "tracking": "none",
            "reference_models": "null",
            "seeds": 1,
            "output": "text",
            "trainer.max_steps": self.steps,
            "trainer.budget_s": "null",
            "trainer.log_every": 1,
            "trainer.valid_every": NEVER,
            "trainer.save_every": NEVER,
            "trainer.trace_steps": 0,
            "trainer.num_threads": self.num_threads,
        }
        quietly = [f"{key}={value}" for key, value in quiet.items()]
        return [*program(self.devices), *training(), *arguments, *quietly]


class _Watched:
    """Watches a program and all processes that it starts; torchrun puts each of its own into a session for itself."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.peak_bytes: int | None = None
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command, env=dict(env), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        self.seen: set[psutil.Process] = set()
        self._look()

    @property
    def code(self) -> int | None:
        return self.process.returncode

    def until(self, done: Any, timeout_s: float) -> bool:
        """Waits until something is done, or the program has ended; False where the time is up before."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None and not done():
            if time.monotonic() > deadline:
                return False
            self._look()
            time.sleep(LOOK_S)
        self._look()
        return True

    def kill(self) -> None:
        """Ends all of them, however deep."""
        self._look()
        for process in self.seen:
            with suppress(psutil.Error):
                process.kill()
        self.process.wait()
        psutil.wait_procs(list(self.seen), timeout=10)

    def _look(self) -> None:
        with suppress(psutil.Error):
            main = psutil.Process(self.process.pid)
            self.seen |= {main, *main.children(recursive=True)}
        for process in self.seen:
            peak = peak_memory(process)
            if peak is not None:
                self.peak_bytes = max(peak, self.peak_bytes or 0)


def _steps(place: Path) -> list[dict[str, Any]]:
    """Returns the steps of the run in a folder that are logged by now; half a line does not count."""
    for file in place.glob("*/run/metrics.jsonl"):
        return [row for row in read_json_lines(file, MetricsRow) if row["split"] == "train"]
    return []


def _summary(rows: Sequence[Mapping[str, Any]], global_batch: int) -> dict[str, Any]:
    times = [global_batch / row["samples_per_s"] for row in rows]
    first, middle, third = statistics.quantiles(times, method="inclusive")
    parts = {key: statistics.median(row[key] for row in rows) for key in rows[0] if key.startswith("time_")}
    speed = {"step_s": middle, "quartiles_s": (first, third), "samples_per_s": global_batch / middle}
    return {**speed, "steps": len(rows), "parts": parts}


def reason_of(log: str, code: int | None) -> str:
    """Returns why a training ended, in one line, from what its processes said."""
    lines = [line.strip() for line in log.splitlines()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    errors = [re.sub(r" \(rank \d+ on [^)]*\)$", "", line) for line in errors]
    sentences = [line for line in errors if " " in line and not _CONSEQUENCE.match(line)]
    raised = [line for line in lines if _EXCEPTION.match(line) and "ChildFailedError" not in line]
    reason = next(iter([*sentences, *raised, *errors]), "")
    if _NO_MEMORY.search(reason):
        kind = "out of memory"
    elif code == -signal.SIGKILL or _KILLED.search(log):
        kind = "out of memory, or killed"
    else:
        kind = "refused" if code == 2 or _REFUSED.search(log) else f"exit code {code}"
    text = f"{kind}: {reason}" if reason else kind
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
