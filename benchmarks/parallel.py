"""Measures what cutting a model over processes costs and saves: time, and bytes on the wire.

    python benchmarks/parallel.py                          # all sections
    python benchmarks/parallel.py axes overhead --steps 5  # some

    axes       a step on 2 and 4 processes along every axis, for a fixed batch and for one sample a process
    overhead   a step of the engine in one process beside the loop that one would write by hand
    schedules  the pipeline's schedules, each on the same micro-batches

A step is forward, backward, clipping and AdamW in float32. Every process has one thread and, as far as there are
enough, a core of its own. `ratio` is to the same samples (or, where the batch grows, one sample) in one process. Steps
that are compared follow one another in the same processes, and the median of their ratios counts, since machines are
noisy. `CPU` is the CPU time of all processes over that of the one for as many samples: what cutting costs, whatever the
number of cores. `apart` shares the samples among processes that never speak: what the machine allows. `sent` is what
the process that sends most puts on the wire, as counted and by the published formula.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from processes import Step, compare, run
from torch import Tensor, nn

from domains.climate.model.forecaster import ClimateViT
from sciml.distributed.communication import CommunicationVolume
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.domain.protocol import LossOutput, Task
from sciml.models.vit import ViTConfig
from sciml.parallel.config import ParallelConfig
from sciml.parallel.model import parallelize
from sciml.training.config import OptimConfig
from sciml.training.engine import NativeEngine

SECTIONS = ("axes", "overhead", "schedules")
CHANNELS, PATCH, HEAD_LAYERS = 8, 2, 2
BATCH = 4
OPTIM = OptimConfig(lr=1e-4, ema_decay=None)
AXES: dict[int, dict[str, dict[str, Any]]] = {
    n: {
        f"apart {n}": {},
        f"dp{n}": {"dp": n},
        f"zero1 {n}": {"shard": n, "zero": 1},
        f"zero2 {n}": {"shard": n, "zero": 2},
        f"zero3 {n}": {"shard": n, "zero": 3},
        f"tp{n}": {"tp": n},
        f"sp{n}": {"sp": n},
        f"pp{n}": {"pp": n},
    }
    for n in (2, 4)
}
AXES[4]["hsdp 2x2"] = {"dp": 2, "shard": 2}


@dataclass(frozen=True)
class Shape:
    """Describes a climate model of ``depth`` blocks ``width`` wide, with ``side`` times ``side`` tokens."""

    width: int
    depth: int
    side: int
    recompute: str = "none"

    def build(self) -> ClimateViT:
        config = ViTConfig(
            embed_dim=self.width,
            depth=self.depth,
            num_heads=8,
            patch_size=PATCH,
            head_depth=HEAD_LAYERS,
            recompute=self.recompute,
        )
        rows = PATCH * self.side
        latitude = [90 - 180 / rows * (i + 0.5) for i in range(rows)]
        longitude = [360 / rows * i for i in range(rows)]
        return ClimateViT(config, [f"v{i}" for i in range(CHANNELS)], latitude=latitude, longitude=longitude)

    def samples(self, count: int) -> Samples:
        inputs = torch.randn(count, CHANNELS, PATCH * self.side, PATCH * self.side)
        return Samples(inputs, torch.randn_like(inputs), torch.full((count,), 72.0))


@dataclass
class Samples:
    """Holds inputs and targets."""

    inputs: Tensor
    targets: Tensor
    lead: Tensor


class Regression:
    """Computes the mean square error."""

    needs_double_backward = False

    def loss(self, model: Callable[..., Tensor], batch: Samples) -> LossOutput:
        output = model(batch.inputs, None, batch.lead, torch.zeros_like(batch.lead))
        return LossOutput((output - batch.targets).square().mean(), {}, weight=float(len(batch.inputs)))


def engine_step(shape: Shape, mesh: Mesh, config: ParallelConfig, batch: int, micro: int | None = None) -> Step:
    """Returns a training step on this rank's share of a batch; by default all at once, and one by one in a pipeline."""
    engine, task = NativeEngine(parallelize(shape.build, mesh, config, seed=0), OPTIM), cast(Task, Regression())
    share = batch // mesh.num_data_ranks
    micro = micro or (1 if config.pp > 1 else share)
    batches = [shape.samples(micro) for _ in range(share // micro)]
    return lambda: engine.train_step(task, batches, OPTIM.lr)


def plain_step(shape: Shape, batch: int) -> Step:
    """Returns the same step, written by hand for one process."""
    model, samples = shape.build(), shape.samples(batch)
    optimizer = torch.optim.AdamW(model.parameters(), OPTIM.lr, OPTIM.betas, OPTIM.eps, OPTIM.weight_decay)

    def step() -> None:
        optimizer.zero_grad()
        loss = (model(samples.inputs, None, samples.lead, torch.zeros(batch)) - samples.targets).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()

    return step


def on_mesh(world: World, degrees: dict[str, Any]) -> tuple[Mesh, ParallelConfig]:
    config = ParallelConfig(**degrees)
    return Mesh(world, config.degrees(world.size)), config


def axes_rank(world: World, shape: Shape, meshes: dict[str, dict[str, Any]], steps: int) -> dict[str, Any]:
    """Returns times and bytes sent on every mesh, for a fixed batch and for one sample a process."""
    one, whole = (engine_step(shape, Mesh.alone(), ParallelConfig(), batch) for batch in (1, BATCH))
    found: dict[str, Any] = {}
    for name, degrees in meshes.items():
        mesh, config = on_mesh(world, degrees) if degrees else (Mesh.alone(), ParallelConfig())
        samples = [BATCH, world.size] if degrees else [BATCH // world.size, 1]
        steps_of = {batch: engine_step(shape, mesh, config, batch) for batch in samples}
        fixed, growing = (steps_of[batch] for batch in samples)
        times, grown = compare(world, [(fixed, whole), (growing, one)], steps)
        grown[2] /= world.size
        with CommunicationVolume(mesh) as traffic:
            fixed()
        sent = torch.tensor(sum(count.wire_bytes for kinds in traffic.table().values() for count in kinds.values()))
        dist.all_reduce(sent, op=dist.ReduceOp.MAX)
        found[name] = (times, grown, sent.item(), wire(shape, config, world.size))
        del fixed, growing, steps_of
        gc.collect()
    return found


def wire(shape: Shape, config: ParallelConfig, size: int) -> float:
    """Returns the bytes that the busiest rank sends in a step of the fixed batch, by the formulas' leading terms.

    They are those of tests/distributed/test_volume.py, which is exact and names the sources. Tensor parallelism has
    four all-reduces of 4 b s d bytes a block, and one for the tokenizer and each hidden layer of the head besides.
    """
    if config == ParallelConfig():  # processes that work apart
        return 0.0
    tokens = 4 * BATCH * shape.side**2 * shape.width
    weights = 4 * sum(parameter.numel() for parameter in shape.build().parameters())
    ring = (size - 1) / size
    if config.tp > 1:
        return (4 * shape.depth + 1 + HEAD_LAYERS) * 2 * ring * tokens
    if config.sp > 1:
        return 8 * shape.depth * ring * tokens / size + 2 * ring * weights
    if config.pp > 1:
        return min(config.pp - 1, 2) * tokens
    if config.shard < size:  # replicas, or shards of which there are replicas
        replicas, part = size // config.shard, weights / config.shard
        return 3 * (weights - part if config.shard > 1 else 0) + 2 * (replicas - 1) / replicas * part
    return (3 if config.zero == 3 else 2) * ring * weights


def axes(shape: Shape, steps: int, sizes: list[int]) -> None:
    print(f"\n{BATCH} samples in all{'':22s}one sample a process       sent, MB of the fixed batch")
    head = ("mesh", "s", "ratio", "CPU", "s", "ratio", "CPU", "counted", "formula")
    print("".join(f"{title:>9s}" for title in head))
    for size in sizes:
        for name, (fixed, weak, sent, expected) in run(size, axes_rank, shape, AXES[size], steps)[0].items():
            cells = [f"{value:9.2f}" for value in (*fixed, *weak)] + [f"{b / 1e6:9.1f}" for b in (sent, expected)]
            print(f"{name:>9s}" + "".join(cells), flush=True)


def overhead_rank(world: World, shapes: list[tuple[Shape, int]], steps: int) -> list[list[float]]:
    """Compares the engine with the loop by hand."""
    pairs = [
        (engine_step(shape, Mesh.alone(), ParallelConfig(), batch), plain_step(shape, batch)) for shape, batch in shapes
    ]
    return compare(world, pairs, steps)


def overhead(shape: Shape, steps: int) -> None:
    print(f"\n{'engine beside a loop by hand':36s}{'s':>9s}{'ratio':>9s}{'CPU':>9s}")
    shapes = [(shape, 1), (Shape(64, 4, 4), 1)]
    names = [f"width {s.width}, {s.depth} blocks, {s.side**2} tokens" for s, _ in shapes]
    for name, row in zip(names, run(1, overhead_rank, shapes, max(steps, 15))[0], strict=True):
        print(f"{name:36s}{row[0]:9.4f}{row[1]:9.3f}{row[2]:9.3f}", flush=True)


def schedules_rank(world: World, shape: Shape, options: list[dict[str, Any]], steps: int) -> list[list[float]]:
    """Compares every schedule with one process that takes all samples at once."""
    whole = engine_step(shape, Mesh.alone(), ParallelConfig(), BATCH)
    pairs = [(engine_step(shape, *on_mesh(world, {"pp": 2, **chosen}), BATCH), whole) for chosen in options]
    return compare(world, pairs, steps)


def schedules(shape: Shape, steps: int) -> None:
    print(f"\n{f'pp2, {BATCH} micro-batches':24s}{'s':>9s}{'ratio':>9s}{'CPU':>9s}{'ideal':>9s}")
    two = {"interleave": 2}
    options: dict[str, dict[str, Any]] = {
        "gpipe": {"schedule": "gpipe"},
        "1f1b": {"schedule": "1f1b"},
        "interleaved, v 2": {"schedule": "interleaved", **two},
        "zero_bubble, v 1": {"schedule": "zero_bubble"},
        "zero_bubble, v 2": {"schedule": "zero_bubble", **two},
    }
    rows = run(2, schedules_rank, shape, list(options.values()), steps)[0]
    for name, row in zip(options, rows, strict=True):
        bubble = 0.0 if "zero" in name else 1 / (BATCH * options[name].get("interleave", 1))
        ideal = f"{0.5 * (1 + bubble):9.2f}"
        print(f"{name:24s}" + "".join(f"{value:9.2f}" for value in row) + ideal, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", default=SECTIONS, help=f"of {', '.join(SECTIONS)}; all by default")
    for name, value in {"width": 384, "depth": 4, "side": 16}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[*AXES], choices=[*AXES], help="for the axes")
    args = parser.parse_args()
    for section in args.sections:
        if section not in SECTIONS:
            parser.error(f"{section!r} is no section; there are {', '.join(SECTIONS)}")
    os.environ["OMP_NUM_THREADS"] = "1"
    shape = Shape(args.width, args.depth, args.side)
    began, load = time.perf_counter(), os.getloadavg()[0]
    print(f"width {shape.width}, {shape.depth} blocks, {shape.side**2} tokens; {os.cpu_count()} cores, load {load:.1f}")
    if "axes" in args.sections:
        axes(shape, args.steps, args.processes)
    if "overhead" in args.sections:
        overhead(shape, args.steps)
    if "schedules" in args.sections:
        schedules(shape, args.steps)
    print(f"\n{time.perf_counter() - began:.0f} s, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
