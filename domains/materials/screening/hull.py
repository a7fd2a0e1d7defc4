"""The convex hull of competing phases: what an alloy's elements could lower their energy to by coming apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float

from domains.materials.data.key_names import keys_under
from domains.materials.data.readers.files import locate
from domains.materials.data.readers.source import FormatOptions
from domains.materials.data.readers.unlabeled import read_unlabeled
from domains.materials.data.structure import Structure
from domains.materials.dynamics.moving import check_free
from domains.materials.dynamics.relax import RelaxConfig, relax
from domains.materials.inference.predictor import Predictor
from domains.materials.screening.equilibrium import ENERGY
from sciml.core.errors import ConfigError

Array = np.ndarray
LEAST_SHARE = 1e-6


@dataclass(frozen=True)
class Decomposition:
    """Says what is lowest at a composition.

    Attributes:
        enthalpy: of the mixture of phases, relative to the pure elements, eV/atom.
        phases: their names, and the share of atoms in each.
    """

    enthalpy: float
    phases: Mapping[str, float]

    @property
    def text(self) -> str:
        """Returns the phases with percentages, the largest first."""
        ordered = sorted(self.phases.items(), key=lambda phase: -phase[1])
        return " + ".join(f"{100 * share:.0f}% {name}" for name, share in ordered)


@dataclass(frozen=True)
class Hull:
    """Holds phases that an alloy may come apart into; the pure elements, at zero, are always among them.

    Attributes:
        elements: symbols.
        names: of the phases.
        fractions: of each element in each.
        enthalpies: of formation, eV/atom.
        left_out: structures that have other elements.
    """

    elements: tuple[str, ...]
    names: tuple[str, ...]
    fractions: Float[Array, "phase element"]
    enthalpies: Float[Array, "phase"]
    left_out: int = 0

    @cached_property
    def _all(self) -> tuple[tuple[str, ...], Float[Array, "any element"], Float[Array, "any"]]:
        count = len(self.elements)
        names = (*self.elements, *self.names)
        return (
            names,
            np.concatenate([np.eye(count), self.fractions.reshape(-1, count)]),
            np.concatenate([np.zeros(count), self.enthalpies]),
        )

    def at(self, fractions: Mapping[str, float]) -> Decomposition:
        """Returns the mixture of phases that is lowest at a composition, by linear programming."""
        from scipy.optimize import linprog

        names, table, values = self._all
        wanted = np.array([fractions.get(symbol, 0.0) for symbol in self.elements])
        solved = linprog(values, A_eq=table.T, b_eq=wanted, bounds=(0, None), method="highs")
        phases = {name: float(x) for name, x in zip(names, solved.x, strict=True) if x > LEAST_SHARE}
        return Decomposition(float(solved.fun), phases)


def check_hull(path: str, options: FormatOptions) -> None:
    """Reads the first phase of a file, so that a file that cannot be read is told at once.

    Raises:
        ConfigError, DataError: as in :func:`read_hull`.
    """
    with keys_under("hull_"):
        next(read_unlabeled(locate(path), options))


def read_hull(
    predictor: Predictor,
    path: str,
    elements: Sequence[str],
    reference: Callable[[Mapping[str, float]], Float[Array, "member"] | float],
    config: RelaxConfig,
    options: FormatOptions | None = None,
) -> Hull:
    """Reads phases from a file, relaxes atoms and cells of those that have only the elements, and judges them.

    Args:
        reference: energy of the mixture of pure elements, eV/atom.
        config: how far they are relaxed.
        options: how the file is read.

    Raises:
        ConfigError: none of them has only these elements.
        DataError: the file cannot be read, or a phase has fixed atoms.
    """
    from ase.data import chemical_symbols

    known = set(elements)
    read: list[Structure] = []
    left_out = 0
    with keys_under("hull_"):
        for one, atoms in read_unlabeled(locate(path), options or FormatOptions()):
            if {chemical_symbols[number] for number in one.elements} <= known:
                check_free(atoms, one.name)
                read.append(replace(one, name=one.formula))
            else:
                left_out += 1
    if not read:
        raise ConfigError(f"{path} has no structure of only {', '.join(elements)}", key="hull", hint="leave it out")
    relaxed = [one.structure for one in relax(predictor, read, replace(config, relax="cell"))]
    energies = predictor.member_values(map(predictor.sample, relaxed), ENERGY)
    shares = np.array(
        [[np.mean(one.atomic_numbers == chemical_symbols.index(symbol)) for symbol in elements] for one in relaxed]
    )
    enthalpies = [
        float(np.mean(energies[:, number] / len(one) - reference(dict(zip(elements, shares[number], strict=True)))))
        for number, one in enumerate(relaxed)
    ]
    return Hull(tuple(elements), tuple(one.name for one in read), shares, np.array(enthalpies), left_out)
