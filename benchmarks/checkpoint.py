"""Measures how fast checkpoints are written and read, and how long training stands still for one.

    python benchmarks/checkpoint.py                      # 256 MiB on 1, 2 and 4 processes
    python benchmarks/checkpoint.py --mib 4096 --processes 1 8 --folder scratch

The same state, cut over the processes, is saved and read back several times; the median counts. Speeds are of the
whole state, checksums and fsync included. `write` of an asynchronous store lasts from the call of `save` to the end of
`finish` and `stall` is the time until `save` returns; `beside` is the time of a matrix product while a checkpoint is
written, relative to an idle machine. `plain` is torch's own HuggingFaceStorageWriter followed by checksums of its file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from sciml.core.files import sha256
from sciml.distributed.launcher import leave
from sciml.distributed.world import World
from sciml.training.checkpoint import CheckpointStore, read_manifest, read_tensors

NUM_TENSORS, COLUMNS = 48, 1024
TIMEOUT_S = 280


def state(mib: int, world: World) -> dict[str, torch.Tensor]:
    """Returns float32 tensors of ``mib`` MiB over all processes."""
    rows = mib * 2**20 // (NUM_TENSORS * COLUMNS * 4 * world.size)
    local = {f"layer{i}.weight": torch.randn(rows, COLUMNS) for i in range(NUM_TENSORS)}
    if world.size == 1:
        return dict(local)
    mesh = init_device_mesh("cpu", (world.size,))
    return {name: DTensor.from_local(value, mesh, [Shard(0)]) for name, value in local.items()}


def timed(world: World, work: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """Returns the median seconds of five calls after a warm-up, until the last process is done."""
    seconds = []
    for _ in range(6):
        before()
        world.barrier()
        began = time.perf_counter()
        work()
        world.barrier()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def product(seconds: float = 1.0) -> float:
    """Returns the mean seconds of a matrix product, over as many as fit into some seconds."""
    matrix = torch.randn(512, 512)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        matrix @ matrix
        count += 1
    return (time.perf_counter() - began) / count


def measure(folder: Path, mib: int, world: World) -> dict[str, float]:
    tensors = state(mib, world)
    store = CheckpointStore(folder / "saved", world, keep_last=1)
    rows = {"write": timed(world, lambda: store.save(1, tensors))}
    path = store.path(1)
    rows["verify"] = timed(world, lambda: read_manifest(path, store.group))
    rows["read"] = timed(world, lambda: read_tensors(path, tensors, store.group))
    behind = CheckpointStore(folder / "behind", world, keep_last=1, asynchronous=True)
    behind.save(1, tensors)  # the first one also allocates the copy
    rows["write, asynchronous"] = timed(world, lambda: (behind.save(1, tensors), behind.finish()), behind.finish)
    rows["stall"] = timed(world, lambda: behind.save(1, tensors), behind.finish)
    behind.finish()
    idle = product()
    behind.save(1, tensors)
    rows["beside"] = product(0.5 * rows["write"]) / idle
    behind.finish()
    return rows


def plain(folder: Path, mib: int) -> float:
    """Returns the seconds of torch's own writer and of the checksums of what it wrote."""
    tensors = state(mib, World(0, 1, torch.device("cpu")))

    def save() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            writer = dcp.HuggingFaceStorageWriter(str(folder / "plain"), save_distributed=True)
            dcp.save(dict(tensors), storage_writer=writer, no_dist=True)
        for file in (folder / "plain").glob("*.safetensors"):
            sha256(file)

    return timed(World(0, 1, torch.device("cpu")), save)


def rank_main(rank: int, size: int, folder: Path, mib: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    rows = measure(folder, mib, World(rank, size, torch.device("cpu")))
    if size == 1:
        rows["plain"] = plain(folder, mib)
    if rank == 0:
        print(json.dumps(rows), flush=True)
    leave(0)


def spawn(size: int, folder: Path, mib: int) -> dict[str, float]:
    """Measures on a number of processes."""
    command = [sys.executable, __file__, "--mib", str(mib), "--folder", str(folder), "--rank"]
    processes = [
        subprocess.Popen([*command, str(rank), str(size)], stdout=subprocess.PIPE, text=True) for rank in range(size)
    ]
    try:
        said = [process.communicate(timeout=TIMEOUT_S)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return json.loads(said[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=256, help="size of the state")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument(
        "--folder", type=Path, default=None, help="on the disk to measure; a temporary one if not given"
    )
    parser.add_argument("--rank", type=int, nargs=2, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank is not None:
        rank_main(*args.rank, args.folder, args.mib)
    print(f"{args.mib} MiB in {NUM_TENSORS} tensors; MB/s of the whole state")
    head = ("processes", "write", "write, asynchronous", "verify", "read", "stall, s", "beside", "plain")
    print("".join(f"{title:>{len(title) + 2}}" for title in head))
    for size in args.processes:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            seconds = spawn(size, Path(folder), args.mib)
        speed = {name: f"{args.mib * 2**20 / 1e6 / value:.0f}" for name, value in seconds.items()}
        cells = [str(size), *(speed[name] for name in head[1:5]), f"{seconds['stall']:.3f}", f"{seconds['beside']:.2f}"]
        cells.append(speed.get("plain", ""))
        print("".join(f"{cell:>{len(title) + 2}}" for cell, title in zip(cells, head, strict=True)), flush=True)


if __name__ == "__main__":
    main()
