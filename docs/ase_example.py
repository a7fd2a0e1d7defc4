"""A trained potential in ASE's hands, beside the EAM that labeled its training data.

    python scripts/train.py domain=materials
    python docs/ase_example.py                     # the latest run; a few minutes on one core
    python docs/ase_example.py RUN --cells 2 --ps 1

Relaxes a random CoCuFeNiPd cell with FIRE, and follows it through an equation of state, elastic constants and dynamics
at constant energy. Draws docs/images/ase_alloy.png and prints what it shows.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE

from domains.materials.data.structure import Structure, stress_voigt
from domains.materials.inference.calculator import OutsideTrainingSet, SciMLCalculator
from domains.materials.simulation.alloys import rattled, solid_solution
from domains.materials.simulation.labeling import EAMLabeler, pure_crystal
from domains.materials.training.metrics import GPA
from sciml.report.style import INK, MODEL_COLOR, MUTED, add_titles, new_figure, save_png, suite_style

ELEMENTS = ("Co", "Cu", "Fe", "Ni", "Pd")
RATTLE = 0.1  # A
FMAX = 0.005  # eV/A
STRAIN = 0.005
STRETCHES = np.linspace(0.96, 1.04, 33)
TRAINED = 0.03  # the largest strain of the training data's cells
STEP_FS, SAMPLED = 2.0, 5  # femtoseconds; steps between two samples of the energy
SETTLING_PS = 0.5


class EAM(Calculator):
    """The potential behind the training data, as a calculator."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        (labels,) = EAMLabeler().label([Structure.from_atoms(self.atoms)])
        energy = float(labels["energy"])
        stress = stress_voigt(labels["stress"])
        self.results = {"energy": energy, "free_energy": energy, "forces": labels["forces"], "stress": stress}


def alloy(cells: int, seed: int = 0) -> Atoms:
    """A rattled cell of equal shares on random sites of FCC."""
    generator = np.random.default_rng(seed)
    shares = dict.fromkeys(ELEMENTS, 1 / len(ELEMENTS))
    sites, _ = solid_solution(
        "fcc", shares, (cells,) * 3, lambda symbol, lattice: pure_crystal("eam", symbol, lattice)[:2], generator
    )
    return rattled(sites, RATTLE, generator).to_atoms()


def relaxed(atoms: Atoms, calculator: Calculator, *, cell: bool) -> tuple[Atoms, list[tuple[float, float]]]:
    """Atoms at rest, and on the way each step's energy (eV/atom) and largest force (eV/A; the cell's own included)."""
    atoms = atoms.copy()
    atoms.calc = calculator
    moved = FrechetCellFilter(atoms) if cell else atoms
    steps: list[tuple[float, float]] = []
    optimizer = FIRE(moved, logfile=None)

    def note() -> None:
        force = float(np.sqrt(np.square(moved.get_forces()).sum(1).max()))
        steps.append((atoms.get_potential_energy() / len(atoms), force))

    optimizer.attach(note)
    if not optimizer.run(fmax=FMAX, steps=1000):
        raise RuntimeError(f"not at rest after 1000 steps, the largest force is {steps[-1][1]:.3f} eV/A")
    return atoms, steps


def stretched(atoms: Atoms, calculator: Calculator) -> tuple[np.ndarray, np.ndarray]:
    """Volumes (A^3/atom) and energies (eV/atom) of the cell with all lengths stretched alike."""
    volumes, energies = [], []
    for stretch in STRETCHES:
        some = atoms.copy()
        some.set_cell(atoms.cell * stretch, scale_atoms=True)
        some.calc = calculator
        volumes.append(some.get_volume() / len(some))
        energies.append(some.get_potential_energy() / len(some))
    return np.array(volumes), np.array(energies)


def elastic_constants(atoms: Atoms, calculator: Calculator) -> dict[str, float]:
    """C11, C12 and C44 (GPa) from stresses of strained cells with atoms at rest, as means over the cube's axes."""
    slopes = np.zeros((6, 6))
    for strained in range(6):
        for sign in (1, -1):
            voigt = np.zeros(6)
            voigt[strained] = sign * STRAIN
            xx, yy, zz, yz, xz, xy = voigt
            strain = np.array([[xx, xy / 2, xz / 2], [xy / 2, yy, yz / 2], [xz / 2, yz / 2, zz]])
            some = atoms.copy()
            some.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            some, _ = relaxed(some, calculator, cell=False)
            slopes[strained] += sign * some.get_stress() * GPA / (2 * STRAIN)
    normal = slopes[:3, :3]
    return {
        "C11": float(np.diag(normal).mean()),
        "C12": float(normal[~np.eye(3, dtype=bool)].mean()),
        "C44": float(np.diag(slopes)[3:].mean()),
    }


def dynamics(atoms: Atoms, calculator: Calculator, picoseconds: float, seed: int = 0) -> np.ndarray:
    """Rows of time (ps), total energy (eV/atom) and temperature (K) at constant energy.

    Started at 600 K from rest, half of which goes into the springs before the first row.
    """
    atoms = atoms.copy()
    atoms.calc = calculator
    speeds = np.random.default_rng(seed).normal(
        0, np.sqrt(600 * units.kB / atoms.get_masses())[:, None], (len(atoms), 3)
    )
    atoms.set_velocities(speeds)
    Stationary(atoms)
    VelocityVerlet(atoms, STEP_FS * units.fs).run(round(1000 * SETTLING_PS / STEP_FS))
    rows = []
    steps = VelocityVerlet(atoms, STEP_FS * units.fs)

    def note() -> None:
        rows.append(
            (steps.get_time() / units.fs / 1000, atoms.get_total_energy() / len(atoms), atoms.get_temperature())
        )

    steps.attach(note, interval=SAMPLED)
    steps.run(round(1000 * picoseconds / STEP_FS))
    return np.array(rows)


