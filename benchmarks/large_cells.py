"""One large cell: time and memory an atom of energies, forces and stress, by one process and by ranks that share it.

    python benchmarks/large_cells.py                               # 1,000 to 100,000 atoms, gnn_tiny in float32
    python benchmarks/large_cells.py --atoms 32000 --dtype float64
    torchrun --nproc-per-node 2 benchmarks/large_cells.py --atoms 32000

The model is untrained, which costs the same. Each size is measured in a process of its own, whose largest resident
memory less that before the model is called is what atoms need; neighbor lists are counted in. With ranks, each is
measured, and the largest is told. Times are of the CPU, since others may use the machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from typing import Any

import numpy as np
import torch
from ase.build import bulk
from screen import untrained

from domains.materials.data.neighbors import graph_sample
from domains.materials.data.structure import Structure
from domains.materials.inference.predictor import Predictor
from sciml.distributed.launcher import launched
from sciml.distributed.world import join
from sciml.models.gnn import GNNConfig

SIZES = (1_000, 4_000, 16_000, 32_000, 100_000)


def cell(atoms: int) -> Structure:
    """Returns a rattled random alloy on a cube of about so many sites."""
    side = round((atoms / 4) ** (1 / 3))
    made = bulk("Ni", "fcc", 3.58, cubic=True).repeat(side)
    generator = np.random.default_rng(0)
    made.numbers = generator.choice([27, 28, 29], len(made))
    made.rattle(0.1, rng=generator)
    return Structure.from_atoms(made)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(atoms: int, dtype: str) -> dict[str, Any]:
    """Returns seconds and memory of one evaluation."""
    torch.set_num_threads(1)
    world = join("cpu")
    predictor: Predictor = untrained(GNNConfig(repulsion="zbl"), 1)
    predictor.dtype = getattr(torch, dtype)
    predictor.model.to(predictor.dtype)
    predictor.world, predictor.least_shared = world, 0
    list(predictor.predict([cell(500)]))  # warms up
    structure = cell(atoms)
    before, start = peak_mib(), time.process_time()
    sample = graph_sample(structure, predictor.cutoff)
    listed = time.process_time() - start
    (values,) = predictor.predict_samples([sample])
    seconds = time.process_time() - start
    assert np.isfinite(values["forces"]).all()
    figures = {"listing": listed, "seconds": seconds, "mib": peak_mib() - before}
    if world.size > 1:
        tensors = torch.tensor(list(figures.values()), dtype=torch.float64)
        torch.distributed.all_reduce(tensors, torch.distributed.ReduceOp.MAX)
        figures = dict(zip(figures, tensors.tolist(), strict=True))
    return {"atoms": len(structure), "edges": len(sample.senders), "ranks": world.size, **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, nargs="*", default=SIZES)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    many = launched()
    if many.rank == 0:
        print("atoms     edges       ranks   listing, s   all, CPU s   us/atom   MiB     KiB/atom", flush=True)
    for atoms in args.atoms:
        if many.size > 1:
            found = measure(atoms, args.dtype)
        else:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(measure, (atoms, args.dtype))
        if many.rank == 0:
            each = found["atoms"]
            print(
                f"{each:<9,} {found['edges']:<11,} {found['ranks']:<7} {found['listing']:<12.1f} "
                f"{found['seconds']:<12.1f} {1e6 * found['seconds'] / each:<9.0f} {found['mib']:<7,.0f} "
                f"{1024 * found['mib'] / each:.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
