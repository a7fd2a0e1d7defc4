"""The folded variable tokenizer beside the plain one: CPU time and memory, alone and inside the model.

    python benchmarks/tokenizer.py            # ClimaX's default shape
    python benchmarks/tokenizer.py --embed-dim 256 --depth 2

Each variant runs in a process of its own, because a process's peak memory never falls. Times are CPU seconds
of one batch (median), which other programs on the machine disturb less than wall-clock seconds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch
from torch import Tensor, nn

from domains.climate.model.forecaster import ClimateViT
from domains.climate.model.tokenizer import PlainTokenizer, VariableTokenizer, fold
from sciml.models.vit import ViTConfig
from sciml.nn.patch import patchify, unpatchify

ROWS, COLUMNS = 32, 64


class OnPatches(nn.Module):
    """Puts the plain tokenizer behind the folded one's interface."""

    def __init__(self, plain: PlainTokenizer) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, patches: Tensor, names: tuple[str, ...] | None = None) -> Tensor:
        return self.plain(unpatchify(patches, (ROWS, COLUMNS), self.plain.patch_size), names)


def build(args: argparse.Namespace, form: str, part: str) -> Callable[[], Tensor]:
    """Returns a function that runs the tokenizer or the whole model once; both forms hold the same weights."""
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    names = [f"v{i}" for i in range(args.variables)]
    plain = PlainTokenizer(names, args.patch_size, args.embed_dim, args.heads)
    tokenizer: nn.Module = OnPatches(plain)
    if form == "folded":
        tokenizer = VariableTokenizer(names, args.patch_size, args.embed_dim, args.heads)
        tokenizer.load_state_dict(fold(plain))
    fields = torch.randn(args.batch, args.variables, ROWS, COLUMNS)
    if part == "tokenizer":
        return lambda: tokenizer(patchify(fields, args.patch_size))
    config = ViTConfig(
        embed_dim=args.embed_dim, depth=args.depth, num_heads=args.heads, patch_size=args.patch_size, head_depth=2
    )
    latitude = [90 - 180 / ROWS * (i + 0.5) for i in range(ROWS)]
    longitude = [360 / COLUMNS * i for i in range(COLUMNS)]
    model = ClimateViT(config, names, latitude=latitude, longitude=longitude)
    model.tokenizer = tokenizer  # type: ignore[assignment]
    lead, now = torch.full((args.batch,), 72.0), torch.zeros(args.batch)
    return lambda: model(fields, None, lead, now)


def measure(args: argparse.Namespace, form: str, part: str, connection: Connection) -> None:
    """Sends (forward CPU s, forward + backward CPU s, peak memory above the start in MiB)."""
    run = build(args, form, part)

    def forward() -> None:
        with torch.no_grad():
            run()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run().square().mean().backward()
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    times = [_median_cpu(f, args.repeats) for f in (forward, lambda: run().square().mean().backward())]
    connection.send((*times, memory))


def _median_cpu(function: Callable[[], None], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {
        "variables": 48, "patch-size": 2, "embed-dim": 1024, "depth": 8, "heads": 16, "batch": 1, "threads": 1,
        "repeats": 5,
    }  # fmt: skip
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    print(
        f"{args.variables} variables, {ROWS}x{COLUMNS}, patch {args.patch_size}, width {args.embed_dim}, "
        f"{args.depth} blocks, batch {args.batch}, float32, {args.threads} thread(s)"
    )
    print(f"{'':10s}{'':8s}{'forward CPU s':>15s}{'fwd + bwd CPU s':>17s}{'peak MiB':>10s}")
    for part in ("tokenizer", "model"):
        rows = {}
        for form in ("plain", "folded"):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=measure, args=(args, form, part, theirs))
            process.start()
            theirs.close()
            rows[form] = ours.recv()
            process.join()
            print(f"{part:10s}{form:8s}{rows[form][0]:15.3f}{rows[form][1]:17.3f}{rows[form][2]:10.0f}", flush=True)
        ratio = [a / b for a, b in zip(rows["plain"], rows["folded"], strict=True)]
        print(f"{'':10s}{'ratio':8s}{ratio[0]:14.2f}x{ratio[1]:16.2f}x{ratio[2]:9.2f}x")


if __name__ == "__main__":
    main()
