"""Long and large: what grows where nothing should, and whether kills at any moment change what is learned.

``python benchmarks/endurance.py steps`` trains 10,000 small steps and looks at memory and open files on the way;
``report`` draws a report of 20,000 steps; ``kills`` trains by torchrun on changing meshes, kills all ranks ten times
at random moments, and compares the weights with those of a training that was left alone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from sciml.app.cli import main
from sciml.run.compose import compose
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_run
from sciml.testing.sessions import start_session

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "domain=language", "model.embed_dim=16", "model.depth=2", "model.num_heads=2", "model.context=16",
    "task.write_bytes=8", "data.splits={train: 20, valid: 0.3, test: 0.3}", "trainer.num_threads=1",
    "trainer.global_batch_size=4", "trainer.micro_batch_size=2", "trainer.valid_samples=8",
)  # fmt: skip
SMOOTH = ("optim=sgd", "optim.lr=0.05")
"""Adam makes large steps of the rounding in small gradients: what differs between meshes would grow."""
MESHES = ((), ("parallel.dp=2",), ("parallel.tp=2",), ("parallel.pp=2",), ("parallel.shard=2",), ("parallel.sp=2",))
REPORT_EVERY = 2000


class Watch:
    """Notes memory and open files of this process every so many steps."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.seen: list[tuple[int, float, int, int]] = []

    def on_step(self, step: int, record: object) -> None:
        if step % REPORT_EVERY == 0:
            facts = (self.process.memory_info().rss / 2**20, self.process.num_fds(), self.process.num_threads())
            self.seen.append((step, *facts))

    def on_validation(self, step: int, record: object) -> None: ...

    def close(self) -> None: ...


def steps(folder: Path, count: int) -> None:
    """Prints memory, open files and threads along a training."""
    watch = Watch()
    often = (f"trainer.max_steps={count}", "trainer.save_every=200", "trainer.valid_every=500", f"runs_dir={folder}")
    start_session(compose("train", [*TINY, *often])).trainer.fit([watch])
    print("| step | memory, MiB | open files | threads |\n|---|---|---|---|")
    for step, memory, files, threads in watch.seen:
        print(f"| {step:,} | {memory:.1f} | {files} | {threads} |")


def report(folder: Path, count: int) -> None:
    """Prints the seconds and the size of a report with a long history."""
    with contextlib.redirect_stdout(io.StringIO()):
        main("train", [*TINY, "trainer.max_steps=4", f"runs_dir={folder}", "run=one"])
    run = folder / "language" / "one"
    row = {"split": "train", "loss": 2.0, "lr": 1e-3, "grad_norm": 1.0, "epoch": 0.1, "samples_per_s": 100.0}
    lines = [json.dumps({"step": n + 1, **row, "loss": 5.5 - n / count}) + "\n" for n in range(count)]
    (run / "metrics.jsonl").write_text("".join(lines))
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        main("report", [f"run={run}"])
    size = (run / "report.html").stat().st_size / 2**20
    print(f"a report of {count:,} logged steps: {time.perf_counter() - began:.1f} s, {size:.2f} MiB")


def command(folder: Path, name: str, mesh: tuple[str, ...], count: int) -> list[str]:
    """Returns the command that begins a run on a mesh, or resumes it where it has a checkpoint."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if mesh else []
    begun = any((folder / "language" / name / "checkpoints").glob("step-*/checkpoint.json"))
    if not begun:
        shutil.rmtree(folder / "language" / name, ignore_errors=True)
    degrees = [f"parallel.{axis}=1" for axis in ("tp", "pp", "shard", "sp")] + ["parallel.dp=null"]
    chosen = [*(key for key in degrees if not any(key.split("=")[0] in own for own in mesh)), *mesh]
    own = [f"resume={name}"] if begun else [*TINY, *SMOOTH, f"run={name}"]
    keys = [f"trainer.max_steps={count}", "trainer.save_every=10", "trainer.valid_every=100", f"runs_dir={folder}"]
    return [sys.executable, *launcher, str(ROOT / "scripts" / "train.py"), *own, *keys, *chosen]


def kills(folder: Path, count: int, times: int, seed: int, meshes: Sequence[tuple[str, ...]]) -> None:
    """Kills a training at random moments, and prints how far its weights are from those of one that was left alone."""
    draw = random.Random(seed)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    subprocess.run(command(folder, "straight", (), count), check=True, **quiet)
    killed = 0
    while True:
        mesh = meshes[(killed + 1) % len(meshes)]
        process = subprocess.Popen(command(folder, "killed", mesh, count), start_new_session=True, **quiet)
        try:
            process.wait(draw.uniform(6, 25) if killed < times else None)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    child.kill()
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
            continue
        if process.returncode == 0:
            break
        raise SystemExit(f"it failed on {mesh or 'one process'}")
    one, other = (
        load_run(RunFolder(folder / "language" / name), checkpoint="latest") for name in ("straight", "killed")
    )
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    gaps = [(a - b).abs().max().item() for a, b in pairs]
    straight, logged = (
        {r["step"]: r["loss"] for r in run.folder.history() if r["split"] == "train"} for run in (one, other)
    )
    losses = max(abs(logged[step] / straight[step] - 1) for step in straight)
    scale = max(parameter.abs().max().item() for parameter in one.model.parameters())
    weights = max(gaps) / scale
    print(f"{killed} kills, {count} steps: weights differ by {weights:.1e} of the largest, losses by {losses:.1e}")
    print(f"every step is logged once: {len(other.folder.history()) == len(one.folder.history())}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["steps", "report", "kills"])
    parser.add_argument("--count", type=int, default=None)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--one", action="store_true", help="one process all the time, on which weights are equal bit for bit"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        if given.what == "steps":
            steps(Path(place), given.count or 10_000)
        elif given.what == "report":
            report(Path(place), given.count or 20_000)
        else:
            kills(Path(place), given.count or 400, given.times, given.seed, MESHES[:1] if given.one else MESHES)
