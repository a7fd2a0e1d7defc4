"""FitSNAP's JSON: one data set a file, with its units named beside.

Stress is a pressure, positive where a structure wants to expand, as LAMMPS and VASP have it.
Source of the format: https://fitsnap.github.io, scrapers of type JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from domains.materials.data.labels import ANGSTROMS, VASP_SIGN, Stated
from domains.materials.data.readers.frames import make_atoms, state_units, symmetric
from sciml.core.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms

ENERGY = {"electronvolt": "eV", "ev": "eV", "hartree": "Ha", "rydberg": "Ry"}
LENGTH = {"angstrom": "A", "bohr": "Bohr", "nanometer": "nm"}
PRESSURE = {"bar": "bar", "kb": "kbar", "kbar": "kbar", "kilobar": "kbar", "gpa": "GPa", "pascal": "Pa"}
LABELS = ("Energy", "Forces", "Stress")


def is_fitsnap(document: Any) -> bool:
    """Says whether a JSON document is a data set of FitSNAP."""
    return (
        isinstance(document, Mapping) and isinstance(document.get("Dataset"), Mapping) and "Data" in document["Dataset"]
    )


def fitsnap_frames(document: Mapping[str, Any]) -> Iterator[Atoms]:
    """Yields the structures of a data set.

    Raises:
        DataError: a unit that is not known.
    """
    dataset = document["Dataset"]
    energy, length = (
        _unit(dataset, "EnergyStyle", ENERGY, "electronvolt"),
        _unit(dataset, "LatticeStyle", LENGTH, "angstrom"),
    )
    pressure = _unit(dataset, "StressStyle", PRESSURE, "bar")
    fractional = str(dataset.get("PositionsStyle", "angstrom")).lower().startswith(("frac", "lattice"))
    stated = {
        "Energy": Stated(energy),
        "Forces": Stated(f"{energy}/{length}"),
        "Stress": Stated(pressure, VASP_SIGN),
    }
    for one in dataset["Data"]:
        scale = 1.0 if fractional else ANGSTROMS[length]
        positions = [[scale * x for x in row] for row in one["Positions"]]
        cell = [[ANGSTROMS[length] * x for x in row] for row in one["Lattice"]]
        entries = {name: one[name] for name in LABELS if one.get(name) is not None}
        if "Stress" in entries:
            entries["Stress"] = symmetric(entries["Stress"])
        if isinstance(dataset.get("Label"), str) and dataset["Label"]:
            entries["group"] = dataset["Label"]
        atoms = make_atoms(one["AtomTypes"], positions, cell, fractional=fractional, entries=entries)
        state_units(atoms, stated)
        yield atoms


def _unit(dataset: Mapping[str, Any], style: str, known: Mapping[str, str], usual: str) -> str:
    name = str(dataset.get(style) or usual).lower()
    if name not in known:
        raise DataError(f"{style} is {dataset[style]!r}; known are {', '.join(known)}")
    return known[name]
