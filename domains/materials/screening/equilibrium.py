"""Volumes of least energy: of any curve over strains, and of the pure elements' crystals under a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float

from domains.materials.data.batch import GraphSample
from domains.materials.data.schema import MaterialsSchema, MaterialsStatistics
from domains.materials.screening.sites import Sites
from sciml.core.errors import ConfigError

Array = np.ndarray
ENERGY, ENTHALPY = "energy", "mixing_enthalpy"
SCAN = np.linspace(-0.16, 0.16, 33)
"""Relative lattice constants at which a pure crystal is looked at."""
BOND = 1.9
"""Nearest neighbors of a close-packed metal over its covalent radius; where an element has no simple crystal."""


class MemberModel(Protocol):
    """Describes what is asked of a model; :class:`domains.materials.inference.predictor.Predictor` is one."""

    schema: MaterialsSchema
    statistics: MaterialsStatistics
    predicts: tuple[str, ...]
    cutoff: float

    @property
    def branch(self) -> int:
        """Returns the number of the data set whose head is read."""
        ...

    def member_values(self, samples: Iterable[GraphSample], name: str) -> Float[Array, "member sample"]:
        """Returns one value of each structure by each member."""
        ...


class Least(NamedTuple):
    """Says where a curve over strains is least.

    Attributes:
        strain: relative change of lengths.
        weights: of the curve's values, which give that of any such curve there.
        inside: whether it is a minimum within the strains, and not the better of their ends.
    """

    strain: float
    weights: Float[Array, "strain"]
    inside: bool


class PureCrystal(NamedTuple):
    """Describes an element on a lattice.

    Attributes:
        a: lattice constant, A.
        values: by member; the energy, eV/atom.
    """

    a: float
    values: Float[Array, "member"]


def minimum(strains: Sequence[float] | Array, curve: Float[Array, "strain"]) -> Least:
    """Finds the least value of a parabola through a curve; through more than three strains by least squares.

    The parabola is one in the volume to the power of -2/3, which is the equation of state of second order of Birch
    (1947), https://doi.org/10.1103/PhysRev.71.809.
    """
    strains = np.asarray(strains, dtype=float)
    if len(strains) == 1:
        return Least(float(strains[0]), np.ones(1), True)
    x = (1 + strains) ** -2 - 1
    fit: Float[Array, "power strain"] = np.linalg.pinv(np.stack([np.ones_like(x), x, x**2]))
    fit = fit.T
    _, slope, bend = fit @ curve
    least = -slope / (2 * bend) if bend > 0 else x[np.argmin(curve)]
    clipped = float(np.clip(least, x.min(), x.max()))
    return Least(
        (1 + clipped) ** -0.5 - 1, np.array([1, clipped, clipped**2]) @ fit, bool(bend > 0 and clipped == least)
    )


def downhill(curve: Float[Array, "point"], start: int) -> int | None:
    """Finds the minimum that is reached downhill from a point of a curve; None where that is at one of its ends.

    Far from what it was trained on a model may have deeper places, which no crystal would come to.
    """
    here = start
    while 0 < here < len(curve) - 1:
        lower = here - 1 if curve[here - 1] < curve[here + 1] else here + 1
        if curve[lower] >= curve[here]:
            return here
        here = lower
    return None


def natural_volume(symbol: str) -> float:
    """Returns the volume of an element's crystal in nature, A^3/atom, or about that where its crystal is not a simple
    one.
    """
    from ase.build import bulk
    from ase.data import atomic_numbers, covalent_radii

    try:
        crystal = bulk(symbol)
    except (ValueError, KeyError):
        return float((BOND * covalent_radii[atomic_numbers[symbol]]) ** 3 / 2**0.5)
    return float(crystal.get_volume() / len(crystal))


def pure_crystals(
    model: MemberModel, name: str, symbols: Sequence[str], lattices: Sequence[str]
) -> dict[tuple[str, str], PureCrystal]:
    """Returns each element on each lattice, at the volume where the members' mean is least.

    Args:
        name: what is least: ``energy`` or ``mixing_enthalpy``.

    Raises:
        ConfigError: the model finds no such volume near that of the element in nature.
    """
    from ase.data import atomic_numbers

    cells = {lattice: Sites(lattice, (1, 1, 1), model.cutoff) for lattice in lattices}
    kinds = [(symbol, lattice) for symbol in symbols for lattice in lattices]
    starts = [cells[lattice].lattice_constant(natural_volume(symbol)) for symbol, lattice in kinds]
    values = model.member_values(
        (
            cells[lattice].sample(
                np.full(len(cells[lattice]), atomic_numbers[symbol]), start * (1 + strain), model.branch
            )
            for (symbol, lattice), start in zip(kinds, starts, strict=True)
            for strain in SCAN
        ),
        name,
    )
    curves = values.reshape(len(values), len(kinds), len(SCAN))
    crystals = {}
    for number, (symbol, lattice) in enumerate(kinds):
        curve = curves[:, number] / (len(cells[lattice]) if name == ENERGY else 1)
        lowest = downhill(curve.mean(0), len(SCAN) // 2)
        if lowest is None:
            raise ConfigError(
                f"the model finds no stable {lattice} {symbol} within {SCAN[-1]:.0%} of its lattice constant in nature",
                key="lattices",
                hint="leave out the lattice or the element, or train the model on it",
            )
        near = slice(lowest - 1, lowest + 2)
        least = minimum(SCAN[near], curve.mean(0)[near])
        crystals[symbol, lattice] = PureCrystal(starts[number] * (1 + least.strain), curve[:, near] @ least.weights)
    return crystals
