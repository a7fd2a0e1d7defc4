"""Holds the keys of ``scripts/simulate.py domain=materials``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval, Le, MinLen

from domains.materials.simulation.alloys import ATOMS_PER_CELL, LATTICES, Family, Recipe
from domains.materials.simulation.labeling import LABELERS
from sciml.core.config import one_of
from sciml.core.errors import ConfigError, nearest
from sciml.core.types import AtLeastOne, Fraction, NonNegative


@dataclass(frozen=True)
class SimulateConfig:
    """Holds the keys of ``scripts/simulate.py domain=materials``.

    Attributes:
        out: the extxyz file to make; compressed if it ends in .xz.
        count: number of structures.
        labeler: what computes energies, forces and stresses: ``eam`` (16 metals) or ``emt`` (7).
        families: lattice and elements that share it, e.g. ``fcc:CoCuFeNiPd``; a structure is of one of them.
        orders: numbers of elements in a structure, all as often; those larger than the families are left out.
        compositions: fixed ones, e.g. ``Fe20Co20Ni60``, instead of drawn ones.
        supercells: numbers of conventional cells along the axes, of which one is drawn.
        rattle: largest standard deviation of displacements, A.
        strain: largest relative change of all lengths.
        shear: largest shear strain.
        vacancies: share of structures that lack one atom.
        short_range_order: share of structures in which the elements are ordered.
        order_strength: largest Warren-Cowley parameter of unlike neighbors that is wanted there.
        seed: of all that is drawn.
        workers: processes beside this one; 0 works in this one alone.
        overwrite: replace a file that is there.
    """

    out: str = "runs/materials/simulated.extxyz.xz"
    count: AtLeastOne = 3000
    labeler: str = "eam"
    families: tuple[str, ...] = ("fcc:CoCuFeNiPd", "bcc:MoTaTiWZr")
    orders: tuple[int, ...] = (1, 2, 3, 4, 5)
    compositions: tuple[str, ...] = ()
    supercells: Annotated[tuple[tuple[AtLeastOne, AtLeastOne, AtLeastOne], ...], MinLen(1)] = ((2, 2, 2), (3, 2, 2))
    rattle: Annotated[float, Interval(ge=0, le=0.5)] = 0.12
    strain: Annotated[float, Interval(ge=0, le=0.2)] = 0.03
    shear: Annotated[float, Interval(ge=0, le=0.2)] = 0.02
    vacancies: Fraction = 0.1
    short_range_order: Fraction = 0.3
    order_strength: Annotated[float, Le(1)] = 0.5
    seed: NonNegative[int] = 0
    workers: NonNegative[int] = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        one_of(self.labeler, LABELERS, "labeler")
        if not self.out.endswith((".extxyz", ".extxyz.xz")):
            raise ConfigError(f"{self.out} is no extxyz file", key="out", hint="end in .extxyz or .extxyz.xz")
        self._check_composition(self.recipe())

    def _check_composition(self, recipe: Recipe) -> None:
        """Refuses compositions that no family or no cell has room for."""
        for composition, text in zip(recipe.compositions, self.compositions, strict=True):
            if not any(set(composition) <= set(family.elements) for family in recipe.families):
                raise ConfigError(
                    f"no family has all elements of {text}",
                    key="compositions",
                    hint="add one, e.g. families=[fcc:FeNi]",
                )
        atoms = min(ATOMS_PER_CELL[family.lattice] for family in recipe.families) * min(map(math.prod, self.supercells))
        if max(map(len, recipe.compositions), default=max(recipe.orders)) >= atoms:
            raise ConfigError(f"{atoms} atoms are too few", key="supercells", hint="for example [[2,2,2]]")

    def recipe(self) -> Recipe:
        """Returns the structures that are wanted.

        Raises:
            ConfigError: a family or a composition cannot be read, or has an element that the labeler does not know.
        """
        known = LABELERS[self.labeler].symbols
        if not self.families:
            raise ConfigError("no elements are given", key="families", hint="for example [fcc:CoCuFeNiPd]")
        families = tuple(_family(text, known, self.labeler) for text in self.families)
        most = max(len(family.elements) for family in families)
        orders = tuple(order for order in self.orders if order <= most)
        if not orders or min(orders) < 1:
            raise ConfigError(
                f"the families have up to {most} elements, {list(self.orders)} cannot be drawn",
                key="orders",
                hint=f"from 1 to {most}",
            )
        return Recipe(
            families=families,
            orders=orders,
            compositions=tuple(_symbols(text, "compositions", known, self.labeler) for text in self.compositions),
            supercells=self.supercells,
            rattle=self.rattle,
            strain=self.strain,
            shear=self.shear,
            vacancies=self.vacancies,
            short_range_order=self.short_range_order,
            order_strength=self.order_strength,
        )


def _family(text: str, known: tuple[str, ...], labeler: str) -> Family:
    lattice, separator, symbols = text.partition(":")
    if not separator:
        raise ConfigError(f"{text!r} names no lattice", key="families", hint="for example fcc:CoCuFeNiPd")
    one_of(lattice, LATTICES, "families")
    return Family(lattice, tuple(_symbols(symbols, "families", known, labeler)))


def _symbols(text: str, key: str, known: tuple[str, ...], labeler: str) -> dict[str, float]:
    """Returns the elements of a formula and their numbers.

    Raises:
        ConfigError: it is none, or has an element that is unknown.
    """
    from ase.formula import Formula

    try:
        counts = Formula(text).count()
    except ValueError:
        counts = {}
    if not counts:
        raise ConfigError(f"{text!r} is no formula", key=key, hint="for example CoCuFeNiPd")
    for symbol in counts:
        if symbol not in known:
            raise ConfigError(f"{labeler} does not know {symbol!r}", key=key, hint=nearest(symbol, known))
    return {symbol: float(n) for symbol, n in counts.items()}
