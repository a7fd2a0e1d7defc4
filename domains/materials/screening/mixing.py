"""Mixing enthalpies of random alloys on ideal lattices, by every member of an ensemble.

The enthalpy of a composition on a lattice is the energy an atom at the volume where it is least, a mean over structures
with the elements on other sites, less the same mixture of the pure elements, each on that of the lattices where its
energy is least. A member's errors in the alloy and in its elements go together, so members form the whole difference
before they are compared. All are at the volume where their mean energy is least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from domains.materials.data.batch import GraphSample
from domains.materials.data.structure import Structure, formula
from domains.materials.dynamics.relax import Relaxed, relax
from domains.materials.inference.out_of_domain import outside
from domains.materials.inference.predictor import Predictor
from domains.materials.screening.compositions import Composition
from domains.materials.screening.decorations import AlloySample, draw
from domains.materials.screening.equilibrium import ENERGY, ENTHALPY, MemberModel, PureCrystal, minimum, pure_crystals
from domains.materials.screening.screen_config import ScreenConfig
from domains.materials.screening.sites import Sites, compact_repeats
from domains.materials.simulation.alloys import atom_counts
from sciml.core.errors import ConfigError

Array = np.ndarray
Candidate = tuple[Composition, str]
"""A composition and a lattice."""


@dataclass(frozen=True)
class MixingResult:
    """Holds what is predicted for a composition on a lattice.

    Attributes:
        composition: as on the grid.
        steps: of the grid that each element has.
        lattice: its crystal.
        formula: atoms of each structure, as near to the composition as whole numbers are.
        fractions: of these atoms.
        mixing_enthalpy: eV/atom.
        spread: standard deviation among the members of an ensemble, eV/atom; None of a single model.
        decoration_error: standard error of the mean over structures, eV/atom; None of a single one.
        ideal_entropy: of the fractions, in Boltzmann constants an atom.
        volume: A^3/atom.
        relaxed: whether the volume of least energy lies within the strains.
        order_missed: largest difference of a Warren-Cowley parameter of unlike pairs from the wanted one.
        gain: what relaxing atoms, or atoms and cell, has lowered the enthalpy by, eV/atom; None where nothing was.
        unfinished: structures that were still moving when relaxing was given up.
        outside: why it is not an alloy that the model was trained for; empty where it is.
    """

    composition: str
    steps: dict[str, int]
    lattice: str
    formula: str
    fractions: dict[str, float]
    mixing_enthalpy: float
    spread: float | None
    decoration_error: float | None
    ideal_entropy: float
    volume: float
    relaxed: bool
    order_missed: float | None = None
    gain: float | None = None
    unfinished: int = 0
    outside: str = ""


class Mixing:
    """Judges compositions by a model.

    Args:
        model: with an energy, or a mixing enthalpy of its own.
        config: elements, lattices, structures, strains.
        calibration: factors of spreads among members, by name of the value; one where a name is missing.

    Attributes:
        name: what the model is asked for.
        calibration: its factor; None where spreads were never set beside errors.
        sites: of the structures on each lattice.
        pure: each element on each lattice.
        best: of each element, the lattice where it is lowest.
        predictor: the model, where it has an energy to relax by.

    Raises:
        ConfigError: the model predicts neither, does not know an element, or finds no crystal of it.
    """

    def __init__(
        self, model: MemberModel, config: ScreenConfig, calibration: Mapping[str, float] | None = None
    ) -> None:
        self.model, self.config = model, config
        self.name = quantity(model)
        self.calibration = (calibration or {}).get(self.name)
        known = model.schema.symbols
        for symbol in config.symbols:
            if symbol not in known:
                raise ConfigError(
                    f"the model does not know {symbol}", key="elements", hint=f"it knows {', '.join(known)}"
                )
        self.sites = {
            lattice: Sites(lattice, compact_repeats(lattice, config.atoms, config.grid.steps), model.cutoff)
            for lattice in config.lattices
        }
        needs_energy = config.relax != "none" or config.hull is not None or config.elastic > 0
        self.predictor = model if isinstance(model, Predictor) and self.name == ENERGY else None
        if needs_energy and (self.predictor is None or not self.predictor.config.has_gradients):
            raise ConfigError("the model has no energy to relax by", key="run", hint="train one with energy and forces")
        self.pure = pure_crystals(model, self.name, config.symbols, config.lattices)
        if config.relax == "cell":
            self.pure = {kind: self._relaxed_pure(*kind, one) for kind, one in self.pure.items()}
        self.best = {
            symbol: min((self.pure[symbol, lattice].values.mean(), lattice) for lattice in config.lattices)[1]
            for symbol in config.symbols
        }

    def _relaxed_pure(self, symbol: str, lattice: str, crystal: PureCrystal) -> PureCrystal:
        """Returns an element's crystal with the shape of its cell relaxed, of which HCP's c/a is what changes."""
        from ase.data import atomic_numbers

        sites = Sites(lattice, (1, 1, 1), self.model.cutoff)
        structure = as_structure(sites.sample(np.full(len(sites), atomic_numbers[symbol]), crystal.a))
        assert self.predictor is not None
        (settled,) = relax(self.predictor, [structure], self.config.relaxing)
        values = self.predictor.member_values([self.predictor.sample(settled.structure)], ENERGY)[:, 0] / len(sites)
        return PureCrystal(crystal.a, values)

    @property
    def members(self) -> int:
        """Returns the number of models in the ensemble."""
        return len(next(iter(self.pure.values())).values)

    def above(self, symbol: str, lattice: str) -> float:
        """Returns how much higher an element is on a lattice than on its best one, by the members' mean, eV/atom."""
        return float((self.pure[symbol, lattice].values - self.pure[symbol, self.best[symbol]].values).mean())

    def largest_rounding(self, lattice: str) -> float:
        """Returns by how much fractions of whole atoms differ from those of the grid, at most."""
        size = len(self.sites[lattice])
        if size % self.config.grid.steps == 0:
            return 0.0
        return max(
            abs(count / size - composition.fractions[symbol])
            for composition in self.config.grid.compositions()
            for symbol, count in atom_counts(composition.fractions, size).items()
        )

    def judge(self, candidates: Sequence[Candidate]) -> list[MixingResult]:
        """Predicts each candidate; whatever else is asked with it."""
        drawn = [self.draw(composition, lattice) for composition, lattice in candidates]
        strains = self.config.strains
        values = self.model.member_values(
            (
                one.sites.sample(numbers, one.a * (1 + strain), self.model.branch)
                for one in drawn
                for numbers in one.decorations
                for strain in strains
            ),
            self.name,
        )
        by_candidate = values.reshape(len(values), len(drawn), -1, len(strains))
        found = [self._found(one, by_candidate[:, number]) for number, one in enumerate(drawn)]
        return found if self.config.relax == "none" else self._relaxed(drawn, found)

    def structures(self, composition: Composition, lattice: str, volume: float) -> list[Structure]:
        """Returns the structures of a candidate at a volume (A^3/atom)."""
        drawn = self.draw(composition, lattice)
        a = drawn.sites.lattice_constant(volume)
        return [as_structure(drawn.sites.sample(numbers, a)) for numbers in drawn.decorations]

    def _relaxed(self, drawn: Sequence[AlloySample], found: Sequence[MixingResult]) -> list[MixingResult]:
        """Returns results with all structures relaxed from their best volume."""
        given = [
            as_structure(one.sites.sample(numbers, one.sites.lattice_constant(result.volume)))
            for one, result in zip(drawn, found, strict=True)
            for numbers in one.decorations
        ]
        assert self.predictor is not None
        settled = list(relax(self.predictor, given, self.config.relaxing))
        samples = (self.predictor.sample(one.structure) for one in settled)
        energies = self.predictor.member_values(samples, ENERGY)
        size = len(given) // len(drawn)
        return [
            self._lowered(one, result, settled[size * n : size * (n + 1)], energies[:, size * n : size * (n + 1)])
            for n, (one, result) in enumerate(zip(drawn, found, strict=True))
        ]

    def _lowered(
        self,
        drawn: AlloySample,
        found: MixingResult,
        settled: Sequence[Relaxed],
        values: Float[Array, "member decoration"],
    ) -> MixingResult:
        """Returns a result with energies and volume of relaxed structures."""
        numbers = self._statistics(drawn, values / len(drawn.sites))
        return replace(
            found,
            **numbers,
            volume=float(np.mean([one.structure.volume for one in settled])) / len(drawn.sites),
            gain=found.mixing_enthalpy - numbers["mixing_enthalpy"],
            unfinished=sum(not one.converged for one in settled),
        )

    def draw(self, composition: Composition, lattice: str) -> AlloySample:
        """Draws the structures of a composition on a lattice."""
        constants = {symbol: self.pure[symbol, lattice].a for symbol in self.config.symbols}
        return draw(composition, self.sites[lattice], self.config, constants)

    def reference(self, fractions: Mapping[str, float]) -> Float[Array, "member"] | float:
        """Returns the pure elements' own energies, mixed; zero for a model whose own enthalpies know theirs."""
        if self.name == ENTHALPY:
            return 0.0
        return sum(share * self.pure[symbol, self.best[symbol]].values for symbol, share in fractions.items())

    def _found(self, drawn: AlloySample, values: Float[Array, "member decoration strain"]) -> MixingResult:
        energies = values / len(drawn.sites) if self.name == ENERGY else values
        least = minimum(self.config.strains, energies.mean((0, 1)))
        alloy = energies @ least.weights
        fractions = drawn.fractions
        numbers = self._statistics(drawn, alloy)
        a = drawn.a * (1 + least.strain)
        return MixingResult(
            composition=drawn.composition.name,
            steps=dict(zip(drawn.composition.elements, drawn.composition.steps, strict=True)),
            lattice=drawn.sites.lattice,
            formula=formula(drawn.decorations[0]),
            fractions=fractions,
            **numbers,
            ideal_entropy=float(-sum(x * np.log(x) for x in fractions.values())) + 0.0,
            volume=drawn.sites.volume * a**3,
            relaxed=least.inside,
            order_missed=drawn.order_missed,
            outside=self._outside(drawn.sites.sample(drawn.decorations[0], a, self.model.branch), numbers["spread"]),
        )

    def _statistics(self, drawn: AlloySample, alloy: Float[Array, "member decoration"]) -> dict[str, Any]:
        """Returns the mixing enthalpy, its spread among members and its error over structures."""
        enthalpies = alloy.mean(1) - self.reference(drawn.fractions)
        spread = (self.calibration or 1.0) * float(enthalpies.std(ddof=1)) if len(enthalpies) > 1 else None
        structures = alloy.mean(0)
        error = float(structures.std(ddof=1)) / len(structures) ** 0.5 if len(structures) > 1 else None
        return {"mixing_enthalpy": float(enthalpies.mean()), "spread": spread, "decoration_error": error}

    def _outside(self, sample: GraphSample, spread: float | None) -> str:
        """Says why a structure is none that the model was trained for."""
        known = (
            {}
            if spread is None or self.name == ENTHALPY
            else {"energy_std": np.asarray(spread * len(sample.atomic_numbers))}
        )
        reasons = outside(sample, self.model.schema, self.model.statistics, known)
        return "; ".join(reason.text for reason in reasons)


def as_structure(sample: GraphSample) -> Structure:
    """Returns a graph's structure."""
    return Structure(sample.atomic_numbers, sample.positions, sample.cell, sample.pbc)


def quantity(model: MemberModel) -> str:
    """Returns the quantity that a model can be asked for.

    Raises:
        ConfigError: it has neither energy nor mixing enthalpy.
    """
    for name in (ENERGY, ENTHALPY):
        if name in model.predicts:
            return name
    raise ConfigError(
        "the model has neither an energy nor a mixing_enthalpy",
        key="run",
        hint=f"it predicts {', '.join(model.predicts)}",
    )
