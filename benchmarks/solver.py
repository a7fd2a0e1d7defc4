"""Cell-steps a second of the miniWeather solver on one core, beside the original program.

    python benchmarks/solver.py                  # gravity waves, 200 x 100, batches of 1 and 8
    python benchmarks/solver.py --steps 4500     # the whole run of 1,500 s, as the original was timed
    python benchmarks/solver.py --device cuda --members 1 8 64 256

The original (Fortran, gfortran -O3, float64, one process) took 42.6 s of its own timer for 4,500 steps of 20,000 cells.
Times here are CPU seconds on a CPU, which other programs on the machine disturb less than wall-clock seconds; compiling
is not in them and told apart.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from domains.fluids.solver import CASES, SolverGrid
from domains.fluids.solver.step import Solver

ORIGINAL_S, ORIGINAL_STEPS = 42.6, 4500
GRID = SolverGrid(200, 100)
CELLS = GRID.nx * GRID.nz


def measure(members: int, dtype: torch.dtype, device: torch.device, steps: int, compiled: bool) -> tuple[float, float]:
    """Returns the seconds of the steps, and of two before them, which compile what is needed."""
    clock: Callable[[], float] = time.process_time if device.type == "cpu" else time.perf_counter
    solver = Solver([CASES["gravity"]] * members, GRID, dtype=dtype, device=device, compiled=compiled)
    state = solver.start()

    def go(count: int) -> None:
        nonlocal state
        for number in range(count):
            state = solver.step(state, GRID.largest_step, number)
        float(state[0].sum())  # waits for the device

    begun = time.perf_counter()
    go(2)
    first = time.perf_counter() - begun
    begun = clock()
    go(steps)
    return clock() - begun, first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(args.device)
    rate = CELLS * ORIGINAL_STEPS / ORIGINAL_S

    print(f"gravity waves, {GRID.nx} x {GRID.nz}, {args.steps} steps, {args.device}, 1 thread")
    print(f"{'':34s}{'cell-steps/s':>14s}{'over original':>15s}{'s for 1,500 s':>15s}{'compiling, s':>14s}")
    print(f"{'the original, Fortran float64':34s}{rate:14.3g}{1:14.1f}x{ORIGINAL_S:15.1f}")
    for compiled in (False, True):
        for dtype in (torch.float64, torch.float32):
            for members in args.members:
                torch.compiler.reset()
                taken, first = measure(members, dtype, device, args.steps, compiled)
                here = members * CELLS * args.steps / taken
                name = f"{'compiled' if compiled else 'plain'}, {str(dtype)[6:]}, {members} members"
                whole = ORIGINAL_STEPS * CELLS / here
                print(f"{name:34s}{here:14.3g}{here / rate:14.1f}x{whole:15.1f}{first if compiled else 0:14.1f}")


if __name__ == "__main__":
    main()
