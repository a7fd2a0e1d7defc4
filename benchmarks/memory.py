"""Measures how much memory sharding and recomputing save, and what recomputing costs in time.

    python benchmarks/memory.py                       # both sections
    python benchmarks/memory.py sharding --depth 24   # one

    sharding   resident memory of a process of 1, 2 and 4 beyond what it held before the model was there
    recompute  the same for the three ways of keeping activations, and the time of a step

Sharding is measured with few tokens, so that weights, gradients and optimizer are nearly all there is, in two
micro-batches; `between` is what stays between steps. Every figure of memory comes from fresh processes, the largest of
the ranks counts, and freed memory goes back to the system at once. Times are compared as in `parallel.py`.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import gc
import os
import resource
import time
from typing import Any

import psutil
from parallel import AXES, BATCH, Shape, engine_step, on_mesh
from processes import compare, run

from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.nn.recompute import RECOMPUTES
from sciml.parallel.config import ParallelConfig

SECTIONS = ("sharding", "recompute")
MIB = 2**20
M_MMAP_THRESHOLD = -3  # of the GNU C library's mallopt


def memory_rank(world: World, shape: Shape, degrees: dict[str, Any], batch: int, micro: int) -> tuple[float, float]:
    """Returns the resident bytes of some steps beyond those before the model: the largest, and between steps.

    Args:
        batch: samples of each data-parallel rank.
    """
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**18)
    mesh, config = on_mesh(world, degrees)
    batch *= mesh.num_data_ranks
    small = dataclasses.replace(shape, width=64)
    engine_step(small, mesh, config, batch, micro)()  # libraries, threads and buffers of the communication
    gc.collect()
    before = psutil.Process().memory_info().rss
    step = engine_step(shape, mesh, config, batch, micro)
    step()
    step()
    between = psutil.Process().memory_info().rss
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return peak - before, between - before


def sharding(shape: Shape) -> None:
    numbers = sum(parameter.numel() for parameter in shape.build().parameters())
    whole = 16 * numbers / MIB
    print(f"\n{numbers / 1e6:.1f} M parameters: weights, gradients and both moments of AdamW are {whole:.0f} MiB")
    print("".join(f"{title:>12s}" for title in ("mesh", "1/N", "between, MiB", "of whole", "peak, MiB", "of whole")))
    chosen = {name: (n, degrees) for n in AXES for name, degrees in AXES[n].items() if name[:2] in ("tp", "ze")}
    for name, (size, degrees) in {"alone": (1, {}), **chosen}.items():
        ranks = run(size, memory_rank, shape, degrees, 2, 1)
        peak, between = (max(values) / MIB for values in zip(*ranks, strict=True))
        cells = f"{1 / size:12.2f}{between:12.0f}{between / whole:12.2f}{peak:12.0f}{peak / whole:12.2f}"
        print(f"{name:>12s}" + cells, flush=True)


def recompute_rank(world: World, shapes: list[Shape], rounds: int) -> list[list[float]]:
    """Compares each shape's step with the first one's."""
    first, *others = (engine_step(shape, Mesh.alone(), ParallelConfig(), BATCH) for shape in shapes)
    return compare(world, [(other, first) for other in others], rounds)


def recompute(shape: Shape, rounds: int) -> None:
    print(f"\nwidth {shape.width}, {shape.depth} blocks, {shape.side**2} tokens, batch {BATCH}, one process")
    print("".join(f"{title:>14s}" for title in ("recompute", "peak, MiB", "activations", "of none", "time", "CPU")))
    shapes = [dataclasses.replace(shape, recompute=mode) for mode in RECOMPUTES]
    rows = [[0.0, 1.0, 1.0], *run(1, recompute_rank, shapes, rounds)[0]]
    resting = 0.0
    for number, (each, (_, seconds, cpu)) in enumerate(zip(shapes, rows, strict=True)):
        ((peak, between),) = run(1, memory_rank, each, {}, BATCH, BATCH)
        # Gradients, which stay between steps, are not yet there when activations are at their most.
        activations = peak - 0.75 * between
        if number == 0:
            resting = activations
        cells = f"{peak / MIB:14.0f}{activations / MIB:14.0f}{activations / resting:14.2f}{seconds:14.2f}{cpu:14.2f}"
        print(f"{each.recompute:>14s}" + cells, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", default=SECTIONS, help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    for section in args.sections:
        if section not in SECTIONS:
            parser.error(f"{section!r} is no section; there are {', '.join(SECTIONS)}")
    os.environ["OMP_NUM_THREADS"] = "1"
    began = time.perf_counter()
    if "sharding" in args.sections:
        sharding(Shape(args.width, args.depth, 4))
    if "recompute" in args.sections:
        recompute(Shape(args.width, args.depth // 2, 16), args.steps)
    print(f"\n{time.perf_counter() - began:.0f} s, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
