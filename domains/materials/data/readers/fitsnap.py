"""FitSNAP's JSON: one data set a file, with its units named beside.

Stress is a pressure, positive where a structure wants to expand, as LAMMPS and VASP have it.
Source of the format: https://fitsnap.github.io, scrapers of type JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from domains.materials.data.readers.frames import from_kbar, make_atoms
from sciml.core.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms

ENERGY = {"electronvolt": 1.0, "ev": 1.0, "hartree": 27.211386, "rydberg": 13.605693}
LENGTH = {"angstrom": 1.0, "bohr": 0.529177, "nanometer": 10.0}
PRESSURE = {"bar": 1e-3, "kb": 1.0, "kbar": 1.0, "kilobar": 1.0, "gpa": 10.0, "pascal": 1e-8}
"""Kilobars."""


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
    for one in dataset["Data"]:
        results: dict[str, Any] = {"energy": energy * float(one["Energy"])} if one.get("Energy") is not None else {}
        if one.get("Forces") is not None:
            results["forces"] = [[energy / length * x for x in row] for row in one["Forces"]]
        if one.get("Stress") is not None:
            results["stress"] = from_kbar([[pressure * x for x in row] for row in one["Stress"]])
        scale = 1.0 if fractional else length
        positions = [[scale * x for x in row] for row in one["Positions"]]
        cell = [[length * x for x in row] for row in one["Lattice"]]
        group = {"group": dataset["Label"]} if isinstance(dataset.get("Label"), str) and dataset["Label"] else {}
        yield make_atoms(one["AtomTypes"], positions, cell, fractional=fractional, results=results, entries=group)


def _unit(dataset: Mapping[str, Any], style: str, known: Mapping[str, float], usual: str) -> float:
    name = str(dataset.get(style) or usual).lower()
    if name not in known:
        raise DataError(f"{style} is {dataset[style]!r}; known are {', '.join(known)}")
    return known[name]
