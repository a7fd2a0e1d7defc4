"""Ranks the results of a screen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domains.materials.screening.hull import Decomposition, Hull
from domains.materials.screening.mixing import MixingResult
from domains.materials.screening.screen_config import ScreenConfig

BOLTZMANN = 8.617333262e-5
"""eV/K."""
DIGITS = 6
COLUMNS = {
    "composition": "as on the grid, percent",
    "lattice": "its crystal",
    "formula": "atoms of a structure",
    "mixing_enthalpy": "eV/atom, mean over structures and members",
    "spread": "eV/atom, standard deviation among members",
    "decoration_error": "eV/atom, standard error of the mean over structures",
    "ideal_entropy": "Boltzmann constants an atom",
    "free_energy": "eV/atom, mixing enthalpy less temperature times ideal entropy",
    "above_hull": "eV/atom, free energy above the lowest mixture of pure elements and other phases",
    "comes_apart": "that mixture",
    "volume": "A^3/atom",
    "lowest_lattice": "whether no other lattice has a lower mixing enthalpy at this composition",
    "relaxed": "whether the volume of least energy lies within the strains",
    "gain": "eV/atom, by which relaxing atoms has lowered the enthalpy",
    "unfinished": "structures that were still moving when relaxing was given up",
    "order_missed": "largest difference of a Warren-Cowley parameter from the wanted one",
    "outside": "why it is not an alloy that the model was trained for",
}
"""Columns of the table, and what is in them."""


@dataclass(frozen=True)
class Ranked:
    """Places a candidate among others.

    Attributes:
        found: what is said of it alone.
        free_energy: eV/atom.
        lowest_lattice: whether no other lattice has a lower mixing enthalpy at this composition.
        decomposition: what is lowest at its fractions; None where other phases were not given.
    """

    found: MixingResult
    free_energy: float
    lowest_lattice: bool
    decomposition: Decomposition | None = None

    @property
    def above_hull(self) -> float | None:
        """Returns the free energy above that of the lowest mixture of other phases, eV/atom."""
        return None if self.decomposition is None else self.free_energy - self.decomposition.enthalpy

    @property
    def error(self) -> float:
        """Returns the error of the mixing enthalpy: spread and error over structures together; zero where neither is
        known.
        """
        return math.hypot(self.found.spread or 0.0, self.found.decoration_error or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Returns a row of the table, rounded."""
        values = {**vars(self.found), "free_energy": self.free_energy, "lowest_lattice": self.lowest_lattice}
        values |= {
            "above_hull": self.above_hull,
            "comes_apart": self.decomposition.text if self.decomposition else None,
        }
        return {
            name: round(values[name], DIGITS) if isinstance(values[name], float) else values[name] for name in COLUMNS
        }


def ranked(found: Sequence[MixingResult], temperature: float, rank_by: str, hull: Hull | None = None) -> list[Ranked]:
    """Ranks all candidates, the best first.

    Args:
        temperature: K.
        rank_by: see :class:`ScreenConfig`.
        hull: phases that alloys may come apart into.
    """
    lowest: dict[str, float] = {}
    for one in found:
        lowest[one.composition] = min(one.mixing_enthalpy, lowest.get(one.composition, math.inf))
    rows = [
        Ranked(
            one,
            one.mixing_enthalpy - temperature * BOLTZMANN * one.ideal_entropy,
            one.mixing_enthalpy == lowest[one.composition],
            None if hull is None else hull.at(one.fractions),
        )
        for one in found
    ]

    def key(row: Ranked) -> tuple[float, str, str]:
        if rank_by == "spread":
            value = -(row.found.spread or 0.0)
        elif rank_by == "above_hull":
            value = row.free_energy if row.above_hull is None else row.above_hull
        else:
            value = row.free_energy if rank_by == "free_energy" else row.found.mixing_enthalpy
        return value, row.found.composition, row.found.lattice

    return sorted(rows, key=key)


def table(rows: Sequence[Ranked], config: ScreenConfig) -> list[str]:
    """Returns the ranking as lines to print, meV/atom."""
    width = max(len("composition"), *(len(row.found.composition) for row in rows))
    head = f"{'':>4}  {'composition':{width}}  {'lattice':7}  {'enthalpy':>8}  {'spread':>7}  {'error':>7}"
    above = any(row.decomposition for row in rows)
    head = f"{head}  {f'at {config.temperature:g} K':>9}"
    lines = [f"{head}{'  above hull' * above}   meV/atom"]
    for rank, row in enumerate(rows, start=1):
        one = row.found
        lines.append(
            f"{rank:>4}  {one.composition:{width}}  {one.lattice:7}  {_mev(one.mixing_enthalpy):>8}  "
            f"{_mev(one.spread):>7}  {_mev(one.decoration_error):>7}  {_mev(row.free_energy):>9}"
            f"{f'  {_mev(row.above_hull):>10}' * above}{'   outside' if one.outside else ''}"
        )
    return lines


def _mev(value: float | None) -> str:
    return "-" if value is None else f"{1e3 * value:.1f}"


def by_elements(rows: Sequence[Ranked]) -> Mapping[frozenset[str], list[Ranked]]:
    """Returns the candidates by the set of their elements; of each composition the lowest lattice alone."""
    groups: dict[frozenset[str], list[Ranked]] = {}
    for row in rows:
        if row.lowest_lattice:
            groups.setdefault(frozenset(row.found.fractions), []).append(row)
    return groups
