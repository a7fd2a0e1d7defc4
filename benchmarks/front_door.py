"""How long a user waits: CPU seconds and seconds to the first line of commands that should answer at once.

    python benchmarks/front_door.py            # a table in Markdown

Each command is started three times; the least counts, since other work on a machine only adds to it.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "`sciml --help`": ["--help"],
    "`sciml --version`": ["--version"],
    "`train --help`": ["train", "--help"],
    "`train --help model`": ["train", "--help", "model"],
    "a wrong key": ["train", "max_steps=3"],
    "a wrong key of the data": ["train", "data.file=x.nc"],
    "a wrong domain": ["train", "domain=weather"],
    "a wrong run": ["forecast", "run=nothing"],
    "`runs` where there is none": ["runs"],
    "`doctor processes=0`": ["doctor", "processes=0"],
    "`checkpoint run=models/climate`": ["checkpoint", "run=models/climate"],
    "`forecast run=models/climate`": ["forecast", "run=models/climate", "lead_time=72h"],
    "`predict run=models/materials`": [
        "predict",
        "run=models/materials",
        f"structures={ROOT / 'data' / 'materials' / 'alloys.extxyz'}",
    ],
    "`forecast run=models/fluids`": [
        "forecast",
        "run=models/fluids",
        f"data.path={ROOT / 'data' / 'fluids' / 'flow.nc'}",
        "lead_time=200s",
    ],
}


def measured(words: list[str]) -> tuple[float, float, float]:
    """Returns CPU seconds, seconds to the first output, and seconds in all of a command in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "sciml", *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert process.stdout is not None
        process.stdout.read(1)
        first = time.monotonic() - began
        process.stdout.read()
        process.wait(timeout=600)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, first, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    times = parser.parse_args().times
    print("| command | CPU s | s to the first line | s in all |\n|---|---:|---:|---:|")
    for name, words in COMMANDS.items():
        runs = [measured(words) for _ in range(times)]
        print(f"| {name} | {' | '.join(f'{min(column):.2f}' for column in zip(*runs, strict=True))} |", flush=True)


if __name__ == "__main__":
    main()
