"""Measures how fast structures become graphs: neighbor lists, collation, and the loader's samples a second.

Run: python benchmarks/graphs.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.neighborlist import neighbor_list as ase_neighbor_list

from domains.materials.data.batch import GraphSample, collate
from domains.materials.data.neighbors import neighbor_list
from domains.materials.data.prepare import PrepareConfig, prepare
from domains.materials.data.samples import StructureSource
from domains.materials.data.store import MaterialsStore
from domains.materials.data.structure import Structure
from sciml.data.loader import ShuffledSampler, training_batches


def rattled(num_cells: tuple[int, int, int], seed: int = 0) -> Atoms:
    """Returns a rattled FCC alloy with labels that say nothing."""
    generator = np.random.default_rng(seed)
    atoms = bulk("Ni", "fcc", 3.6, cubic=True).repeat(num_cells)
    atoms.symbols = generator.choice(["Fe", "Co", "Ni", "Cr", "Mn"], len(atoms))
    atoms.positions += generator.normal(0, 0.05, atoms.positions.shape)
    forces = generator.normal(0, 1, (len(atoms), 3))
    energy = -7.0 * len(atoms) + generator.normal()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=generator.normal(0, 0.01, 6))
    return atoms


def median_ms(work: Callable[[], Any], seconds: float) -> float:
    """Returns the median time of a call."""
    work()
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def graph_of(structure: Structure, cutoff: float) -> GraphSample:
    """Returns a structure with its neighbors."""
    near = neighbor_list(structure, cutoff)
    return GraphSample(
        structure.atomic_numbers,
        structure.positions,
        structure.cell,
        structure.pbc,
        near.senders,
        near.receivers,
        near.shifts,
        labels=structure.labels,
    )


def loader_rate(source: StructureSource, batch: int, workers: int, seconds: float) -> float:
    """Returns the samples a second of the training loader."""
    stream = ShuffledSampler(len(source), batch, seed=0)
    batches = training_batches(
        source, stream, start_step=0, stop_step=10**9, micro_batch_size=batch, num_workers=workers
    )
    for _ in range(5):
        next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        count += next(batches).num_samples
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cutoff", type=float, default=5.0, help="A")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--structures", type=int, default=500)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'neighbors within ' + format(args.cutoff, 'g') + ' A':40}{'edges':>9}{'ms':>9}")
    for cells in ((2, 2, 2), (3, 3, 3), (5, 5, 10)):
        atoms = rattled(cells)
        structure = Structure.from_atoms(atoms)
        edges = len(neighbor_list(structure, args.cutoff))
        rows: dict[str, Callable[[], Any]] = {
            "neighbor list (vesin)": lambda s=structure: neighbor_list(s, args.cutoff),
            "graph of one structure": lambda s=structure: collate([graph_of(s, args.cutoff)]),
        }
        if len(atoms) < 1000:
            rows["neighbor list (ASE)"] = lambda a=atoms: ase_neighbor_list("ijS", a, args.cutoff)
        for name, work in rows.items():
            print(f"{len(atoms):5} atoms, {name:27}{edges:9}{median_ms(work, args.seconds):9.3f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "alloys.extxyz"
        write(path, [rattled((2, 2, 2), seed) for seed in range(args.structures)], format="extxyz")
        start = time.perf_counter()
        config = PrepareConfig(path=str(path), out=str(Path(folder) / "store"), cutoff=args.cutoff)
        store = MaterialsStore.open(prepare(config))
        elapsed = time.perf_counter() - start
        source = StructureSource.of_split(store, "train")
        some = [store.sample(int(index)) for index in source.indices[: args.batch]]
        print(f"prepare, structures/s {args.structures / elapsed:27.0f}")
        collating = median_ms(lambda: source.collate(some), args.seconds)
        print(f"collate {args.batch} structures of 32 atoms, ms {collating:11.3f}")
        for workers in dict.fromkeys((0, args.workers)):
            rate = loader_rate(source, args.batch, workers, args.seconds)
            print(f"loader with {workers} workers, samples/s {rate:16.0f}", flush=True)


if __name__ == "__main__":
    main()
