"""FLOP/s of a training step as a share of what plain matrix products reach in the same run.

    python benchmarks/train_step.py                       # the 115m shape, float32 and bfloat16 autocast
    python benchmarks/train_step.py --embed-dim 128 --depth 4 --patch-size 4 --batch 16 --variables 16

A step is forward, backward and AdamW. FLOPs are those that the model needs, counted by torch on the operations
it runs (a multiplication and an addition are two); what is recomputed would count, so nothing is recomputed here.
The peak is that of the best among large square products and the model's own shape, measured before and after every
step so that both see the same machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from domains.climate.model.forecaster import ClimateViT
from sciml.models.vit import ViTConfig

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


def make_step(args: argparse.Namespace, precision: AbstractContextManager) -> Callable[[], None]:
    """Returns a function that trains on one random batch."""
    torch.manual_seed(0)
    config = ViTConfig(
        embed_dim=args.embed_dim, depth=args.depth, num_heads=args.heads, patch_size=args.patch_size, head_depth=2
    )
    latitude = [90 - 180 / ROWS * (i + 0.5) for i in range(ROWS)]
    longitude = [360 / COLUMNS * i for i in range(COLUMNS)]
    model = ClimateViT(config, [f"v{i}" for i in range(args.variables)], latitude=latitude, longitude=longitude)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    fields = torch.randn(args.batch, args.variables, ROWS, COLUMNS)
    lead, now = torch.full((args.batch,), 72.0), torch.zeros(args.batch)

    def step() -> None:
        with precision:
            loss = (model(fields, None, lead, now) - fields).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


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


def measure(args: argparse.Namespace, name: str, dtype: torch.dtype) -> None:
    """Prints a row of the table: medians over rounds; a step's share is taken of the peak around it."""
    precision = torch.autocast("cpu", dtype) if dtype != torch.float32 else nullcontext()
    step = make_step(args, precision)
    step()  # the head leaves zero, the optimizer gets its state
    flops = count_flops(step)
    rates, peaks = [], [gemm_rate(args, dtype, args.peak_seconds)]
    for _ in range(args.steps):
        start = time.process_time()
        step()
        rates.append(flops / (time.process_time() - start))
        peaks.append(gemm_rate(args, dtype, args.peak_seconds))
    shares = [2 * rate / (before + after) for rate, before, after in zip(rates, peaks, peaks[1:], strict=False)]
    rate = statistics.median(rates)
    print(
        f"{name:10s}{flops / 1e9:12.1f}{flops / rate:12.3f}{rate / 1e9:12.1f}{statistics.median(peaks) / 1e9:14.1f}"
        f"{statistics.median(shares):9.0%}",
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
    measure(args, "float32", torch.float32)
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        measure(args, "bfloat16", torch.bfloat16)
    else:
        print("bfloat16   not measured: this CPU has no instructions for it (AVX512-BF16 or AMX)")


if __name__ == "__main__":
    main()
