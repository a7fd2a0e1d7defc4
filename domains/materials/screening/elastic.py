"""Elastic constants of alloys by a model, and what they say of ductility, with their spreads among members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from domains.materials.data.structure import Structure, stress_matrix, stress_voigt
from domains.materials.dynamics.langevin import GPA
from domains.materials.dynamics.relax import RelaxConfig, relax
from domains.materials.inference.predictor import Predictor
from domains.materials.screening.ranking import Ranked

Array = np.ndarray
STRAIN = 0.005
DUCTILE = 1.75
"""The ratio of bulk to shear modulus above which metals tend to be ductile: Pugh (1954),
https://doi.org/10.1080/14786440808520496."""


@dataclass(frozen=True)
class Value:
    """Holds a value and its standard deviation among the members of an ensemble; None of a single model."""

    mean: float
    spread: float | None

    @classmethod
    def of(cls, members: Float[Array, "member"]) -> Value:
        """Returns mean and spread of what members say."""
        return cls(float(members.mean()), float(members.std(ddof=1)) if len(members) > 1 else None)

    def text(self, digits: int) -> str:
        """Returns both, rounded."""
        spread = "" if self.spread is None else f" ± {self.spread:.{digits}f}"
        return f"{self.mean:.{digits}f}{spread}"


@dataclass(frozen=True)
class Elastic:
    """Holds elastic properties of an alloy.

    Attributes:
        bulk, shear: moduli of a polycrystal (Voigt-Reuss-Hill), GPa.
        pugh: bulk over shear modulus; above :data:`DUCTILE` ductility is likely.
        cauchy: Cauchy pressure C12 - C44, GPa; positive where bonds have no direction. Means over the three axes.
        c11, c12, c44: means over the three axes, GPa.
        stable: whether every member finds that all strains cost energy.
        unfinished: cells, strained or not, whose atoms were still moving at the last step.
    """

    bulk: Value
    shear: Value
    pugh: Value
    cauchy: Value
    c11: Value
    c12: Value
    c44: Value
    stable: bool
    unfinished: int = 0


def elastic(predictor: Predictor, structures: Sequence[Structure], config: RelaxConfig) -> Elastic:
    """Returns the elastic properties of an alloy, as means over structures of it.

    Each is relaxed with its cell, strained both ways in six directions and relaxed again within the strained cell; what
    changes in the stress is linear in the strain.

    Args:
        config: how far atoms are relaxed. The strain makes forces of some hundredths of eV/A: only where what is left
            is far below them do atoms follow it.
    """
    relaxed = list(relax(predictor, structures, replace(config, relax="cell")))
    strained = [_strained(one.structure, axis, sign) for one in relaxed for axis in range(6) for sign in (-1, 1)]
    settled = list(relax(predictor, strained, replace(config, relax="atoms")))
    stress = predictor.member_values((predictor.sample(one.structure) for one in settled), "stress")
    voigt = np.array([[stress_voigt(one) for one in member] for member in stress]) / GPA
    by_strain = voigt.reshape(len(voigt), len(relaxed), 6, 2, 6).mean(1)
    stiffness = (by_strain[:, :, 1] - by_strain[:, :, 0]) / (2 * STRAIN)
    unfinished = sum(not one.converged for one in (*relaxed, *settled))
    return replace(properties(0.5 * (stiffness + stiffness.transpose(0, 2, 1))), unfinished=unfinished)


def properties(stiffness: Float[Array, "member 6 6"]) -> Elastic:
    """Returns what follows from stiffness matrices in Voigt's order, GPa."""
    compliance = np.linalg.inv(stiffness)

    def mean(matrix: Array, entries: Sequence[tuple[int, int]]) -> Array:
        value: Array = np.mean([matrix[:, i, j] for i, j in entries], axis=0)
        return value

    own, across, twist = [(0, 0), (1, 1), (2, 2)], [(0, 1), (0, 2), (1, 2)], [(3, 3), (4, 4), (5, 5)]
    c11, c12, c44 = (mean(stiffness, entries) for entries in (own, across, twist))
    s11, s12, s44 = (mean(compliance, entries) for entries in (own, across, twist))
    bulk = 0.5 * ((c11 + 2 * c12) / 3 + 1 / (3 * s11 + 6 * s12))
    shear = 0.5 * ((c11 - c12 + 3 * c44) / 5 + 5 / (4 * s11 - 4 * s12 + 3 * s44))
    values = {"bulk": bulk, "shear": shear, "pugh": bulk / shear, "cauchy": c12 - c44}
    values |= {"c11": c11, "c12": c12, "c44": c44}
    stable = bool((np.linalg.eigvalsh(stiffness) > 0).all())
    of_members: dict[str, Any] = {name: Value.of(value) for name, value in values.items()}
    return Elastic(**of_members, stable=stable)


def _strained(structure: Structure, axis: int, sign: int) -> Structure:
    """Returns a structure strained in one of Voigt's directions; shear strains are engineering ones."""
    voigt = np.zeros(6)
    voigt[axis] = sign * STRAIN * (1.0 if axis < 3 else 0.5)
    change = np.eye(3) + stress_matrix(voigt)
    return replace(structure, positions=structure.positions @ change, cell=structure.cell @ change)


def elastic_dict(row: Ranked, found: Elastic) -> dict[str, Any]:
    """Returns elastic properties of a ranked alloy for programs, rounded; spreads as ``<name>_spread``."""
    values: dict[str, Any] = {"composition": row.found.composition, "lattice": row.found.lattice}
    for name, value in vars(found).items():
        if isinstance(value, Value):
            values[name] = round(value.mean, 4)
            values[f"{name}_spread"] = None if value.spread is None else round(value.spread, 4)
    return {**values, "unfinished": found.unfinished, "stable": found.stable, "ductile": found.pugh.mean > DUCTILE}


HEAD = ("composition", "lattice", "bulk, GPa", "shear, GPa", "bulk/shear", "C12 - C44, GPa", "C11, GPa", "C12, GPa",
        "C44, GPa")  # fmt: skip


def elastic_cells(row: Ranked, found: Elastic) -> list[str]:
    """Returns elastic properties of a ranked alloy as words, in the order of :data:`HEAD`."""
    values = [found.bulk.text(0), found.shear.text(0), found.pugh.text(2), found.cauchy.text(0)]
    name = row.found.composition + ("" if found.stable else " (unstable)")
    return [name, row.found.lattice, *values, found.c11.text(0), found.c12.text(0), found.c44.text(0)]


def elastic_table(found: Sequence[tuple[Ranked, Elastic]]) -> list[str]:
    """Returns elastic properties as lines to print; none where there are none."""
    if not found:
        return []
    cells = [list(HEAD), *(elastic_cells(*one) for one in found)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return [*lines, f"bulk/shear above {DUCTILE:g} and a positive C12 - C44 speak for ductility", ""]