def slope_of(rows: np.ndarray) -> float:
    """Drift of the total energy, eV/atom/ps."""
    return float(np.polyfit(rows[:, 0], rows[:, 1], 1)[0])


def draw(found: dict[str, Any], atoms: Atoms, path: Path) -> Path:
    """The four results in one picture."""
    looks = {"model": (MODEL_COLOR, "model"), "EAM": (INK, "EAM (truth)")}
    with suite_style():
        figure = new_figure(10.4, 7.2)
        add_titles(figure, source=f"{len(atoms)} atoms, Co-Cu-Fe-Ni-Pd on FCC; trained on EAM-labeled alloys, not DFT")
        (relaxing, states), (elastic, moving) = figure.subplots(2, 2)

        energies, forces = np.array(found["relaxation"]).T
        relaxing.semilogy(forces, color=MODEL_COLOR)
        relaxing.axhline(FMAX, color=MUTED, lw=0.9, ls="--")
        relaxing.set(title="FIRE, atoms and cell", xlabel="step", ylabel="largest force, eV/A")
        drop = f"energy fell by {1e3 * (energies[0] - energies[-1]):.0f} meV/atom"
        relaxing.text(0.97, 0.93, drop, transform=relaxing.transAxes, ha="right", va="top")

        for name, (color, label) in looks.items():
            volumes, curve = found["states"][name]
            look = {"ls": "none", "marker": "o", "mfc": "none", "markevery": 2} if name == "EAM" else {}
            states.plot(volumes, curve, color=color, label=label, **look)
        least = volumes[len(volumes) // 2]
        ends = (least * (1 + sign * TRAINED) ** 3 for sign in (-1, 1))
        states.axvspan(*ends, color=MODEL_COLOR, alpha=0.08, lw=0, label="strains of the training set")
        states.set(title="Equation of state", xlabel="volume, A³/atom", ylabel="energy, eV/atom")
        states.legend(loc="upper center")

        names = list(found["elastic"]["model"])
        places = np.arange(len(names))
        for shift, (name, (color, label)) in zip((-0.2, 0.2), looks.items(), strict=True):
            bars = elastic.bar(
                places + shift, [found["elastic"][name][c] for c in names], 0.38, color=color, label=label
            )
            elastic.bar_label(bars, fmt="%.0f", padding=2, fontsize=9)
        elastic.set_xticks(places, names)
        elastic.grid(axis="x", visible=False)
        elastic.margins(y=0.15)
        elastic.set(title="Elastic constants", ylabel="GPa")
        elastic.legend(loc="upper right")

        times, total, temperature = found["dynamics"].T
        kinetic = 1.5 * units.kB * temperature
        moving.plot(times, 1e3 * (kinetic - kinetic.mean()), color=MUTED, lw=0.9, label="kinetic, about its mean")
        moving.plot(times, 1e3 * (total - total[0]), color=MODEL_COLOR, label="total")
        moving.set(title=f"Constant energy, {temperature.mean():.0f} K", xlabel="time, ps", ylabel="energy, meV/atom")
        moving.margins(y=0.25)
        moving.legend(loc="upper right", ncols=2)
        drift = f"total drifts by {1e6 * slope_of(found['dynamics']):.1f} µeV/atom/ps"
        moving.text(0.97, 0.05, drift, transform=moving.transAxes, ha="right")
        return save_png(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default="latest", help="a run's folder or name")
    parser.add_argument("--runs-dir", default="runs")
    parser.add_argument("--cells", type=int, default=3, help="cubic cells along each axis; 3 are 108 atoms")
    parser.add_argument("--ps", type=float, default=5.0, help="length of the dynamics, ps")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images" / "ase_alloy.png")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, truth = SciMLCalculator(args.run, runs_dir=args.runs_dir), EAM()
    warnings.simplefilter("always", OutsideTrainingSet)

    start = alloy(args.cells)
    rest, relaxation = relaxed(start, model, cell=True)
    true_rest, _ = relaxed(start, truth, cell=True)
    print(f"FIRE: {len(relaxation)} steps, {rest.get_volume() / len(rest):.3f} A^3/atom", end="")
    print(f" (EAM: {true_rest.get_volume() / len(rest):.3f})")

    found: dict[str, Any] = {"relaxation": relaxation, "states": {}, "elastic": {}}
    for name, calculator, atoms in (("model", model, rest), ("EAM", truth, true_rest)):
        found["states"][name] = stretched(rest, calculator)
        volume, energy, bulk = EquationOfState(*found["states"][name], eos="birchmurnaghan").fit()
        found["elastic"][name] = elastic_constants(atoms, calculator)
        constants = ", ".join(f"{constant} {value:.1f}" for constant, value in found["elastic"][name].items())
        print(f"{name:6}V0 {volume:.3f} A^3/atom, E0 {energy:.4f} eV/atom, B {bulk * GPA:.1f} GPa; {constants} GPa")

    rows = found["dynamics"] = dynamics(rest, model, args.ps)
    print(f"NVE: {args.ps:g} ps at {rows[:, 2].mean():.0f} K, total energy drifts by", end=" ")
    print(f"{1e6 * slope_of(rows):.2f} ueV/atom/ps, within {1e3 * np.ptp(rows[:, 1]):.3f} meV/atom")
    print(draw(found, rest, args.out))


if __name__ == "__main__":
    main()
