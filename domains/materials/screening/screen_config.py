"""Holds the keys of ``scripts/screen.py`` for a model of materials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, Literal

from domains.materials.data.readers.source import FormatOptions
from domains.materials.data.samples import DTYPES
from domains.materials.dynamics.relax import RelaxConfig
from domains.materials.screening.compositions import CompositionGrid, read_grid, refuse_too_many
from domains.materials.simulation.alloys import LATTICES
from sciml.core.config import one_of
from sciml.core.errors import ConfigError, nearest
from sciml.core.types import AtLeastOne, FilePath, NonNegative, Positive

MOST_STRUCTURES = 2_000_000
"""Hours to days on one core."""
MOST_STRAIN = 0.1
STRAINED_STEPS = 500


@dataclass(frozen=True)
class ScreenConfig:
    """Holds the keys of ``scripts/screen.py``: a space of alloys, and how each of them is judged.

    Attributes:
        elements: a formula without numbers, or symbols.
        order: numbers of elements that a composition may have; None takes all at once.
        step: of fractions; it divides one.
        min_fraction, max_fraction: of each element that a composition has; never less than a step.
        lattices: on which crystals.
        atoms: least number of sites in a structure; a compact cell with up to half as many more is taken, if possible
            one in which every step is a whole number of atoms.
        decorations: structures of a composition, each with the elements on other random sites.
        warren_cowley: short-range order of nearest neighbors. None: random. A number: every structure is brought to
            parameters drawn up to this size. By pair, e.g. ``{Co-Cu: 0.2}``: to these, and zero where none is given.
        strains: relative changes of all lengths; the volume of least energy is read off a parabola through at least
            three. One alone is no relaxation.
        temperature: K, of the free energy.
        relax: whether structures at their best volume are relaxed: ``none``, ``atoms`` (about their sites), or ``cell``
            (atoms and cell, c/a included).
        fmax: largest force that is left, eV/A.
        max_steps: of relaxing, after which a structure is taken as it is.
        hull: file of other phases, e.g. intermetallics, whose energies by the model (relaxed with their cells) an alloy
            is compared with; None: none.
        hull_format, hull_species, hull_cell, hull_length_unit: what the file does not say: its format, the elements of
            numbered types, and for LSMS the cell and the unit of positions, as in ``predict``.
        elastic: how many of the best get elastic constants.
        elastic_fmax: largest force, eV/A, that is left in strained cells: the strain makes only some hundredths, and
            atoms that do not follow it make an alloy too stiff.
        rank_by: ``free_energy`` (enthalpy - T ideal entropy), ``mixing_enthalpy``, ``above_hull`` (free energy above
            the hull of pure elements and other phases), or ``spread``, the most uncertain first.
        top: candidates that are printed and drawn as bars.
        branch: of a model of several data sets: whose head is read; None takes the first that knows all elements.
        dtype: ``float32`` or ``float64``.
        out: folder to make; None makes one within the run's folder.
        seed: of all that is drawn.
        overwrite: replace an earlier screen that is there.
    """

    elements: str | tuple[str, ...] = ""
    order: int | tuple[int, ...] | None = None
    step: float = 0.1
    min_fraction: float = 0.0
    max_fraction: float = 1.0
    lattices: tuple[str, ...] = ("fcc", "bcc")
    atoms: AtLeastOne = 32
    decorations: AtLeastOne = 4
    warren_cowley: float | dict[str, float] | None = None
    strains: tuple[float, ...] = (-0.02, 0.0, 0.02)
    temperature: NonNegative[float] = 1000.0
    relax: Literal["none", "atoms", "cell"] = "none"
    fmax: Positive[float] = 0.03
    max_steps: AtLeastOne = 200
    hull: FilePath | None = None
    hull_format: str | None = None
    hull_species: list[str] | None = None
    hull_cell: list[Any] | None = None
    hull_length_unit: str = "Bohr"
    elastic: NonNegative[int] = 0
    elastic_fmax: Positive[float] = 0.001
    rank_by: Literal["free_energy", "mixing_enthalpy", "above_hull", "spread"] = "free_energy"
    top: AtLeastOne = 20
    branch: str | None = None
    dtype: str = "float32"
    out: str | None = None
    seed: NonNegative[int] = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        one_of(self.dtype, DTYPES, "dtype")
        self._check_lattices()
        self._check_strains()
        self._check_order()
        if self.grid.steps > self.atoms:
            raise ConfigError(
                f"{self.atoms} atoms have no room for steps of {self.step:g}",
                key="atoms",
                hint=f"atoms={self.grid.steps} or a larger step",
            )
        self._check_pairs()
        if self.rank_by == "above_hull" and self.hull is None:
            raise ConfigError("which phases span the hull?", key="hull", hint="for example hull=intermetallics.extxyz")
        refuse_too_many(self.grid, self.each, MOST_STRUCTURES)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Returns the elements, in the order that they are given in."""
        return _symbols(self.elements)

    @cached_property
    def grid(self) -> CompositionGrid:
        """Returns the grid of all compositions."""
        return read_grid(self.symbols, self.orders, self.step, self.min_fraction, self.max_fraction)

    @property
    def orders(self) -> tuple[int, ...]:
        """Returns the numbers of elements, increasing."""
        if self.order is None:
            return (len(self.symbols),)
        return tuple(sorted({self.order} if isinstance(self.order, int) else set(self.order)))

    @property
    def name(self) -> str:
        """Names the folder that is made if no other is named, e.g. ``CoCuFeNiPd-3-5-fcc``."""
        return "-".join(["".join(self.symbols), *map(str, self.orders), *self.lattices])

    @property
    def each(self) -> int:
        """Counts the structures that a composition takes."""
        return len(self.lattices) * self.decorations * len(self.strains)

    @property
    def relaxing(self) -> RelaxConfig:
        """Returns how structures are relaxed."""
        return RelaxConfig(self.relax, self.fmax, self.max_steps)

    @property
    def relaxing_strained(self) -> RelaxConfig:
        """Returns how strained cells are relaxed, in at least :data:`STRAINED_STEPS`."""
        return RelaxConfig("atoms", self.elastic_fmax, max(self.max_steps, STRAINED_STEPS))

    @property
    def reading_hull(self) -> FormatOptions:
        """Returns how the file of other phases is read."""
        return FormatOptions(self.hull_format, self.hull_species, self.hull_cell, self.hull_length_unit)

    def pairs(self) -> dict[frozenset[str], float] | None:
        """Returns the wanted Warren-Cowley parameters by pair; None where they are not given one by one."""
        if not isinstance(self.warren_cowley, Mapping):
            return None
        return {frozenset(name.split("-")): value for name, value in self.warren_cowley.items()}

    def _check_lattices(self) -> None:
        for lattice in self.lattices:
            one_of(lattice, LATTICES, "lattices")
        if not self.lattices or len(set(self.lattices)) < len(self.lattices):
            raise ConfigError("each lattice is named once", key="lattices", hint="for example [fcc,bcc]")

    def _check_strains(self) -> None:
        if len(self.strains) not in (1, *range(3, 12)) or len(set(self.strains)) < len(self.strains):
            raise ConfigError(
                f"no parabola goes through {len(self.strains)} strains",
                key="strains",
                hint="for example [-0.02,0,0.02], or [0] for none",
            )
        if any(not abs(strain) <= MOST_STRAIN for strain in self.strains):
            raise ConfigError("a crystal is torn apart", key="strains", hint=f"at most {MOST_STRAIN} either way")

    def _check_order(self) -> None:
        if not self.orders or self.orders[0] < 1:
            raise ConfigError("an alloy has at least one element", key="order", hint=f"order={len(self.symbols)}")
        if self.orders[-1] > len(self.symbols):
            raise ConfigError(
                f"{len(self.symbols)} elements have no composition of {self.orders[-1]}",
                key="order",
                hint=f"at most {len(self.symbols)}",
            )
        if self.orders[-1] > self.atoms:
            raise ConfigError(
                f"{self.atoms} atoms are too few for {self.orders[-1]} elements",
                key="atoms",
                hint="for example atoms=32",
            )

    def _check_pairs(self) -> None:
        values = self.warren_cowley
        if values is None:
            return
        key = "warren_cowley"
        if not isinstance(values, Mapping):
            if not 0 < values <= 1:
                raise ConfigError(f"{values:g} is no size of an order", key=key, hint="for example 0.3")
            return
        known = [frozenset(pair) for pair in combinations(self.symbols, 2)]
        for name, value in values.items():
            if frozenset(name.split("-")) not in known:
                raise ConfigError(
                    f"{name!r} is no pair of the elements",
                    key=key,
                    hint=nearest(name, ["-".join(pair) for pair in combinations(self.symbols, 2)]),
                )
            if not -1 <= value <= 1:
                raise ConfigError(f"{value:g} of {name} is no order of neighbors", key=key, hint="from -1 to 1")


def _symbols(elements: str | tuple[str, ...]) -> tuple[str, ...]:
    """Returns the symbols of a formula or a list, in their order.

    Raises:
        ConfigError: there are none, or one is no element or there twice.
    """
    from ase.data import atomic_numbers
    from ase.formula import Formula

    if not elements:
        raise ConfigError("which elements are to be mixed?", key="elements", hint="for example elements=CoCuFeNiPd")
    if isinstance(elements, str):
        try:
            counts = Formula(elements).count()
        except ValueError:
            raise ConfigError(f"{elements!r} is no formula", key="elements", hint="for example CoCuFeNiPd") from None
        twice = [symbol for symbol, count in counts.items() if count > 1]
        symbols = tuple(counts)
    else:
        symbols = tuple(elements)
        twice = [symbol for symbol in symbols if symbols.count(symbol) > 1]
    if twice:
        raise ConfigError(f"{twice[0]} is named more than once", key="elements", hint="for example CoCuFeNiPd")
    for symbol in symbols:
        if symbol not in atomic_numbers or symbol == "X":
            raise ConfigError(f"{symbol!r} is no element", key="elements", hint="for example CoCuFeNiPd")
    return symbols
