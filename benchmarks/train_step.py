"""FLOP/s of a training step as a share of what plain matrix products reach in the same run.

    python benchmarks/train_step.py                       # the 115m shape, float32 and bfloat16 autocast
    python benchmarks/train_step.py --embed-dim 128 --depth 4 --patch-size 4 --batch 16 --variables 16

A step is the trainer's own: forward, backward, gradient norm, clipping and AdamW; once more with compiled blocks.
FLOPs are those that the model needs, counted by torch on the operations it runs (a multiplication and an addition are
two); what is recomputed would count, so nothing is recomputed here. The peak is that of the best among large square
products and the model's own shape, measured before and after every step so that both see the same machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from domains.climate.model.forecaster import ClimateViT
from sciml.distributed.mesh import Mesh
from sciml.domain.protocol import LossOutput
from sciml.models.compiled import compile_blocks
from sciml.models.vit import ViTConfig
from sciml.parallel.config import ParallelConfig
from sciml.parallel.model import parallelize
from sciml.training.config import OptimConfig
from sciml.training.engine import NativeEngine
from sciml.training.precision import multiplies_bf16

ROWS, COLUMNS = 32, 64


def count_flops(step: Callable[[], None]) -> int:
    """Counts the FLOPs of the matrix products and the attention of a step."""
    aten = torch.ops.aten

    def attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object) -> int:
        return sdpa_flop_count(query, key, value)

    def attention_backward(grad: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size,
                           *_: object, **__: object) -> int:  # fmt: skip
        return sdpa_backward_flop_count(grad, query, key, value)

    # torch knows the FLOPs of attention on GPUs, not those of its CPU kernel.
    extra = {
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=extra) as counter:
        step()
    return counter.get_total_flops()


class Batch(NamedTuple):
    """Holds random fields, the lead time (h) and the hour of each sample."""

    fields: Tensor
    lead_time: Tensor
    time: Tensor


class ReturnsFields:
    """Learns to return the fields that it is given."""

    needs_double_backward = False

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        """Returns the mean squared difference."""
        difference = model(batch.fields, None, batch.lead_time, batch.time) - batch.fields
        return LossOutput(difference.square().mean(), {}, weight=len(batch.fields))


def make_engine(args: argparse.Namespace, precision: str) -> NativeEngine:
    """Returns the trainer's engine with a new model."""
    config = ViTConfig(
        embed_dim=args.embed_dim, depth=args.depth, num_heads=args.heads, patch_size=args.patch_size, head_depth=2
    )
    latitude = [90 - 180 / ROWS * (i + 0.5) for i in range(ROWS)]
    longitude = [360 / COLUMNS * i for i in range(COLUMNS)]

    def build() -> nn.Module:
        return ClimateViT(config, [f"v{i}" for i in range(args.variables)], latitude=latitude, longitude=longitude)

    model = parallelize(build, Mesh.alone(), ParallelConfig(), seed=0)
    return NativeEngine(model, OptimConfig(), precision)


def make_step(args: argparse.Namespace, engine: NativeEngine) -> Callable[[], object]:
    """Returns a function that trains on one random batch."""
    generator = torch.Generator().manual_seed(0)
    fields = torch.randn(args.batch, args.variables, ROWS, COLUMNS, generator=generator)
    batch = Batch(fields, torch.full((args.batch,), 72.0), torch.zeros(args.batch))
    return lambda: engine.train_step(ReturnsFields(), [batch], lr=1e-4)


def gemm_rate(args: argparse.Namespace, dtype: torch.dtype, seconds: float) -> float:
    """Returns the FLOP/s of large matrix products over some time, at the best of a few shapes."""
    tokens = args.batch * (ROWS // args.patch_size) * (COLUMNS // args.patch_size)
    rates = []
    shapes = ((1024, 1024, 1024), (2048, 2048, 2048), (tokens, args.embed_dim, 4 * args.embed_dim))
    for m, k, n in shapes:
        a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
        a @ b
        repeats, start, end = 0, time.process_time(), time.perf_counter() + seconds / len(shapes)
        while time.perf_counter() < end:
            a @ b
            repeats += 1
        rates.append(2 * m * k * n * repeats / (time.process_time() - start))
    return max(rates)


def measure(args: argparse.Namespace, name: str, precision: str) -> None:
    """Prints two rows of the table: medians over rounds; a step's share is taken of the peak around it."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    engine = make_engine(args, precision)
    step = make_step(args, engine)
    step()  # the head leaves zero, the optimizer gets its state
    flops = count_flops(step)
    for row in (name, "  compiled"):
        if row != name:
            compile_blocks(engine.model.module)
            began = time.process_time()
            step()
            compiled_in = time.process_time() - began
        rates, peaks = [], [gemm_rate(args, dtype, args.peak_seconds)]
        for _ in range(args.steps):
            start = time.process_time()
            step()
            rates.append(flops / (time.process_time() - start))
            peaks.append(gemm_rate(args, dtype, args.peak_seconds))
        shares = [2 * rate / (before + after) for rate, before, after in zip(rates, peaks, peaks[1:], strict=False)]
        rate = statistics.median(rates)
        print(
            f"{row:10s}{flops / 1e9:12.1f}{flops / rate:12.3f}{rate / 1e9:12.1f}{statistics.median(peaks) / 1e9:14.1f}"
            f"{statistics.median(shares):9.0%}{f'  after {compiled_in:.0f} s' if row != name else ''}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {"variables": 48, "patch-size": 2, "embed-dim": 1024, "depth": 8, "heads": 16, "batch": 1, "threads": 1}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--peak-seconds", type=float, default=1.0, help="time for the peak, before and after each step")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(
        f"{args.variables} variables, {ROWS}x{COLUMNS}, patch {args.patch_size}, width {args.embed_dim}, "
        f"{args.depth} blocks, batch {args.batch}, {args.threads} thread(s); times are CPU seconds"
    )
    print(f"{'':10s}{'GFLOP/step':>12s}{'s/step':>12s}{'GFLOP/s':>12s}{'peak GFLOP/s':>14s}{'share':>9s}")
    measure(args, "float32", "fp32")
    if multiplies_bf16(torch.device("cpu")):
        measure(args, "bfloat16", "bf16")
    else:
        print("bfloat16   not measured: this CPU has no instructions for it (AVX512-BF16 or AMX)")


if __name__ == "__main__":
    main()
