"""Cell-steps a second of the miniWeather solver on one core: the C++ kernel, plain torch, and torch.compile.

    python benchmarks/solver.py                  # gravity waves, 200 x 100, batches of 1 and 8
    python benchmarks/solver.py --torch-compile  # also what torch.compile makes of it, for gradients and accelerators
    python benchmarks/solver.py --device cuda --torch-compile --members 1 8 64 256

Kinds take turns, round after round, so that other programs on the machine disturb them alike; the best round counts.
Times are CPU seconds on a CPU; compiling is not in them.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import torch

from domains.fluids.solver import CASES, SolverGrid
from domains.fluids.solver.step import Solver

GRID = SolverGrid(200, 100)
CELLS = GRID.nx * GRID.nz
ROUNDS = 4
KINDS = {
    "kernel in C++": {"compiled": False, "native": True},
    "plain torch": {"compiled": False, "native": False},
    "torch.compile": {"compiled": True, "native": False},
}


class Running:
    """Steps gravity waves on and on."""

    def __init__(self, members: int, dtype: torch.dtype, device: torch.device, kind: str) -> None:
        self.members = members
        self.solver = Solver([CASES["gravity"]] * members, GRID, dtype=dtype, device=device, **KINDS[kind])
        self.state, self.number = self.solver.start(), 0

    def go(self, count: int) -> None:
        for _ in range(count):
            self.state = self.solver.step(self.state, GRID.largest_step, self.number)
            self.number += 1
        float(self.state[0].sum())  # waits for the device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--torch-compile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(args.device)
    clock: Callable[[], float] = time.process_time if device.type == "cpu" else time.perf_counter
    kinds = [kind for kind in KINDS if args.torch_compile or kind != "torch.compile"]
    print(f"gravity waves, {GRID.nx} x {GRID.nz}, {args.device}, 1 thread, million cell-steps a second")
    for dtype in (torch.float64, torch.float32):
        for members in args.members:
            runs = {kind: Running(members, dtype, device, kind) for kind in kinds}
            best = dict.fromkeys(kinds, math.inf)
            for round_number in range(ROUNDS + 1):
                for kind, running in runs.items():
                    begun = clock()
                    running.go(max(2, args.steps // members))
                    if round_number:
                        best[kind] = min(best[kind], (clock() - begun) / max(2, args.steps // members))
            rates = {kind: members * CELLS / seconds / 1e6 for kind, seconds in best.items()}
            told = ", ".join(f"{kind} {rate:.1f}" for kind, rate in rates.items())
            ratio = rates[kinds[0]] / rates[kinds[1]]
            print(f"{str(dtype)[6:]}, {members} members: {told}; kernel over plain {ratio:.1f}")


if __name__ == "__main__":
    main()
