"""Frames of any file as checked structures with the labels that are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from domains.materials.data.aliases import meaning, usual_labels
from domains.materials.data.findings import Findings
from domains.materials.data.key_names import typed
from domains.materials.data.labels import LEVELS, LabelSpec, Stated, check_energy, checked_label, parse_labels
from domains.materials.data.readers.files import format_of
from domains.materials.data.readers.frames import UNCONVERGED, check_sites, stated_units
from domains.materials.data.structure import ASE_RESULTS, Structure
from sciml.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ase import Atoms

MAX_NUMBER = 118
GROUP_KEYS = ("group", "config_type")
KNOWN_ENTRIES = frozenset({*GROUP_KEYS, "name", "free_energy", "tags", "spacegroup", "unit_cell", "occupancy"})
"""Entries that need no mention where they become no label."""


class LabeledFrames:
    """Turns ASE's atoms into checked structures with the labels that are wanted.

    Args:
        labels, group_key: see :class:`domains.materials.data.readers.source.ReadOptions`.
        findings: takes down what was found and what was left out.
    """

    def __init__(self, labels: Mapping[str, Any], group_key: str | None, findings: Findings) -> None:
        self.group_key, self.findings = group_key, findings
        self.named, self.unwanted = parse_labels(labels)
        self.unseen = set(self.named)
        self.others: set[str] = set()

    def structure(self, atoms: Atoms, file: str, number: int, branch: int) -> Structure:
        """Returns the structure of a file with some number.

        Raises:
            DataError: what its atoms or its labels cannot be.
        """
        where = f"{file}@{number}"
        check_atoms(atoms, where)
        if (steps := atoms.info.get(UNCONVERGED)) is not None:
            raise DataError(
                f"{where}: its electrons have not converged within {steps}; "
                f"{typed('skip_bad')}=true leaves such structures out"
            )
        bare = Structure.from_atoms(atoms)
        there = _entries(atoms)
        specs = self._specs(there, len(atoms), bare.volume, stated_units(atoms))
        labels = {}
        for name, spec in specs.items():
            value = there[spec.key]
            if name == "energy" and np.shape(value) == (len(atoms),) and len(atoms) > 1:
                value = np.sum(value)  # energies of atoms, as LAMMPS writes them, add up to that of the structure
            labels[name] = checked_label(spec, value, len(atoms), bare.volume, where)
            self.unseen.discard(name)
        self.others |= set(there)
        check_energy(labels, self.unwanted, there, where)
        self.findings.add(
            specs, set(there) - {spec.key for spec in specs.values()} - KNOWN_ENTRIES - _copies(specs, there)
        )
        return Structure(
            bare.atomic_numbers, bare.positions, bare.cell, bare.pbc, labels, where, self._group(atoms, file), branch
        )

    def _specs(
        self, there: Mapping[str, Any], num_atoms: int, volume: float, stated: Mapping[str, Stated]
    ) -> dict[str, LabelSpec]:
        """Returns where each label of a structure stands: as it was named, or under a usual name."""
        named = {
            name: replace(spec, key=key).as_stated(stated.get(key))
            for name, spec in self.named.items()
            if (key := _place(spec, there)) is not None
        }
        usual = usual_labels(there, num_atoms, volume, stated)
        usual |= {name: LabelSpec(name, name) for name in LEVELS if name in there and meaning(name) is None}
        free = {name: spec for name, spec in usual.items() if name not in self.named and name not in self.unwanted}
        return {**named, **free}

    def _group(self, atoms: Atoms, file: str) -> str:
        keys = GROUP_KEYS if self.group_key is None else (self.group_key,)
        for key in keys:
            if key in atoms.info:
                return str(atoms.info[key])
        path = Path(file)
        # VASP's files are all called alike: the folder tells what they are
        return path.parent.name if format_of(file) in ("vasp-xml", "vasp-out") else path.name.split(".")[0]

    def check_used(self, path: str) -> None:
        """Refuses a label that was asked for by name and is nowhere."""
        for name in sorted(self.unseen):
            known = ", ".join(sorted(self.others)) or "nothing"
            raise ConfigError(
                f"no structure of {path} has {self.named[name].key!r}",
                key=typed(f"labels.{name}"),
                hint=f"there are: {known}",
            )


def _place(spec: LabelSpec, there: Mapping[str, Any]) -> str | None:
    """Returns the entry that a named label stands in, which may go by ASE's name; None if it is not there."""
    if spec.key in there:
        return spec.key
    return spec.name if ASE_RESULTS.get(spec.name) == spec.key and spec.name in there else None


def _entries(atoms: Atoms) -> Mapping[str, Any]:
    """Returns everything that the atoms carry beside their positions, under ASE's names and the suite's."""
    results = dict(getattr(atoms.calc, "results", None) or {})
    for ours, theirs in ASE_RESULTS.items():
        if theirs in results:
            results[ours] = results[theirs]
    arrays = {k: v for k, v in atoms.arrays.items() if k not in ("numbers", "positions")}
    known = {k: v for k, v in results.items() if v is not None}
    if "magnetic_moments" in known:
        known.pop(ASE_RESULTS["magnetic_moments"], None)
    return {**arrays, **atoms.info, **known}


def _copies(specs: Mapping[str, LabelSpec], there: Mapping[str, Any]) -> set[str]:
    """Returns entries that repeat under another name what is taken: nothing of them is lost."""
    return {
        name
        for name, value in there.items()
        if (means := meaning(name)) is not None
        and means.label in specs
        and name != specs[means.label].key
        and np.array_equal(value, there[specs[means.label].key])
    }


def check_atoms(atoms: Atoms, where: str) -> None:
    """Refuses atoms that cannot be: none, of no element, at no place, at shared sites, or repeating without a cell.

    Args:
        where: the file and number that are named.

    Raises:
        DataError: says what is wrong.
    """
    if len(atoms) == 0:
        raise DataError(f"{where}: the structure has no atom")
    numbers = atoms.numbers
    if numbers.min() < 1 or numbers.max() > MAX_NUMBER:
        bad = int(np.argmax((numbers < 1) | (numbers > MAX_NUMBER)))
        raise DataError(f"{where}: unknown element of atom {bad} (atomic number {numbers[bad]}); elements are H to Og")
    if not np.isfinite(atoms.positions).all():
        bad = int(np.argwhere(~np.isfinite(atoms.positions))[0][0])
        raise DataError(f"{where}: the position of atom {bad} is not a finite number")
    sites = atoms.info.get("occupancy")  # of CIF: ASE places the most frequent element, and keeps the shares
    if isinstance(sites, Mapping) and all(isinstance(shares, Mapping) for shares in sites.values()):
        check_sites(sites, where)
    cell = atoms.cell.array
    if not np.isfinite(cell).all():
        raise DataError(f"{where}: the cell is not made of finite numbers")
    lacking = atoms.pbc & ~cell.any(1)
    flat = atoms.pbc.all() and abs(np.linalg.det(cell)) < 1e-6
    if lacking.any() or flat:
        what = "has no cell" if not cell.any() else "has a cell without volume"
        raise DataError(
            f'{where}: pbc says that the structure repeats, but it {what}; give a Lattice or set pbc="F F F"'
        )
