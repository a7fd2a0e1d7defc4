"""Compares window and global attention: seconds and memory of a forward and backward pass against number of tokens.

    python benchmarks/attention.py
    python benchmarks/attention.py --rows 16 32 64 128 --window 8 8 --global-up-to 8192

The shared ViT's blocks on grids of the sphere with twice as many columns as rows of tokens, one sample, float32, one
thread. Times of all kinds and sizes are taken in turn, and the least of several counts. Memory is what autograd keeps
of the forward pass and needs beside it in the backward pass, without weights: bytes of tensors, from the planner's
meter, by a pass of its own. Global attention is left out where it would take long.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from sciml.models.vit import ViT, ViTConfig
from sciml.nn.initialization import initialize
from sciml.nn.topology import Sphere
from sciml.planning.op_meter import Meter

KINDS = ("window", "global")


def trunk(kind: str, options: argparse.Namespace) -> ViT:
    """Builds the blocks."""
    shared = {"conditioning": "none", "rotary_axes": (), "num_heads": options.width // 32}
    config = ViTConfig(embed_dim=options.width, depth=options.depth, attention=kind, window=options.window, **shared)
    model = ViT(config)
    initialize(model, 0)
    return model


def one_pass(model: ViT, rows: int) -> Callable[[], None]:
    """Returns a forward and backward pass over a grid of tokens."""
    shape = rows, 2 * rows
    tokens = torch.randn(1, shape[0] * shape[1], model.config.embed_dim)

    def step() -> None:
        model.zero_grad()
        windows = model.windows(Sphere(), shape, tokens.device)
        model(tokens, None, None, windows).square().mean().backward()

    return step


def peak_bytes(model: ViT, step: Callable[[], None]) -> int:
    """Returns the most bytes of tensors that were alive during a pass, without weights and their gradients."""
    weights = list(model.parameters())
    with Meter(weights, weights=weights) as meter:
        hooks = [p.register_post_accumulate_grad_hook(lambda p: meter.forget(p.grad)) for p in weights]
        step()
    for hook in hooks:
        hook.remove()
    return max(meter.peaks.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--window", type=int, nargs=2, default=[8, 8])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--global-up-to", type=int, default=10_000, metavar="TOKENS")
    options = parser.parse_args()
    options.window = tuple(options.window)
    torch.set_num_threads(1)
    models = {kind: trunk(kind, options) for kind in KINDS}
    wanted = [
        (kind, rows)
        for rows in options.rows
        for kind in KINDS
        if kind == "window" or 2 * rows**2 <= options.global_up_to
    ]
    steps = {(kind, rows): one_pass(models[kind], rows) for kind, rows in wanted}
    memory = {key: peak_bytes(models[key[0]], step) for key, step in steps.items()}  # warms up, too
    seconds = dict.fromkeys(steps, float("inf"))
    for _ in range(options.repeats):
        for key, step in steps.items():
            began = time.process_time()
            step()
            seconds[key] = min(seconds[key], time.process_time() - began)
    print(f"{'tokens':>8}" + "".join(f"{kind + ' s':>12}{'us a token':>12}{'MiB':>9}" for kind in KINDS))
    for rows in options.rows:
        row = f"{2 * rows**2:>8,}"
        for kind in KINDS:
            key = kind, rows
            if key in seconds:
                each = 1e6 * seconds[key] / (2 * rows**2)
                row += f"{seconds[key]:>12.3f}{each:>12.1f}{memory[key] / 2**20:>9.0f}"
            else:
                row += f"{'-':>12}{'-':>12}{'-':>9}"
        print(row, flush=True)


if __name__ == "__main__":
    main()
