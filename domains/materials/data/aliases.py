"""Recognizes labels under the names that other programs write: ``REF_energy``, ``dft_force``, ``virials`` and so on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from domains.materials.data.labels import PER_ATOM, VIRIAL, LabelSpec, Stated

SOURCES = (
    "ref", "reference", "dft", "vasp", "qm", "pbe", "pbesol", "r2scan", "scan", "lda", "rpbe", "castep", "aims", "cp2k",
    "qe", "espresso", "siesta", "orca", "target", "true", "label", "train", "uncorrected",
)  # fmt: skip
"""Words before or behind a label's name that say where it was computed: such an entry is meant to be learned. Names of
models are none of them (``gap_energy`` is what a GAP says, ``energy_gap`` no energy)."""
NAMES: dict[str, tuple[str, ...]] = {
    "energy": (
        "energy",
        "energies",
        "total_energy",
        "totalenergy",
        "potential_energy",
        "etot",
        "e_tot",
        "toten",
        "free_energy",
    ),
    "forces": ("forces", "force", "atomic_forces", "f"),
    "stress": ("stress", "stresses", "stress_tensor", "cauchy_stress", "virial", "virials", "virial_tensor"),
    "magnetic_moments": ("magnetic_moments", "magnetic_moment", "magmoms", "magmom"),
    "charges": ("charges", "charge", "atomic_charges"),
}
"""Names of each label, in order of preference."""
OTHERWISE = ("magnetic_moments", "charges")
"""Labels whose names also mean other things: moments with a direction, the charge of a structure."""
_PER_ATOM = re.compile(r"^(?:energy|energies|total_energy|e|e_tot)_?per_?atom$")


class Meaning(NamedTuple):
    """Says what an entry of a file is taken for.

    Attributes:
        label: what the suite calls it.
        unit: that its name implies; None where it is the suite's own.
        rank: the lower, the rather it is taken: values of a named method first, then the usual names in order.
    """

    label: str
    unit: str | None
    rank: tuple[bool, int]


@lru_cache(maxsize=4096)
def meaning(key: str) -> Meaning | None:
    """Returns what an entry of this name is taken for; None where it is nothing that is learned."""
    words = key.lower().replace("-", "_").strip("_").split("_")
    kept = list(words)
    while kept and kept[0] in SOURCES:
        kept.pop(0)
    while kept and kept[-1] in SOURCES:
        kept.pop()
    bare, named = "_".join(kept), len(kept) < len(words)
    if _PER_ATOM.match(bare):
        return Meaning("energy", f"eV{PER_ATOM}", (not named, len(NAMES["energy"])))
    for label, names in NAMES.items():
        if bare in names:
            unit = VIRIAL if bare.startswith("virial") else None
            return Meaning(label, unit, (not named, names.index(bare)))
    return None


def usual_labels(
    entries: Mapping[str, Any], num_atoms: int, volume: float, stated: Mapping[str, Stated] | None = None
) -> dict[str, LabelSpec]:
    """Returns where the labels of a structure stand that it has under any usual name.

    Of several entries that may be a label that of a named method is taken (``REF_energy`` before ``energy``), else
    the first in :data:`NAMES`. Entries under other names than the suite's must also look like the label.

    Args:
        entries: all that a structure carries, by name.
        volume: of its cell, A^3; zero where there is none.
        stated: what the file says of its entries, by name.
    """
    stated = stated or {}
    best: dict[str, tuple[tuple[bool, int], str, str | None]] = {}
    for key, value in entries.items():
        means = _stated_meaning(stated.get(key)) or meaning(key)
        if means is None:
            continue
        # a wrong shape of what has no other meaning is an error, which is told when it is read
        certain = key == means.label and key not in OTHERWISE
        if not certain and not _fits(means, value, num_atoms, volume):
            continue
        candidate = (means.rank, key, means.unit)
        if means.label not in best or candidate[0] < best[means.label][0]:
            best[means.label] = candidate
    return {label: LabelSpec(label, key, unit).as_stated(stated.get(key)) for label, (_, key, unit) in best.items()}


def _stated_meaning(stated: Stated | None) -> Meaning | None:
    return Meaning(stated.label, None, (True, 0)) if stated is not None and stated.label is not None else None


def _fits(means: Meaning, value: Any, num_atoms: int, volume: float) -> bool:
    """Says whether a value has the shape of the label: a total charge, say, is none of atoms."""
    try:
        shape = np.asarray(value, dtype=np.float64).shape
    except (TypeError, ValueError):
        return False
    if means.label == "energy":
        return shape in ((), (1,))
    if means.label == "forces":
        return shape in ((num_atoms, 3), (3 * num_atoms,)) and shape != ()
    if means.label == "stress":
        return volume > 0 and shape in ((6,), (9,), (3, 3))
    return shape == (num_atoms,) or (shape == (num_atoms, 1))
