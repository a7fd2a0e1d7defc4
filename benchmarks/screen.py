"""Structures judged a minute by a screen, beside predicting them one by one: CPU time of one core.

    python benchmarks/screen.py                # gnn_tiny, 32 atoms, quinaries of five metals on FCC
    python benchmarks/screen.py --members 4    # an ensemble
    python benchmarks/screen.py --channels 128 --layers 4
    python benchmarks/screen.py --relax models/materials --atoms 4    # structures relaxed a minute, with their cells

The model is untrained, which costs the same. The structures are those of a screen: decorations of compositions at three
volumes. One by one, neighbors are searched for each structure; a screen searches them once for a lattice and goes
through structures in batches. Energies alone are asked for in both. The ways alternate; medians are given.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ase.data import atomic_numbers

from domains.materials.data.schema import Label, MaterialsSchema, MaterialsStatistics
from domains.materials.data.structure import Structure
from domains.materials.dynamics.relax import Relaxed
from domains.materials.inference.predictor import Predictor
from domains.materials.screening.compositions import read_grid
from domains.materials.screening.sites import Sites, compact_repeats
from domains.materials.simulation.alloys import atom_counts
from domains.materials.simulation.labeling import pure_crystal
from domains.materials.training.ensemble import MaterialsEnsemble
from domains.materials.training.heads import TargetConfig
from domains.materials.training.potential import MaterialsGNN
from domains.materials.training.task import MaterialsTaskConfig
from sciml.domain.protocol import FittedData, LoadedModel
from sciml.models.gnn import GNNConfig

METALS = ("Co", "Cu", "Fe", "Ni", "Pd")
STRAINS = (-0.02, 0.0, 0.02)


def untrained(config: GNNConfig, members: int) -> Predictor:
    """Returns a predictor of energies whose weights are as drawn."""
    numbers = tuple(sorted(atomic_numbers[symbol] for symbol in METALS))
    task = MaterialsTaskConfig(members=members)
    schema = MaterialsSchema(numbers, config.cutoff, {"energy": Label("graph", (), "eV")}, avg_num_neighbors=43.0)
    one = torch.ones((), dtype=torch.float64)
    known = MaterialsStatistics(
        references=-4 * torch.ones(1, len(numbers), dtype=torch.float64),
        energy_std=one,
        avg_num_neighbors=43 * one,
        element_counts=torch.ones(len(numbers), dtype=torch.float64),
        shortest=2 * torch.ones(len(numbers), len(numbers), dtype=torch.float64),
        mean={"energy": one},
        std={"energy": one},
        rms={"energy": one, "forces": one},
        count={"energy": one},
    )
    targets = {"energy": TargetConfig(kind="energy")}
    models = [MaterialsGNN(config, numbers, targets, avg_num_neighbors=43.0) for _ in range(members)]
    model = models[0] if members == 1 else MaterialsEnsemble(models)
    spec = argparse.Namespace(model=config, task=task)
    return Predictor(LoadedModel(Path(), spec, FittedData(schema, known), model.eval(), torch.device("cpu")))


def structures_of(count: int, sites: Sites) -> list[tuple[np.ndarray, float]]:
    """Returns elements on the sites, and lattice constants, of quinaries (in small cells of fewer) at three volumes."""
    generator = np.random.default_rng(0)
    found: list[tuple[np.ndarray, float]] = []
    order = min(5, len(sites) // 2)
    for composition in read_grid(METALS, (order,), 0.1, 0.0, 1.0).compositions():
        counts = atom_counts(composition.fractions, len(sites))
        numbers = np.repeat([atomic_numbers[symbol] for symbol in counts], list(counts.values()))
        a = float(np.mean([pure_crystal("eam", symbol, "fcc").a for symbol in METALS]))
        found += [(generator.permutation(numbers), a * (1 + strain)) for strain in STRAINS]
    return (found * (1 + count // len(found)))[:count]


def relaxations(run: str, atoms: int, count: int) -> None:
    """Prints how many structures a trained model relaxes a minute, together and one by one as ASE does."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    from domains.materials.dynamics.relax import RelaxConfig, relax
    from domains.materials.inference.calculator import SciMLCalculator

    predictor, config = Predictor.open(run), RelaxConfig("cell", fmax=0.03)
    sites = Sites("fcc", compact_repeats("fcc", atoms), predictor.cutoff)
    samples = [sites.sample(numbers, a) for numbers, a in structures_of(count, sites)]
    some = [Structure(one.atomic_numbers, one.positions, one.cell, one.pbc) for one in samples]
    found: list[Relaxed] = []
    together = cpu_seconds(lambda: found.extend(relax(predictor, some, config)))
    calculator = SciMLCalculator(run, dtype="float32")

    def alone() -> None:
        for structure in some[: max(1, count // 20)]:
            one = structure.to_atoms()
            one.calc = calculator
            FIRE(FrechetCellFilter(one), logfile=None).run(fmax=config.fmax, steps=config.max_steps)

    each = cpu_seconds(alone) / max(1, count // 20)
    steps = statistics.mean(one.steps for one in found)
    print(f"{len(sites)} atoms, {count} structures, atoms and cells to {config.fmax:g} eV/A in {steps:.0f} steps;"
          f" float32, 1 thread; CPU time")  # fmt: skip
    print(f"together {60 * count / together:,.0f} structures/min, by ASE {60 / each:,.0f}; "
          f"{sum(one.converged for one in found)} converged")  # fmt: skip


def cpu_seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {"count": 400, "atoms": 32, "members": 1, "channels": 64, "layers": 3, "repeats": 5}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--relax", metavar="RUN", help="measure relaxations by a trained model instead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.relax:
        relaxations(args.relax, args.atoms, args.count)
        return
    predictor = untrained(GNNConfig(num_channels=args.channels, num_layers=args.layers), args.members)
    cell = compact_repeats("fcc", args.atoms)
    drawn = structures_of(args.count, Sites("fcc", cell, predictor.cutoff))

    def structure(numbers: np.ndarray, a: float) -> Structure:
        sample = plain.sample(numbers, a)
        return Structure(sample.atomic_numbers, sample.positions, sample.cell, sample.pbc)

    plain = Sites("fcc", cell, predictor.cutoff)
    some = [structure(numbers, a) for numbers, a in drawn]
    few = some[: max(1, args.count // 5)]

    def screened() -> np.ndarray:
        sites = Sites("fcc", cell, predictor.cutoff)
        return predictor.member_values((sites.sample(numbers, a) for numbers, a in drawn), "energy")

    ways: dict[str, tuple[Callable[[], object], int]] = {
        "screen": (screened, len(drawn)),
        "in batches, neighbors of each": (lambda: list(predictor.predict(some, gradients=False)), len(some)),
        "one by one": (lambda: [list(predictor.predict([one], gradients=False)) for one in few], len(few)),
    }
    first = next(iter(predictor.predict(few[:1], gradients=False)))["energy"]
    assert abs(float(first) - screened()[:, 0].mean()) < 1e-3
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(args.repeats + 1):
        for name, (function, count) in ways.items():
            taken = cpu_seconds(function) / count
            if number:  # the first one warms up
                times[name].append(taken)
    print(
        f"{len(some[0])} atoms, {len(plain.sample(*drawn[0]).senders)} edges, {args.layers} layers, {args.channels} "
        f"channels, {args.members} member(s), float32, 1 thread; CPU time"
    )
    print(f"{'':34s}{'structures/min':>16s}{'over one by one':>18s}")
    slow = statistics.median(times["one by one"])
    for name, found in times.items():
        middle = statistics.median(found)
        print(f"{name:34s}{60 / middle:16,.0f}{slow / middle:17.1f}x")


if __name__ == "__main__":
    main()
