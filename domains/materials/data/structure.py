"""One arrangement of atoms with what is known of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms

Label = np.ndarray
ASE_RESULTS = {"magnetic_moments": "magmoms"}
"""Labels that ASE's calculators call otherwise."""
CALCULATOR_LABELS = ("energy", "forces", "stress", "magnetic_moments", "charges")


@dataclass(frozen=True)
class Structure:
    """Holds atoms in a cell, in ASE's words and units.

    Attributes:
        atomic_numbers: (N,) int64.
        positions: (N, 3) float64, A; atoms may lie outside the cell.
        cell: (3, 3) float64, A, a vector a row; zeros where there is none.
        pbc: (3,) bool, along which cell vectors the structure repeats.
        labels: what is known, by name: () or (3, 3) of the whole structure, (N,) or (N, k) of its atoms.
            energy (eV, of the whole structure), forces (N, 3) (eV/A), stress (3, 3) (eV/A^3, ASE's sign: negative
            where the structure wants to expand), magnetic_moments (N,) (muB), charges (N,) (e), mixing_enthalpy
            (eV/atom), or any other name.
        name: where it comes from, e.g. ``relaxed.extxyz #12``.
        group: what it belongs to, e.g. ``NbTa elastic``; may be empty.
        branch: number of the data set, of which each may have decoders of its own.
    """

    atomic_numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    labels: Mapping[str, Label] = field(default_factory=dict)
    name: str = ""
    group: str = ""
    branch: int = 0

    def __len__(self) -> int:
        return len(self.atomic_numbers)

    @property
    def formula(self) -> str:
        """Returns the elements in order of their numbers with their counts, e.g. ``Nb2Ta``."""
        return formula(self.atomic_numbers)

    @property
    def elements(self) -> tuple[int, ...]:
        """Returns the atomic numbers of the elements in it, increasing."""
        return tuple(int(z) for z in np.unique(self.atomic_numbers))

    @property
    def volume(self) -> float:
        """Returns the volume, A^3; zero where there is no cell of three vectors."""
        return float(abs(np.linalg.det(self.cell)))

    @classmethod
    def from_atoms(cls, atoms: Atoms, **labels: Any) -> Structure:
        """Makes a structure of ASE's atoms, with the results of their calculator as labels.

        Results are those that are there already: nothing is computed. Stress in ASE's order (xx, yy, zz, yz, xz,
        xy) becomes a (3, 3) matrix.

        Args:
            labels: by name; they come before what the calculator says.
        """
        known = {**_calculated(atoms), **labels}
        return cls(
            atomic_numbers=np.asarray(atoms.numbers, dtype=np.int64).copy(),
            positions=np.asarray(atoms.positions, dtype=np.float64).copy(),
            cell=np.asarray(atoms.cell.array, dtype=np.float64).copy(),
            pbc=np.asarray(atoms.pbc, dtype=bool).copy(),
            labels={name: np.asarray(value, dtype=np.float64) for name, value in known.items()},
            name=str(atoms.info.get("name", "")),
            group=str(atoms.info.get("group", "")),
            branch=int(atoms.info.get("branch", 0)),
        )

    def to_atoms(self) -> Atoms:
        """Returns ASE's atoms: what a calculator may know is in one, other labels are in ``info`` and ``arrays``."""
        from ase import Atoms
        from ase.calculators.singlepoint import SinglePointCalculator

        atoms = Atoms(numbers=self.atomic_numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)
        for key in ("name", "group", "branch"):
            if getattr(self, key):
                atoms.info[key] = getattr(self, key)
        results: dict[str, Any] = {}
        for name, value in self.labels.items():
            if name in CALCULATOR_LABELS:
                results[ASE_RESULTS.get(name, name)] = _as_result(name, value)
            elif is_node_label(value, len(self)):
                atoms.arrays[name] = value.copy()
            else:
                atoms.info[name] = float(value) if value.ndim == 0 else value.copy()
        if results:
            atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms


def is_node_label(value: np.ndarray, num_atoms: int) -> bool:
    """Says whether a label has one value for each atom. Stress, of the shape of a vector for each of three
    atoms, is known by its name and not asked about here.
    """
    return value.ndim > 0 and value.shape[0] == num_atoms


def formula(atomic_numbers: np.ndarray) -> str:
    """Returns the elements in order of their numbers with their counts, e.g. ``Nb2Ta``."""
    from ase.data import chemical_symbols

    counts = Counter(int(z) for z in atomic_numbers)
    return "".join(f"{chemical_symbols[z]}{counts[z] if counts[z] > 1 else ''}" for z in sorted(counts))


def stress_matrix(voigt: np.ndarray) -> np.ndarray:
    """Returns the matrix (3, 3) of a stress in ASE's order (xx, yy, zz, yz, xz, xy)."""
    xx, yy, zz, yz, xz, xy = np.asarray(voigt, dtype=np.float64)
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def stress_voigt(matrix: np.ndarray) -> np.ndarray:
    """Returns a stress (3, 3) in ASE's order (xx, yy, zz, yz, xz, xy)."""
    return matrix[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def stresses_voigt(matrices: np.ndarray) -> np.ndarray:
    """Returns stresses of atoms (N, 3, 3) in ASE's order, (N, 6)."""
    return matrices[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def _calculated(atoms: Atoms) -> dict[str, Any]:
    """Returns the labels in the results of the atoms' calculator; the energy extrapolated to zero smearing, as
    ASE gives it.
    """
    results = getattr(atoms.calc, "results", None) or {}
    labels = {}
    for name in CALCULATOR_LABELS:
        value = results.get(ASE_RESULTS.get(name, name))
        if value is not None:
            labels[name] = stress_matrix(value) if name == "stress" and np.shape(value) == (6,) else value
    return labels


def _as_result(name: str, value: np.ndarray) -> Any:
    if name == "energy":
        return float(value)
    return stress_voigt(value) if name == "stress" else value.copy()
