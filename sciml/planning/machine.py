"""Measures this machine in a few seconds with all processes at work: the facts that a plan for it needs.

Run as a module by :func:`measure_machine`, in as many processes as a training has.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from sciml.core.errors import ConfigError, RunError
from sciml.core.files import read_json, write_text
from sciml.core.progress import waiting
from sciml.core.provenance import machine, now
from sciml.distributed.collectives import all_gather, reduce_scatter
from sciml.distributed.launcher import leave, program, without_launcher
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World, join, pick_device
from sciml.models.vit import Block, ViTConfig
from sciml.parallel.placement import Placement
from sciml.planning.cluster import GB, MICROSECONDS, ClusterConfig, Link
from sciml.planning.op_meter import Meter, OpCount
from sciml.training.config import OptimConfig
from sciml.training.optimizer import build_optimizer, optimizer_spec

THIS_MACHINE = "this_machine"
ROUNDS, LEAST_S, TIMEOUT_S = 12, 0.1, 300
"""A rate is the best of so many rounds, each of so many seconds."""
MANY_ROUNDS = 25
"""Rounds of what differs from one to the next, of which the median counts."""
PRODUCT = {"cpu": (512, 256, 512), "accelerator": (8192, 8192, 8192)}
BLOCK = {"cpu": (2, 256, 128), "accelerator": (8, 2048, 2048)}
"""Samples, tokens and channels of the block by which all other kernels are measured."""
UNITS = 8
"""Number of modules that are sharded, each alone, and of parameters that are updated."""
UPDATED = 2**19
"""Elements of each of these parameters."""
MESSAGE = {"cpu": 2**23, "accelerator": 2**28}
"""Bytes."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def save_cluster(cluster: ClusterConfig, path: Path) -> None:
    """Writes a cluster as an option of the group, e.g. ``conf/cluster/this_machine.yaml``."""
    from omegaconf import OmegaConf

    here = machine()
    about = ", ".join(here["accelerators"]) or f"{here['processor']}, {here['cores']} cores"
    header = f"# {about}: measured {now():%Y-%m-%d} with {count_of(cluster.devices_per_node)} at work.\n"
    write_text(path, header + OmegaConf.to_yaml(OmegaConf.create(asdict(cluster))))


