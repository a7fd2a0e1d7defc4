"""ASE's calculator of a trained potential: relaxations, molecular dynamics, and whatever else ASE does with one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from domains.materials.data.batch import GraphSample
from domains.materials.data.neighbors import MIN_DISTANCE, graph_sample
from domains.materials.data.readers.labeled_frames import check_atoms
from domains.materials.data.structure import ASE_RESULTS, Structure, stress_voigt, stresses_voigt
from domains.materials.inference.out_of_domain import Reason, edge_lengths, in_words, outside
from domains.materials.inference.predictor import ATOMIC, DATA_SET, Labels, Predictor
from domains.materials.training.ensemble import STD
from domains.materials.training.potential import ENERGY
from sciml.core.config import at_least

if TYPE_CHECKING:
    from ase import Atoms

GRADIENTS = frozenset({"forces", "stress", "stresses"})


class OutsideTrainingSet(UserWarning):
    """Warns that a structure lies outside what the model was trained on, or was judged as in another data set than the
    one before.
    """


class SciMLCalculator(Calculator):
    """Makes a trained model one of ASE's calculators.

    Energy, forces and stress are those of the heads that the model has, ``energies`` and ``stresses`` what each atom
    has of them (``atoms.get_potential_energies()``, ``atoms.get_stresses()``); standard deviations stand beside them in
    ``results`` as ``energy_std``, ``forces_std``, ``stress_std`` where the model is an ensemble. The first structure
    that lies outside the training set for a kind of reason is warned of (:class:`OutsideTrainingSet`).

    Neighbors are searched with a skin around the cutoff, and again only when an atom has moved by half of it or the
    cell has changed (Verlet, 1967, https://doi.org/10.1103/PhysRev.159.98); edges beyond the cutoff are left out each
    time, so results do not depend on it.

    Args:
        run: a run's folder, its name, or ``latest``.
        runs_dir: where names are looked up.
        checkpoint: ``best``, ``latest`` or a step.
        device: ``auto``, ``cpu``, ``cuda``, ...
        dtype: ``float64`` conserves energy over long dynamics; ``float32`` is faster.
        branch: the data set whose head is read; None takes for each structure the first that knows its elements.
        skin: A; 0 searches neighbors each time.
        shared: whether the processes that torchrun started share each structure. All must run the same script.

    Attributes:
        predictor: the model.
        outside: why the last structure lies outside the training set, the gravest reason first; empty if it does not.
        data_set: the data set whose head was read last; None before anything was computed.
        searches: how often neighbors were searched.

    Raises:
        ConfigError: there is no such run, checkpoint, device or data set, or the skin is negative.
    """

    def __init__(
        self,
        run: str | Path = "latest",
        *,
        runs_dir: str = "runs",
        checkpoint: str = "best",
        device: str = "auto",
        dtype: str = "float64",
        branch: str | None = None,
        skin: float = 0.5,
        shared: bool = False,
    ) -> None:
        super().__init__()
        at_least(skin, 0, "skin", example=0.5)
        self.predictor = Predictor.open(
            run, runs_dir=runs_dir, checkpoint=checkpoint, device=device, dtype=dtype, branch=branch, shared=shared
        )
        self.implemented_properties = _properties(self.predictor)
        self.skin, self.searches = skin, 0
        self.outside: list[Reason] = []
        self.data_set: str | None = None
        self._listed: GraphSample | None = None
        self._told: set[str] = set()

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """Returns a property of some atoms; see ASE.

        Raises:
            PropertyNotImplementedError: the model has no head for it.
        """
        if name not in self.implemented_properties:
            known = ", ".join(self.implemented_properties)
            raise PropertyNotImplementedError(f"the model has no head for {name!r}; it predicts {known}")
        if name in ("stress", "stresses") and atoms is not None and not Structure.from_atoms(atoms).volume:
            raise PropertyNotImplementedError("stress needs a cell of three vectors")
        return super().get_property(name, atoms, allow_calculation)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = (ENERGY,),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fills ``results``; forces and stress only if one of them is asked for.

        Raises:
            DataError: elements that the model does not know, positions that are no numbers, atoms closer than 0.4 A.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        assert self.atoms is not None  # ASE's calculate has kept them
        structure = replace(Structure.from_atoms(self.atoms), labels={})
        sample, lengths = self._sample(structure, self.atoms)
        gradients = not GRADIENTS.isdisjoint(name.removesuffix(STD) for name in properties)
        atomic = not set(ATOMIC).isdisjoint(name.removesuffix(STD) for name in properties)
        (values,) = self.predictor.predict_samples([sample], gradients=gradients, atomic=atomic)
        self._judge(sample, lengths, values, structure.formula)
        self.results = _as_results(values, structure.volume)

    def _sample(self, structure: Structure, atoms: Atoms) -> tuple[GraphSample, np.ndarray]:
        """Returns the structure with its neighbors, and their distances (A)."""
        sample = None if self._listed is None else _moved(self._listed, structure, self.skin)
        lengths = np.zeros(0) if sample is None else edge_lengths(sample)
        if sample is None or (len(lengths) and lengths.min() < MIN_DISTANCE):  # a new search says which atoms collide
            sample = self._listed = self._search(structure, atoms)
            lengths = edge_lengths(sample)
        near = lengths < self.predictor.cutoff
        edges = {name: getattr(sample, name)[near] for name in ("senders", "receivers", "shifts")}
        return replace(sample, **edges), lengths[near]

    def _search(self, structure: Structure, atoms: Atoms) -> GraphSample:
        check_atoms(atoms, structure.formula)
        self.predictor.schema.check_elements(structure.elements, structure.formula)
        self.searches += 1
        branch = self.predictor.branch_of(structure.elements)
        self._tell_of_data_sets(branch, structure.formula)
        return replace(graph_sample(structure, self.predictor.cutoff + self.skin), branch=branch)

    def _tell_of_data_sets(self, branch: int, name: str) -> None:
        """Keeps whose head is read, and warns once where it is another one's than before."""
        before, self.data_set = self.data_set, self.predictor.schema.branches[branch]
        if before not in (None, self.data_set) and DATA_SET not in self._told:
            self._told.add(DATA_SET)
            warnings.warn(
                f"{name} is judged as in the data set {self.data_set!r}, the structure before it as in {before!r}: "
                "their energies need not share a zero; branch=NAME takes one for all",
                OutsideTrainingSet,
                stacklevel=5,
            )

    def _judge(self, sample: GraphSample, lengths: np.ndarray, values: Labels, name: str) -> None:
        """Notes why a structure lies outside, and warns of each kind of reason once."""
        self.outside = outside(sample, self.predictor.schema, self.predictor.statistics, values, distances=lengths)
        new = [reason for reason in self.outside if reason.kind not in self._told]
        if new:
            self._told |= {reason.kind for reason in new}
            warnings.warn(
                f"{name} lies outside the training set: {in_words(new)} "
                "(of this kind, no further structure is warned of)",
                OutsideTrainingSet,
                stacklevel=3,
            )


def _properties(predictor: Predictor) -> list[str]:
    """Lists everything that ends up in results, under ASE's names."""
    names = [ASE_RESULTS.get(name, name) for name in (*predictor.predicts, *predictor.atomic)]
    spreads = [f"{ASE_RESULTS.get(name, name)}{STD}" for name in predictor.uncertain]
    return [*names, *(["free_energy"] if ENERGY in names else []), *spreads]


def _moved(listed: GraphSample, structure: Structure, skin: float) -> GraphSample | None:
    """Returns the listed structure with the atoms where they are now; None where its list may no longer be complete.

    Two atoms that each moved by less than half the skin are nearer by less than the skin.
    """
    same = ("atomic_numbers", "cell", "pbc")
    if not all(np.array_equal(getattr(listed, name), getattr(structure, name)) for name in same):
        return None
    farthest = np.square(structure.positions - listed.positions).sum(1).max()
    # not a number is no reason to keep a list
    return replace(listed, positions=structure.positions) if farthest < (0.5 * skin) ** 2 else None


def _as_results(values: Labels, volume: float) -> dict[str, Any]:
    """Returns results under ASE's names and in its order of stress, which a structure without volume does not have."""
    results: dict[str, Any] = {}
    for name, value in values.items():
        label = name.removesuffix(STD)
        if label in ("stress", "stresses"):
            if volume:
                results[name] = stress_voigt(value) if label == "stress" else stresses_voigt(value)
        else:
            results[ASE_RESULTS.get(label, label) + name[len(label) :]] = value if value.ndim else float(value)
    if ENERGY in results:
        results["free_energy"] = results[ENERGY]
    return results
