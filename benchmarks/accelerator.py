"""Tests and measures one accelerator in at most eight minutes; on a CPU in a small form.

    benchmarks/accelerator.sh                     # the accelerator of this machine
    benchmarks/accelerator.sh --small             # small models: a few minutes on a CPU
    benchmarks/accelerator.sh --items checks md   # some of the items

Each item runs in a process of its own, with a limit of its own, and one that fails or takes too long stops no other.
Whatever happens there is a ``accelerator.json`` and an ``accelerator.md`` in the folder that is told at the end. What
the items do stands in the files beside this one whose names begin alike.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from sciml.core.provenance import now

LIMIT_S = 480
LEAST_S = 5
"""An item for which less is left is left out."""
ITEMS_FILE = Path(__file__).with_name("accelerator_items.py")
LIMITS = {
    "checks": 90, "attention": 40, "vit_115m": 60, "vit_1b": 80, "gpt_1b": 80, "gnn_large": 60, "memory": 60,
    "solver": 40, "md": 60, "climate": 75, "materials": 75, "fluids": 75, "language": 60, "efficiency": 40,
}  # fmt: skip
"""Seconds for each item, in the order in which they run: what matters most and cannot be had elsewhere comes first."""
LAST = "efficiency"
"""Is fitted to what the others have measured, and has its time kept for it."""
KEPT_S = 25


@dataclass
class Outcome:
    """Says what became of an item.

    Attributes:
        state: ``ok``, ``failed``, ``too long`` or ``left out``.
        lines: for the table.
        figures: for programs.
    """

    item: str
    state: str
    seconds: float
    lines: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def run_item(item: str, limit_s: float, device: str, small: bool, before: Path) -> Outcome:
    """Runs an item in a process of its own, and ends that and all it has started when its time is over.

    Args:
        before: file with what became of the items before.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder) / "out.json", Path(folder) / "log.txt"
        command = [sys.executable, str(ITEMS_FILE), item, device, "small" if small else "full", str(before), str(out)]
        with log.open("w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
            try:
                process.wait(limit_s)
                state = "ok" if process.returncode == 0 and out.exists() else "failed"
            except subprocess.TimeoutExpired:
                state = "too long"
            finally:
                _end(process)
        seconds = time.monotonic() - began
        found = json.loads(out.read_text()) if out.exists() else {"lines": [], "figures": {}}
        if state == "failed":
            found["lines"] += [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-1:]
        return Outcome(item, state, round(seconds, 1), found["lines"], found["figures"])


def _end(process: subprocess.Popen) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def run_all(items: Sequence[str], limit_s: float, device: str, small: bool, folder: Path) -> list[Outcome]:
    """Runs items one after the other as long as there is time, and writes what there is after each.

    Args:
        limit_s: for all; above the usual, each item has as many times more.
    """
    end, share = time.monotonic() + limit_s, max(1.0, limit_s / LIMIT_S)
    outcomes: list[Outcome] = []
    for number, item in enumerate(items):
        left = end - time.monotonic() - (KEPT_S if LAST in items[number + 1 :] else 0)
        if left < LEAST_S:
            outcomes.append(Outcome(item, "left out", 0.0, ["no time was left"]))
        else:
            outcomes.append(run_item(item, min(share * LIMITS[item], left), device, small, folder / "accelerator.json"))
        write(outcomes, folder, device, small)
        last = outcomes[-1]
        spent = limit_s - (end - time.monotonic())
        print(f"[{number + 1}/{len(items)}, {spent:.0f} s] {item}: {last.state}", *last.lines, sep="\n    ", flush=True)
    return outcomes


def write(outcomes: Sequence[Outcome], folder: Path, device: str, small: bool) -> None:
    """Writes the document and the table."""
    here = {"machine": machine_here(), "device": device, "small": small, "date": f"{now():%Y-%m-%d %H:%M}"}
    document = {**here, "items": {outcome.item: asdict(outcome) for outcome in outcomes}}
    (folder / "accelerator.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "accelerator.md").write_text(table(outcomes, here))


@cache
def machine_here() -> dict[str, Any]:
    """Returns what is known of this machine."""
    return _asked("from sciml.core.provenance import machine as answer")


def _asked(imported: str, *arguments: str) -> Any:
    """Asks a process of its own, so that this one holds no device."""
    program = f"import json, sys; {imported}; print(json.dumps(answer(*sys.argv[1:])))"
    found = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    if found.returncode:
        sys.exit(found.stderr.strip().splitlines()[-1])
    return json.loads(found.stdout.splitlines()[-1])


def table(outcomes: Sequence[Outcome], here: dict[str, Any]) -> str:
    """Returns the table, in Markdown."""
    accelerators = ", ".join(here["machine"]["accelerators"]) or here["machine"]["processor"]
    shapes = "small shapes" if here["small"] else "full shapes"
    columns = "| item | state | s | result |\n|---|---|---|---|\n"
    head = f"{accelerators}, {here['device']}, {shapes}, {here['date']}\n\n{columns}"
    rows = [f"| {o.item} | {o.state} | {o.seconds:g} | {'<br>'.join(o.lines).replace('|', '/')} |" for o in outcomes]
    return head + "\n".join(rows) + "\n"


def main() -> None:
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true", help="small models; always so on a CPU")
    parser.add_argument("--items", nargs="+", default=list(LIMITS), choices=list(LIMITS))
    parser.add_argument("--limit", type=float, default=LIMIT_S, metavar="SECONDS")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = _asked("from sciml.distributed.world import pick_device as answer", args.device)
    folder = args.out or Path("runs") / "accelerator" / f"{now():%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True, exist_ok=True)
    machine_here()  # takes as long as torch's import
    limit = args.limit - (time.monotonic() - began)
    outcomes = run_all(args.items, limit, device, args.small or device == "cpu", folder)
    print(f"written to {folder}/accelerator.json and {folder}/accelerator.md")
    sys.exit(any(outcome.state != "ok" for outcome in outcomes))


if __name__ == "__main__":
    main()
