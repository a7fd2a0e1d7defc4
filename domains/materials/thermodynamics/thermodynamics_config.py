"""Holds the keys of ``scripts/thermodynamics.py`` for a model of materials."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from domains.materials.data.samples import DTYPES
from domains.materials.simulation.alloys import LATTICES
from sciml.core.config import one_of
from sciml.core.errors import ConfigError
from sciml.core.types import AtLeastOne, NonNegative

FEWEST_SAMPLES = 8


@dataclass(frozen=True)
class ThermodynamicsConfig:
    """Holds the keys of ``scripts/thermodynamics.py``: an alloy, its crystal, and how it is sampled.

    Attributes:
        elements: a formula, whose numbers say how much there is of each element: ``CoCrFeNi`` or ``Cu3Au``.
        lattice: its crystal: fcc, bcc or hcp.
        atoms: least number of sites; a compact cell with up to half as many more is taken.
        temperatures: K.
        sweeps: tried swaps an atom, of each chain.
        equilibration: share of the sweeps that is not averaged over.
        replicas: independent chains at each temperature; errors are told from how they differ.
        branch: of a model of several data sets: whose head is read; None takes the first that knows all elements.
        dtype: ``float32`` or ``float64``.
        out: folder to make; None makes one within the run's folder.
        seed: of all that is drawn.
        overwrite: replace an earlier one that is there.
    """

    elements: str = ""
    lattice: str = "fcc"
    atoms: AtLeastOne = 32
    temperatures: tuple[float, ...] = (300.0, 600.0, 900.0, 1200.0, 1500.0, 1800.0)
    sweeps: AtLeastOne = 60
    equilibration: NonNegative[float] = 0.3
    replicas: AtLeastOne = 4
    branch: str | None = None
    dtype: str = "float32"
    out: str | None = None
    seed: NonNegative[int] = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        one_of(self.dtype, DTYPES, "dtype")
        one_of(self.lattice, LATTICES, "lattice")
        if not self.elements:
            raise ConfigError("which alloy is it?", key="elements", hint="for example elements=CoCrFeNi")
        if len(self.counts) < 2:
            raise ConfigError("one element alone has no order", key="elements", hint="for example CoCrFeNi")
        if len(self.counts) > self.atoms:
            raise ConfigError(f"{self.atoms} atoms are too few for {len(self.counts)} elements", key="atoms")
        if not self.temperatures:
            raise ConfigError("must be at least one", key="temperatures", hint="for example [500,1000,1500]")
        if len(set(self.temperatures)) < len(self.temperatures):
            raise ConfigError("each temperature is named once", key="temperatures", hint="for example [500,1000,1500]")
        if min(self.temperatures) <= 0:
            raise ConfigError(f"must be above 0 K, got {min(self.temperatures):g}", key="temperatures")
        if not self.equilibration < 1:
            raise ConfigError("nothing is left to average over", key="equilibration", hint="for example 0.3")
        if self.sweeps - self.skipped < FEWEST_SAMPLES:
            raise ConfigError(
                f"{self.sweeps - self.skipped} sweeps behind equilibration are too few",
                key="sweeps",
                hint="for example 60",
            )

    @cached_property
    def counts(self) -> dict[str, int]:
        """Returns how much there is of each element, as in the formula.

        Raises:
            ConfigError: it is none.
        """
        from ase.formula import Formula

        try:
            return dict(Formula(self.elements).count())
        except ValueError:
            raise ConfigError(f"{self.elements!r} is no formula", key="elements", hint="for example CoCrFeNi") from None

    @property
    def skipped(self) -> int:
        """Returns the number of sweeps that are not averaged over."""
        return int(self.equilibration * self.sweeps)

    @property
    def kelvin(self) -> np.ndarray:
        """Returns the temperatures, increasing."""
        return np.array(sorted(self.temperatures))

    @property
    def name(self) -> str:
        """Names the folder that is made if no other is named, e.g. ``CoCrFeNi-fcc``."""
        return f"{self.elements}-{self.lattice}"