def measure_machine(devices: int, device: str = "auto", num_threads: int = 1) -> ClusterConfig:
    """Measures this machine as a cluster of one node; of several processes the slowest counts.

    Raises:
        RunError: where the processes fail.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "machine.json"
        command = [*program(devices), "-m", __name__, device, str(num_threads), str(out)]
        try:
            with waiting("measuring"):
                done = subprocess.run(
                    command, env=without_launcher(num_threads), capture_output=True, text=True, timeout=TIMEOUT_S
                )
        except subprocess.TimeoutExpired:
            raise RunError(f"{count_of(devices)} could not measure this machine within {TIMEOUT_S} s") from None
        if done.returncode or not out.exists():
            last = next((line for line in reversed(done.stderr.splitlines()) if line.strip(" =-")), "")
            raise RunError(f"{count_of(devices)} could not measure this machine: {last.strip()}")
        measured = read_json(out, dict[str, Any])
    kind = kind_of(pick_device(device))
    measured |= {"links": {"machine": Link(None, **measured.pop("link"))}, "measured": True}
    if kind == "cpu":
        measured["cores_per_device"] = num_threads
    return ClusterConfig(THIS_MACHINE, devices, 1, device=kind, **measured)


def count_of(devices: int) -> str:
    """Returns a number of processes in words."""
    return "a process" if devices == 1 else f"{devices} processes"


def kind_of(device: str) -> Literal["accelerator", "cpu"]:
    """Returns what a cluster calls a type of device."""
    return "cpu" if device == "cpu" else "accelerator"


def _measure(world: World) -> dict[str, Any]:
    kind, device = kind_of(world.device.type), world.device
    dtypes = {name: dtype for name, dtype in DTYPES.items() if kind != "cpu" or name != "fp16"}
    peaks = {name: _products(device, dtype, PRODUCT[kind]) for name, dtype in dtypes.items()}
    small, large = _block(device, 1, 4, 16), _block(device, *BLOCK[kind])
    kernel_s = small[0] / small[1].kernels
    rest = large[0] - large[1].flops / (peaks["fp32"] * 1e12) - (large[1].kernels * kernel_s if kind == "cpu" else 0)
    return {
        "peak_tflops": peaks,
        # If products took all the time, other kernels would seem to cost nothing.
        "memory_gb_per_s": large[1].other_bytes / max(rest, 0.05 * large[0]) / GB,
        "kernel_us": kernel_s / MICROSECONDS,
        "update_gb_per_s": _updates(device) / GB,
        **{f"{name}_us": seconds / MICROSECONDS for name, seconds in _shards(world).items()},
        "memory_gb": _room(world),
        "link": _messages(world, MESSAGE[kind]),
    }


def _products(device: torch.device, dtype: torch.dtype, sizes: tuple[int, int, int]) -> float:
    """Measures matrix products, in TFLOP/s."""
    rows, inner, columns = sizes
    one, two = torch.randn(rows, inner, device=device).to(dtype), torch.randn(inner, columns, device=device).to(dtype)
    return 2 * rows * inner * columns / _seconds(lambda: one @ two, device) / 1e12


def _block(device: torch.device, samples: int, tokens: int, channels: int) -> tuple[float, OpCount]:
    """Measures the seconds of a transformer block, forward and backward, and counts its operations."""
    block = Block(ViTConfig(embed_dim=channels, num_heads=max(1, channels // 32), conditioning="none", rotary_axes=()))
    block.to(device)
    x = torch.randn(samples, tokens, channels, device=device, requires_grad=True)

    def both_ways() -> None:
        block(x).sum().backward()

    both_ways()
    with Meter() as meter:
        both_ways()
    return _seconds(both_ways, device), meter.counts[meter.scope]


def _room(world: World) -> float:
    """Returns the GB of a device, or of the host for each process."""
    if world.device.type == "cpu":
        return psutil.virtual_memory().available / world.size / GB
    if world.device.type == "mps":
        return torch.mps.recommended_max_memory() / GB
    return torch.get_device_module(world.device).get_device_properties(world.device).total_memory / GB


def _messages(world: World, size: int) -> dict[str, float]:
    """Measures the bandwidth and the latency of messages in a ring, between other work.

    Shards are gathered and scattered, as tensor parallelism does.

    Ranks do not reach a message at the same time, and threads that send it have slept: back to back, small messages
    are several times faster, and so is the luckiest round. A training waits as long as the median.
    """
    if world.size == 1:
        return {"gb_per_s": 1.0, "latency_us": 0.0}  # nobody to talk to
    device = world.device
    rows = PRODUCT[kind_of(device.type)][1]
    one, large, small = (torch.ones(n, device=device) for n in (rows * rows, size // 4 // world.size, 1))
    one, group = one.view(rows, rows), dist.group.WORLD

    def work(message: Float[Tensor, "number"] | None) -> None:
        for _ in range(2):
            one @ one
        if message is not None:
            reduce_scatter(all_gather(message, 0, group), 0, group)

    alone, with_small, with_large = (_usual(partial(work, m), device, calls=8) for m in (None, small, large))
    sent = 2 * (world.size - 1) / world.size * size
    latency = max(0.0, with_small - alone) / 2 / math.log2(world.size)
    return {"gb_per_s": sent / max(with_large - with_small, 1e-9) / GB, "latency_us": latency / MICROSECONDS}


def _updates(device: torch.device) -> float:
    """Measures the bytes a second that an optimizer reads and writes, of far more than caches hold."""
    parameters = [nn.Parameter(torch.randn(UPDATED, device=device)) for _ in range(UNITS)]
    seconds = _seconds(_update_of(parameters), device)
    return optimizer_spec(OptimConfig()).others.moved * UNITS * UPDATED / seconds


def _update_of(parameters: Iterable[nn.Parameter]) -> Callable[[], Any]:
    """Returns the step of the default optimizer with parameters that have gradients."""
    named = {str(number): parameter for number, parameter in enumerate(parameters)}
    for parameter in named.values():
        if parameter.grad is None:
            parameter.grad = torch.ones_like(parameter)
    placements = {name: Placement(Mesh.alone(), tuple(parameter.shape)) for name, parameter in named.items()}
    return build_optimizer(named, placements, OptimConfig()).step


def _shards(world: World) -> dict[str, float]:
    """Measures the seconds to gather or scatter a sharded module of any size, and to update a shard."""
    if world.size == 1:
        return {"shard": 0.0, "shard_update": 0.0}
    plain, sharded = (nn.Sequential(*(nn.Linear(16, 16) for _ in range(UNITS))).to(world.device) for _ in range(2))
    for layer in sharded:
        fully_shard(layer, reshard_after_forward=False)
    x = torch.ones(4, 16, device=world.device)

    def both_ways(model: nn.Module) -> None:
        model(x).sum().backward()
        for layer in model:  # type: ignore[attr-defined]
            if isinstance(layer, FSDPModule):
                layer.reshard()

    passes = [_usual(partial(both_ways, model), world.device, calls=4) for model in (plain, sharded)]
    updates = [_usual(_update_of(model.parameters()), world.device, calls=4) for model in (plain, sharded)]
    more = (max(0.0, seconds[1] - seconds[0]) / (2 * UNITS) for seconds in (passes, updates))
    return dict(zip(("shard", "shard_update"), more, strict=True))


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Measures the seconds of a call in the best of some rounds, the one least disturbed by other work."""
    first = min(_round(work, device, 1), _round(work, device, 1))
    return min(_round(work, device, max(1, int(LEAST_S / first))) for _ in range(ROUNDS))


def _usual(work: Callable[[], Any], device: torch.device, calls: int) -> float:
    """Measures the seconds of a call in the median of some rounds of several calls each."""
    _round(work, device, 1)
    return statistics.median(_round(work, device, calls) for _ in range(MANY_ROUNDS))


def _round(work: Callable[[], Any], device: torch.device, calls: int) -> float:
    """Measures the mean seconds of some calls."""
    began = time.perf_counter()
    for _ in range(calls):
        work()
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return (time.perf_counter() - began) / calls


def _slowest(measured: list[Any]) -> Any:
    """Combines the measurements of several processes: the least rate, and the longest time."""
    first = measured[0]
    if isinstance(first, dict):
        return {name: (max if name.endswith("_us") else _slowest)([one[name] for one in measured]) for name in first}
    return min(measured)


def _main() -> None:
    device, num_threads, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(num_threads)
    world = join(device, TIMEOUT_S)
    own = _measure(world)
    measured: list[Any] = [own] * world.size
    if world.size > 1:
        dist.all_gather_object(measured, own)
    if world.is_main:
        out.write_text(json.dumps(_slowest(measured)))
    world.barrier()
    leave(0)


if __name__ == "__main__":
    try:
        _main()
    except ConfigError as error:
        sys.exit(str(error))
