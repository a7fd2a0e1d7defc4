"""Order and heat capacity of an alloy against temperature: ``scripts/thermodynamics.py elements=CoCrFeNi``."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from domains.materials.data.structure import Structure
from domains.materials.inference.predictor import Predictor
from domains.materials.screening.screen import fingerprint
from domains.materials.screening.sites import Sites, compact_repeats
from domains.materials.simulation.alloys import atom_counts
from domains.materials.thermodynamics.averages import (
    Estimate,
    blocks,
    energy_and_heat_capacity,
    jackknife,
    ordering_temperature,
    warren_cowley_by_shell,
)
from domains.materials.thermodynamics.lattice_energy import LatticeEnergy, lattice_constant, shells
from domains.materials.thermodynamics.monte_carlo import Chains, Energy
from domains.materials.thermodynamics.thermodynamics_config import ThermodynamicsConfig
from domains.materials.thermodynamics.thermodynamics_figures import thermodynamics_figures
from sciml.core.files import atomic_directory, read_json, write_json
from sciml.core.lock import lock_output
from sciml.core.progress import track
from sciml.core.provenance import version
from sciml.core.result import CommandResult
from sciml.data.staging import StagedParts
from sciml.domain.protocol import LoadedModel

Array = np.ndarray
PARTS = 20
"""Parts that a sampling is recorded in; an interrupted one goes on behind the last."""
SHELLS = 2
RECORD = "thermodynamics.json"
OF_OUTPUT = ("out", "overwrite")


@dataclass(frozen=True)
class Sampling:
    """Holds what chains went through, behind equilibration.

    Attributes:
        energies: eV, of structures.
        order: Warren-Cowley parameters.
        chains: as they ended.
    """

    energies: Float[Array, "sample temperature replica"]
    order: Float[Array, "sample temperature replica shell element element"]
    chains: Chains


def thermodynamics(loaded: LoadedModel, config: ThermodynamicsConfig) -> CommandResult:
    """Samples an alloy at all temperatures, and writes tables, pictures and snapshots; whole or not at all.

    A sampling that was stopped goes on where it was with the same settings and weights.

    Raises:
        ConfigError: the model cannot judge this alloy, or the folder exists and is not to be replaced.
        RunError: the disk is full.
    """
    from ase.data import atomic_numbers

    predictor = Predictor(loaded, dtype=config.dtype, branch=config.branch)
    predictor.keep_branch(atomic_numbers[symbol] for symbol in config.counts)
    sites = Sites(config.lattice, compact_repeats(config.lattice, config.atoms), predictor.cutoff)
    total = sum(config.counts.values())
    counts = atom_counts({symbol: count / total for symbol, count in config.counts.items()}, len(sites))
    kinds = np.repeat([atomic_numbers[symbol] for symbol in counts], list(counts.values()))
    out = Path(config.out) if config.out else loaded.directory / "thermodynamics" / config.name
    about = {"run": str(loaded.directory), "weights": fingerprint(loaded), "data": loaded.fitted.schema.title}
    with lock_output(out, lambda path: (path / RECORD).exists(), overwrite=config.overwrite, keep_existing=False):
        energy = LatticeEnergy(predictor, sites, lattice_constant(predictor, sites, kinds, counts))
        started = time.monotonic()
        parts = StagedParts(out, _settings(config, about), ".json")
        sampling, new = sample(energy, kinds, shells(energy.structure, SHELLS), config, parts)
        seconds = time.monotonic() - started
        results = Results.of(sampling, config, sorted(set(kinds.tolist())), counts)
        notes = [*results.notes(), *predictor.told_data_set()]
        with atomic_directory(out) as folder:
            (folder / "thermodynamics.csv").write_text(results.table())
            record = {**results.to_dict(), "lattice_constant": round(energy.a, 5), "notes": notes}
            write_json(folder / RECORD, {"settings": _settings(config, about), **record})
            (folder / "snapshots.extxyz").write_bytes(_snapshots(energy.structure, sampling, config))
            for figure in thermodynamics_figures(results, about["data"]):
                figure.render(folder / "figures" / figure.name)
        parts.remove()
    speed = {"structures": new, "seconds": round(seconds, 2)}
    lines = [
        f"sampled   {results.formula} on {config.lattice}: {new:,} structures in {seconds:.0f} s",
        "",
        *results.lines(),
        "",
        *(f"note      {note}" for note in notes),
        f"made      {out}",
    ]
    return CommandResult({"path": str(out), **speed, **results.to_dict(), "notes": notes}, "\n".join(lines))


def sample(
    energy: Energy,
    kinds: Int[Array, "site"],
    neighbors: Sequence[Float[Array, "site site"]],
    config: ThermodynamicsConfig,
    parts: StagedParts,
) -> tuple[Sampling, int]:
    """Runs the chains, part by part; parts that are there are read.

    Returns:
        What was sampled, and how many energies that took now.
    """
    temperatures, elements = config.kelvin, sorted(set(kinds.tolist()))
    chains, new = None, 0
    energies: list[Array] = []
    order: list[Array] = []
    groups = np.array_split(np.arange(config.sweeps), min(PARTS, config.sweeps))
    for number, sweeps in enumerate(track(groups, "Sampling", total=len(groups))):
        path = parts.path(number)
        if path.exists():
            part = read_json(path, dict[str, Any])
            chains = Chains.from_dict(part["chains"])
            energies += [np.array(one) for one in part["energies"]]
            order += [np.array(one) for one in part["order"]]
            continue
        if chains is None:
            chains = Chains.start(kinds, energy, len(temperatures), config.replicas, config.seed)
        here: tuple[list[Array], list[Array]] = ([], [])
        for sweep in sweeps:
            chains.sweep(energy, temperatures)
            new += len(kinds) * chains.energies.size
            if sweep >= config.skipped:
                here[0].append(chains.energies.copy())
                here[1].append(warren_cowley_by_shell(chains.kinds, elements, neighbors))
        energies, order = energies + here[0], order + here[1]
        lists = {"energies": [one.tolist() for one in here[0]], "order": [one.tolist() for one in here[1]]}
        write_json(path, {"chains": chains.to_dict(), **lists})
    assert chains is not None  # there is at least one part
    return Sampling(np.stack(energies), np.stack(order), chains), new


@dataclass(frozen=True)
class Results:
    """Holds averages by temperature, with errors.

    Attributes:
        energy: eV/atom. heat_capacity: of the configurations, in Boltzmann constants an atom.
        order: Warren-Cowley parameters (temperature, shell, pair).
        pairs: of elements.
        accepted: share of swaps that were taken.
        ordering: temperature of the heat capacity's peak and its uncertainty, K; None where there is none.
    """

    formula: str
    num_atoms: int
    temperatures: Float[Array, "temperature"]
    energy: Estimate
    heat_capacity: Estimate
    order: Estimate
    pairs: tuple[str, ...]
    accepted: Float[Array, "temperature"]
    ordering: tuple[float, float] | None

    @classmethod
    def of(
        cls, sampling: Sampling, config: ThermodynamicsConfig, elements: Sequence[int], counts: dict[str, int]
    ) -> Results:
        """Averages over all samples and replicas."""
        from ase.data import chemical_symbols

        energy, capacity = energy_and_heat_capacity(sampling.energies, config.kelvin, sum(counts.values()))
        places = list(combinations_with_replacement(range(len(elements)), 2))
        of_pairs = np.stack([sampling.order[..., i, j] for i, j in places], axis=-1)
        return cls(
            "".join(f"{symbol}{count}" for symbol, count in counts.items()),
            sum(counts.values()),
            config.kelvin,
            energy,
            capacity,
            jackknife(blocks(of_pairs), lambda mean: mean),
            tuple(f"{chemical_symbols[elements[i]]}-{chemical_symbols[elements[j]]}" for i, j in places),
            sampling.chains.taken / max(sampling.chains.tried, 1),
            ordering_temperature(capacity, config.kelvin),
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yields a row of the table for each temperature."""
        for number, temperature in enumerate(self.temperatures):
            row: dict[str, Any] = {"temperature": float(temperature), "accepted": float(self.accepted[number])}
            for name, estimate in (("energy", self.energy), ("heat_capacity", self.heat_capacity)):
                row |= {name: float(estimate.mean[number]), f"{name}_error": float(estimate.error[number])}
            for shell in range(self.order.mean.shape[1]):
                for place, pair in enumerate(self.pairs):
                    name = f"alpha{shell + 1}_{pair}"
                    row[name] = float(self.order.mean[number, shell, place])
                    row[f"{name}_error"] = float(self.order.error[number, shell, place])
            yield {name: round(value, 6) if np.isfinite(value) else None for name, value in row.items()}

    def table(self) -> str:
        """Returns the rows as CSV."""
        rows = list(self.rows())
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as JSON has it."""
        ordering = None if self.ordering is None else {"kelvin": self.ordering[0], "within": self.ordering[1]}
        return {"formula": self.formula, "ordering_temperature": ordering, "temperatures": list(self.rows())}

    def lines(self) -> list[str]:
        """Returns the averages as lines to print; of nearest neighbors the pair that is ordered most."""
        strongest = int(np.abs(self.order.mean[:, 0]).max(0).argmax())
        head = f"{'K':>7}  {'eV/atom':>9}  {'C, k/atom':>15}  {'alpha ' + self.pairs[strongest]:>17}  swaps taken"
        lines = [head]
        for number, temperature in enumerate(self.temperatures):
            heat = f"{self.heat_capacity.mean[number]:.3f} +- {self.heat_capacity.error[number]:.3f}"
            order = self.order.mean[number, 0, strongest], self.order.error[number, 0, strongest]
            lines.append(
                f"{temperature:>7.0f}  {self.energy.mean[number]:>9.4f}  {heat:>15}  "
                f"{order[0]:>8.3f} +- {order[1]:.3f}  {self.accepted[number]:>9.0%}"
            )
        return lines

    def notes(self) -> Iterator[str]:
        """Yields what a reader of the table must know."""
        yield "atoms stay on the sites of a rigid crystal: vibrations and relaxation are left out"
        yield f"where {self.num_atoms} atoms are random, alpha of unlike pairs is {-1 / (self.num_atoms - 1):.3f}"
        if self.ordering is None:
            yield "the heat capacity has no clear peak within these temperatures: no ordering temperature"
        else:
            yield f"the heat capacity peaks at {self.ordering[0]:.0f} K, within {self.ordering[1]:.0f} K"
        if self.accepted.min() < 0.01:
            yield "at the lowest temperatures hardly a swap is taken; add temperatures or sweeps"


def _settings(config: ThermodynamicsConfig, about: dict[str, str]) -> dict[str, Any]:
    settings = {key: value for key, value in asdict(config).items() if key not in OF_OUTPUT}
    return {**settings, **about, "versions": {name: version(name) for name in ("sciml", "numpy", "torch")}}


def _snapshots(structure: Structure, sampling: Sampling, config: ThermodynamicsConfig) -> bytes:
    """Returns the last configuration of the first replica at each temperature, as extended XYZ."""
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io.extxyz import write_extxyz

    text = io.StringIO()
    for number, temperature in enumerate(config.kelvin):
        numbers = sampling.chains.kinds[number, 0]
        atoms = Atoms(numbers, positions=structure.positions, cell=structure.cell, pbc=True)
        atoms.info["temperature"] = float(temperature)
        atoms.calc = SinglePointCalculator(atoms, energy=float(sampling.chains.energies[number, 0]))
        write_extxyz(text, [atoms])
    return text.getvalue().encode()
