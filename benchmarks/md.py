"""Molecular dynamics with a trained potential through ASE: steps a second, with and without a skin around the cutoff.

    python scripts/train.py domain=materials
    python benchmarks/md.py                      # the latest run; 108 and 1,000 atoms, one thread
    python benchmarks/md.py RUN --skins 0 0.3 1  # A

Steps of 2 fs at constant energy, started at 600 K. Times are CPU seconds of blocks of steps; the blocks of all ways
alternate, so that they see the same machine, and medians are given.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.md.verlet import VelocityVerlet

from domains.materials.data.neighbors import graph_sample
from domains.materials.data.structure import Structure
from domains.materials.inference.calculator import SciMLCalculator

ELEMENTS = ("Co", "Cu", "Fe", "Ni", "Pd")
A = 3.62  # A


def hot_alloy(cells: tuple[int, int, int]) -> Atoms:
    """Returns an alloy of equal shares on random sites of FCC, at 600 K."""
    generator = np.random.default_rng(0)
    atoms = bulk("Ni", "fcc", A, cubic=True).repeat(cells)
    atoms.symbols = generator.permutation(np.resize(ELEMENTS, len(atoms)))
    speeds = np.sqrt(600 * units.kB / atoms.get_masses())[:, None]
    atoms.set_velocities(speeds * generator.standard_normal((len(atoms), 3)))
    return atoms


def cpu_ms(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start)


def search_ms(atoms: Atoms, reach: float) -> float:
    """Returns the median time of several searches for neighbors."""
    structure = Structure.from_atoms(atoms)
    return statistics.median(cpu_ms(lambda: graph_sample(structure, reach)) for _ in range(11))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default="latest")
    parser.add_argument("--runs-dir", default="runs")
    parser.add_argument("--skins", type=float, nargs="+", default=[0.0, 0.5, 1.0], help="A")
    parser.add_argument("--steps", type=int, default=40, help="in a block of 108 atoms; of 1,000 a fourth of them")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'':34s}{'ms/step':>9s}{'steps/s':>9s}{'ms/search':>11s}{'searches/step':>15s}")
    for cells, steps in (((3, 3, 3), args.steps), ((5, 5, 10), max(1, args.steps // 4))):
        ways: dict[tuple[str, float], VelocityVerlet] = {}
        for dtype, skin in itertools.product(("float64", "float32"), args.skins):
            atoms = hot_alloy(cells)
            atoms.calc = SciMLCalculator(args.run, runs_dir=args.runs_dir, dtype=dtype, skin=skin)
            ways[dtype, skin] = VelocityVerlet(atoms, 2 * units.fs)
        times: dict[tuple[str, float], list[float]] = {way: [] for way in ways}
        for number in range(args.repeats + 1):
            for way, dynamics in ways.items():
                taken = cpu_ms(partial(dynamics.run, steps)) / steps
                if number:  # the first block warms up
                    times[way].append(taken)
        for (dtype, skin), found in times.items():
            atoms = ways[dtype, skin].atoms
            middle, search = statistics.median(found), search_ms(atoms, atoms.calc.predictor.cutoff + skin)
            searches = atoms.calc.searches / (steps * (args.repeats + 1))
            name = f"{len(atoms):5d} atoms, {dtype}, skin {skin:g} A"
            print(f"{name:34s}{middle:9.1f}{1e3 / middle:9.1f}{search:11.2f}{searches:15.2f}", flush=True)


if __name__ == "__main__":
    main()
