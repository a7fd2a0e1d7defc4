"""A step of the adaptive multiscale transformer, beside a uniform grid of the same number of tokens: CPU time.

    python benchmarks/amr.py                        # the shapes at which MATEY's times are known
    python benchmarks/amr.py --rows 256 --columns 512 --repeats 3 --arms 'uniform 4' 'adaptive 16-4, a quarter'

An inference step is a forward pass without gradients, a training step forward and backward; both decide where to
refine. Arms are measured in turn, round after round; times are CPU milliseconds (median), which other programs on the
machine disturb less than wall-clock time, and the ratio is that of a round's times to the uniform arm of the same
number of tokens (median). MATEY (ORNL) has a history of four frames at these shapes; its known times fit a sequence
that holds all of them, four times the patches, which is inferred and was not read. Its mixed grid of 16 and 4 takes
1.36 times its uniform grid of as many tokens.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from domains.fluids.amr.config import AMRConfig
from domains.fluids.amr.transformer import AMRViT
from domains.fluids.data.boundary import Boundary
from sciml.models.compiled import compile_blocks

CHANNELS = ("dens", "uwnd", "wwnd", "theta")
BOUNDARY = Boundary.of("periodic", "wall")
UNIFORM: dict[str, Any] = {"ratios": (), "budgets": ()}
ARMS: dict[str, dict[str, Any]] = {
    "uniform 16": {"patch_size": 16, **UNIFORM},
    "uniform 8": {"patch_size": 8, **UNIFORM},
    "adaptive 16-4": {"patch_size": 16, "ratios": (4,), "budgets": (0.1875,)},
    "adaptive 16-4, not coupled": {"patch_size": 16, "ratios": (4,), "budgets": (0.1875,), "coupling": "none"},
    "adaptive 16-4, masked": {"patch_size": 16, "ratios": (4,), "budgets": (0.1875,), "threshold": 0.0},
    "adaptive 32-8-4": {"patch_size": 32, "ratios": (4, 2), "budgets": (0.75, 0.0625)},
    "uniform 4": {"patch_size": 4, **UNIFORM},
    "adaptive 16-4, nearly all": {"patch_size": 16, "ratios": (4,), "budgets": (0.9375,)},
    "adaptive 16-4, a quarter": {"patch_size": 16, "ratios": (4,), "budgets": (0.25,)},
    "adaptive 8-4": {"patch_size": 8, "ratios": (2,), "budgets": (0.75,)},
}


@dataclass
class Arm:
    """Holds a model and the CPU milliseconds of its steps."""

    tokens: int
    infer: Callable[[], object]
    train: Callable[[], object]
    taken: dict[str, list[float]] = field(default_factory=lambda: {"infer": [], "train": []})

    def measure(self) -> None:
        for name, step in (("infer", self.infer), ("train", self.train)):
            start = time.process_time()
            step()
            self.taken[name].append(1e3 * (time.process_time() - start))


def build(args: argparse.Namespace, changes: dict[str, Any], *, compiled: bool = False) -> Arm:
    torch.manual_seed(0)
    config = AMRConfig(embed_dim=args.embed_dim, depth=args.depth, num_heads=args.heads, head_depth=1, **changes)
    model = AMRViT(config, CHANNELS)
    if compiled:
        compile_blocks(model)
    fields = torch.randn(args.batch, len(CHANNELS), args.rows, args.columns)
    given = {"channel_names": None, "lead_time": torch.full((args.batch,), 20.0), "boundary": BOUNDARY}

    def infer() -> None:
        with torch.no_grad():
            model(fields, previous=0.9 * fields, **given)

    def train() -> None:
        model(fields, previous=0.9 * fields, **given).square().mean().backward()

    found = model.forest(model.evidence(fields, None, BOUNDARY, 0.9 * fields))
    return Arm(found.num_tokens, infer, train)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {
        "rows": 128, "columns": 256, "embed-dim": 192, "depth": 12, "heads": 3, "batch": 1, "threads": 1, "repeats": 5,
    }  # fmt: skip
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), help="by default all of them")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    arms = {name: build(args, ARMS[name]) for name in args.arms}
    before = os.getloadavg()[0]
    for arm in arms.values():  # the first round only warms up
        arm.measure()
        arm.taken = {"infer": [], "train": []}
    for _ in range(args.repeats):
        for arm in arms.values():
            arm.measure()
    print(
        f"{args.rows}x{args.columns}, {len(CHANNELS)} channels, batch {args.batch}, width {args.embed_dim}, "
        f"{args.depth} blocks, {args.heads} heads, float32, {args.threads} thread(s), torch {torch.__version__}; "
        f"load of the machine {before:.1f} to {os.getloadavg()[0]:.1f}"
    )
    uniform = {arm.tokens: arm for name, arm in arms.items() if name.startswith("uniform")}
    print(f"{'':28s}{'tokens':>8s}{'inference ms':>14s}{'ratio':>8s}{'training ms':>14s}{'ratio':>8s}")
    for name, arm in arms.items():
        line = f"{name:28s}{arm.tokens:8d}"
        for step, times in arm.taken.items():
            peer = uniform.get(arm.tokens)
            pairs = zip(times, peer.taken[step], strict=True) if peer else []
            ratios = [a / b for a, b in pairs]
            ratio = f"{statistics.median(ratios):8.2f}" if ratios else f"{'-':>8s}"
            line += f"{statistics.median(times):14.0f}{ratio}"
        print(line)


if __name__ == "__main__":
    main()
