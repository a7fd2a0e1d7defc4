"""Structures labeled a second by the batched EAM, beside ASE's EMT structure by structure: CPU time of one core.

    python benchmarks/eam.py                 # 32 atoms, FCC, the seven metals that both know
    python benchmarks/eam.py --cells 3       # 108 atoms

Times are CPU seconds (median), which other programs on the machine disturb less than wall-clock seconds. Neighbor
lists are searched anew each time, as where structures are labeled. The two potentials are not the same: EMT is what a
user of ASE has at hand.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from domains.materials.data.structure import Structure
from domains.materials.simulation.alloys import Family, Recipe, draw
from domains.materials.simulation.labeling import EAMLabeler, EMTLabeler, pure_crystal
from domains.materials.simulation.simulate import structures
from domains.materials.simulation.simulate_config import SimulateConfig


def alloys(count: int, cells: int) -> list[Structure]:
    """Returns disturbed solid solutions of the metals that both potentials know."""
    recipe = Recipe(
        (Family("fcc", EMTLabeler.symbols),), supercells=((cells, cells, cells),), rattle=0.1, strain=0.03, shear=0.02
    )
    return [draw(recipe, lambda symbol, lattice: pure_crystal("eam", symbol, lattice)[:2], 0, i) for i in range(count)]


def cpu_seconds(function: Callable[[], object], repeats: int) -> float:
    function()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--cells", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    some = alloys(args.count, args.cells)
    few = some[: max(1, args.count // 10)]
    eam, emt = EAMLabeler(), EMTLabeler()
    config = SimulateConfig(count=args.count)

    rows = {
        "EAM, batched": args.count / cpu_seconds(lambda: eam.label(some), args.repeats),
        "EAM, one by one": len(few) / cpu_seconds(lambda: [eam.label([s]) for s in few], args.repeats),
        "ASE EMT": len(few) / cpu_seconds(lambda: emt.label(few), args.repeats),
        "drawn and EAM-labeled, defaults of simulate": args.count
        / cpu_seconds(lambda: structures(config, 0, args.count), args.repeats),
    }
    print(f"{args.count} structures of {len(some[0])} atoms, float64, 1 thread: energy, forces, stress")
    print(f"{'':46s}{'structures/s':>14s}{'over EMT':>10s}")
    for name, rate in rows.items():
        print(f"{name:46s}{rate:14.0f}{rate / rows['ASE EMT']:9.1f}x")


if __name__ == "__main__":
    main()
