"""Large inputs: does memory stay where it should, and how long does it take?

``python benchmarks/large.py fields`` prepares 2 GB of fields within two budgets of memory; ``structures`` prepares
100,000 alloys and trains a few steps on them; ``variables`` trains on 200 variables; ``rollout`` forecasts 10, 100 and
1,000 steps with the committed models. Memory is the most that the process and its children held of their own at once,
without pages of files, which the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import xarray as xr
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write

ROOT = Path(__file__).resolve().parents[1]
SEED = 0
BUDGETS_GB = (0.25, 1.0)
METALS = ("Cu", "Ag", "Au", "Ni", "Pd", "Pt")


def measured(verb: str, *keys: str) -> tuple[float, float]:
    """Runs a verb in a process of its own.

    Returns:
        Its seconds and the most memory that it and its children held, MiB.

    Raises:
        SystemExit: it failed; what it said is printed.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    began, peak = time.perf_counter(), [0.0]
    command = [sys.executable, str(ROOT / "scripts" / f"{verb}.py"), *keys]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
        watcher = threading.Thread(target=_watch, args=(process.pid, peak))
        watcher.start()
        failed = process.wait()
        watcher.join()
        if failed:
            said.seek(0)
            raise SystemExit(f"{' '.join(command[1:])}\n{said.read()}")
    return time.perf_counter() - began, peak[0]


def _watch(pid: int, peak: list[float]) -> None:
    """Keeps the most memory of a process and its children until it ends, MiB."""
    process = psutil.Process(pid)
    while True:
        try:
            family = [process, *process.children(recursive=True)]
            held = [one.memory_info() for one in family]
            peak[0] = max(peak[0], sum(memory.rss - memory.shared for memory in held) / 2**20)
            if process.status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.05)


def synthetic_era5(path: Path, times: int, variables: int, grid: tuple[int, int]) -> None:
    """Writes temperature, and waves that drift with a speed of their own, on ``variables`` levels of a grid."""
    rows, columns = grid
    draw = np.random.default_rng(SEED)
    latitude = np.linspace(90, -90, rows)
    longitude = np.arange(columns) * 360 / columns
    level = np.linspace(1, 1000, variables).round(1)
    speed = draw.uniform(0.5, 2, variables).astype(np.float32)
    hours = np.arange(times, dtype=np.float32) * 6
    profile = (260 + 30 * np.cos(np.deg2rad(latitude))).astype(np.float32)

    def fields(chosen: np.ndarray) -> np.ndarray:
        phase = np.deg2rad(3 * longitude)[None, None, :] + (speed * chosen[:, None] / 24)[:, :, None]
        waves = 5 * np.sin(phase)[:, :, None, :] * np.cos(np.deg2rad(latitude))[None, None, :, None]
        return (profile[None, None, :, None] + waves).astype(np.float32)

    coordinates = {
        "time": np.datetime64("2000-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h"),
        "level": ("level", level, {"units": "hPa"}),
        "latitude": ("latitude", latitude, {"units": "degrees_north"}),
        "longitude": ("longitude", longitude, {"units": "degrees_east"}),
    }
    steps = 100
    for number, start in enumerate(range(0, times, steps)):
        part = {**coordinates, "time": coordinates["time"][start : start + steps]}
        values = (("time", "level", "latitude", "longitude"), fields(hours[start : start + steps]), {"units": "K"})
        xr.Dataset({"t": values}, part).to_netcdf(path / f"part-{number:04}.nc")


def fields(folder: Path) -> None:
    """Prints seconds and memory of preparing 2 GB of fields within different budgets."""
    source = folder / "fields"
    source.mkdir()
    synthetic_era5(source, times=1600, variables=10, grid=(128, 256))
    size = sum(file.stat().st_size for file in source.iterdir()) / 2**30
    print(f"prepare, {size:.2f} GiB of fields:\n\n| max_memory_gb | s | peak memory, MiB |\n|---|---|---|")
    for budget in BUDGETS_GB:
        out = folder / f"store-{budget}.zarr"
        seconds, peak = measured("prepare", f"path={source}", f"out={out}", f"max_memory_gb={budget}")
        print(f"| {budget} | {seconds:.0f} | {peak:.0f} |", flush=True)


def structures(folder: Path, count: int) -> None:
    """Prints seconds and memory of preparing many alloys, and of beginning to train on them."""
    draw = np.random.default_rng(SEED)
    source = folder / "alloys.extxyz"
    with source.open("w") as file:
        for _ in range(count):
            atoms = bulk("Cu", "fcc", a=draw.uniform(3.7, 4.1), cubic=True)
            atoms.set_chemical_symbols(draw.choice(METALS, len(atoms)).tolist())
            atoms.rattle(0.08, rng=draw)
            atoms.calc = EMT()
            atoms.get_forces()
            write(file, atoms, format="extxyz")
    seconds, peak = measured("prepare", "domain=materials", f"path={source}", f"out={folder / 'alloys'}", "cutoff=4.0")
    print(f"prepare of {count:,} structures ({source.stat().st_size / 2**20:.0f} MiB): {seconds:.0f} s, {peak:.0f} MiB")
    keys = ("domain=materials", f"data.path={folder / 'alloys'}", "trainer.max_steps=20", f"runs_dir={folder}")
    seconds, peak = measured("train", *keys, "reference_models=null", "trainer.num_threads=1")
    print(f"twenty steps of training on them, with their scores: {seconds:.0f} s, {peak:.0f} MiB")


def variables(folder: Path, count: int) -> None:
    """Prints seconds and memory of training a few steps on many variables."""
    source = folder / "many"
    source.mkdir()
    synthetic_era5(source, times=400, variables=count, grid=(32, 64))
    keys = ("domain=climate", f"data.path={source}", "trainer.max_steps=20", f"runs_dir={folder}")
    seconds, peak = measured("train", *keys, "reference_models=null", "trainer.num_threads=1")
    print(f"prepare of {count} variables, 20 steps, scores and report: {seconds:.0f} s, {peak:.0f} MiB")


def rollout(folder: Path) -> None:
    """Prints seconds and memory of forecasts of more and more steps."""
    print("| model | steps | s | peak memory, MiB | file, MiB |\n|---|---|---|---|---|")
    for domain, step, unit in (("climate", 24, "h"), ("fluids", 20, "s")):
        for steps in (10, 100, 1000):
            out = folder / f"{domain}-{steps}.nc"
            keys = (f"run={ROOT / 'models' / domain}", f"every={step}{unit}", f"lead_time={steps * step}{unit}")
            seconds, peak = measured("forecast", *keys, f"out={out}")
            print(f"| {domain} | {steps} | {seconds:.0f} | {peak:.0f} | {out.stat().st_size / 2**20:.0f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["fields", "structures", "variables", "rollout"])
    parser.add_argument("--count", type=int, default=None, help="structures (100,000) or variables (200)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if given.what == "fields":
            fields(Path(place))
        elif given.what == "structures":
            structures(Path(place), given.count or 100_000)
        elif given.what == "variables":
            variables(Path(place), given.count or 200)
        else:
            rollout(Path(place))
