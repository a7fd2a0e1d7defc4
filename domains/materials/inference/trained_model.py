"""A trained potential as an object of Python: it predicts lists of structures, and is a calculator of ASE."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase import Atoms

from domains.materials.data.batch import GraphSample
from domains.materials.data.readers.labeled_frames import check_atoms
from domains.materials.data.structure import Structure
from domains.materials.dynamics.langevin import DynamicsConfig, LangevinDynamics
from domains.materials.dynamics.moving import MovingBatch, check_free
from domains.materials.dynamics.relax import RelaxConfig, relax
from domains.materials.inference.calculator import SciMLCalculator
from domains.materials.inference.out_of_domain import outside
from domains.materials.inference.predict import GRADIENTS, RELAX_STEPS, RELAXED
from domains.materials.inference.predicted_atoms import predicted_atoms
from domains.materials.inference.predictor import Labels, Predictor
from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.run.trained_model import TrainedModel


class MaterialsModel(TrainedModel):
    """Holds a trained model of alloys."""

    def predict(
        self, structures: Atoms | Iterable[Atoms], *, dtype: str = "float32", branch: str | None = None
    ) -> list[Atoms]:
        """Predicts structures, many in a batch.

        Args:
            structures: one or more; they are not changed.
            dtype: ``float32`` or ``float64``, of everything that is computed.
            branch: the data set whose head is read; None takes for each structure the first that knows its elements.

        Returns:
            Copies, without labels that they came with. What ASE knows (energy, eV; forces, eV/A; stress, eV/A^3) is
            asked of each as of any atoms (``get_potential_energy()``); the rest, and standard deviations, stand in
            ``info`` and ``arrays``. ``info["outside"]`` says whether one lies outside the training set, and
            ``info["outside_why"]`` why. Of a model of several data sets, ``info["data_set"]`` says whose head was
            read: their energies need not share a zero.

        Raises:
            DataError: a structure has elements that the model does not know, or atoms that are too close.
        """
        many, plain = _plain(structures)
        predictor = self._predictor(dtype, branch)
        gradients = bool(set(predictor.predicts) & set(GRADIENTS))
        predicted = predictor.predict_graphs(map(predictor.sample, plain), gradients=gradients)
        return [
            _with_reasons(predictor, atoms, structure, sample, values)
            for atoms, structure, (sample, values) in zip(many, plain, predicted, strict=True)
        ]

    def relax(
        self,
        structures: Atoms | Iterable[Atoms],
        *,
        cell: bool = True,
        fmax: float = 0.02,
        max_steps: int = 500,
        dtype: str = "float64",
        branch: str | None = None,
    ) -> list[Atoms]:
        """Relaxes structures, many at once, as ASE's FIRE does each.

        Args:
            structures: one or more; they are not changed.
            cell: whether cells are relaxed too.
            fmax: largest force that is left, eV/A.
            max_steps: after which a structure is given up.
            dtype: ``float32`` or ``float64``, of what the model computes.
            branch: the data set whose head is read; None takes for each structure the first that knows its elements.

        Returns:
            Relaxed copies with their energies, forces and stress; ``info["relaxed"]`` says whether each has
            converged, and ``info["relax_steps"]`` after how many steps.

        Raises:
            DataError: a structure that the model does not know, with fixed atoms, or without a cell that repeats.
        """
        config = build(RelaxConfig, {"relax": "cell" if cell else "atoms", "fmax": fmax, "max_steps": max_steps})
        many, plain = _plain(structures)
        _check_free(many)
        predictor, relaxed = self._predictor(dtype, branch), []
        for atoms, one in zip(many, relax(predictor, plain, config), strict=True):
            sample = predictor.sample(one.structure)
            labeled = _with_reasons(predictor, atoms, one.structure, sample, one.values)
            labeled.info |= {RELAXED: one.converged, RELAX_STEPS: one.steps}
            relaxed.append(labeled)
        return relaxed

    def dynamics(
        self,
        structures: Atoms | Iterable[Atoms],
        *,
        dtype: str = "float64",
        branch: str | None = None,
        **keys: Any,
    ) -> list[list[Atoms]]:
        """Moves structures at a temperature and, where wanted, a pressure, many at once.

        Args:
            structures: one or more; they are not changed.
            dtype: ``float32`` or ``float64``, of what the model computes.
            branch: the data set whose head is read; None takes for each structure the first that knows its elements.
            keys: see :class:`~domains.materials.dynamics.langevin.DynamicsConfig`: ``temperature``, ``pressure``,
                ``steps``, ``every``, ``time_step``, ``friction``, ``seed``, ...

        Returns:
            A trajectory of each: the start and every so many steps, with energies, forces, stress (without
            the motion of atoms), momenta (ASE's units) and ``info["temperature"]``. Velocities at the start are drawn
            at the temperature, whichever atoms came with.

        Raises:
            ConfigError: a pressure, and a structure that does not repeat in all directions.
            DataError: a structure that the model does not know, or with fixed atoms.
        """
        config = build(DynamicsConfig, keys)
        many, plain = _plain(structures)
        _check_free(many)
        predictor, trajectories = self._predictor(dtype, branch), [list[Atoms]() for _ in plain]
        if not plain:
            return []
        for snapshot in LangevinDynamics(MovingBatch(predictor, plain), config).run():
            for number, structure in enumerate(snapshot.structures):
                values = snapshot.values[number]
                atoms = predicted_atoms(many[number], structure, values, predictor.data_set(structure))
                atoms.set_momenta(snapshot.momenta[number])
                atoms.info |= {"step": snapshot.step, "temperature": float(snapshot.temperature[number])}
                trajectories[number].append(atoms)
        return trajectories

    def _predictor(self, dtype: str, branch: str | None) -> Predictor:
        return Predictor(self._loaded, dtype=dtype, branch=branch)

    def calculator(
        self, *, dtype: str = "float64", branch: str | None = None, skin: float = 0.5, shared: bool = False
    ) -> SciMLCalculator:
        """Returns ASE's calculator of the model; see :class:`~domains.materials.inference.calculator.SciMLCalculator`
        for what it takes.
        """
        return SciMLCalculator(
            self.folder,
            checkpoint=self._checkpoint,
            device=str(self._mesh.device),
            dtype=dtype,
            branch=branch,
            skin=skin,
            shared=shared,
        )


def _with_reasons(
    predictor: Predictor, atoms: Atoms, structure: Structure, sample: GraphSample, values: Labels
) -> Atoms:
    """Returns a copy of atoms with what is predicted, and whether they lie outside the training set."""
    reasons = outside(sample, predictor.schema, predictor.statistics, values)
    return predicted_atoms(atoms, replace(structure, name=""), values, predictor.data_set(structure), reasons)


def _check_free(many: Iterable[Atoms]) -> None:
    for number, atoms in enumerate(many):
        check_free(atoms, f"structure {number}")


def _plain(structures: Atoms | Iterable[Atoms]) -> tuple[list[Atoms], list[Structure]]:
    """Returns structures as they are given, and without labels.

    Raises:
        ConfigError: one is of another type.
        DataError: one has no atoms, or positions that are no numbers.
    """
    is_text = isinstance(structures, str | Path)
    is_one = isinstance(structures, Atoms) or is_text or not isinstance(structures, Iterable)
    many: list[Any] = [structures] if is_one else list(structures)
    for one in many:
        if not isinstance(one, Atoms):
            hint = f"ase.io.read({str(one)!r}, ':') reads a file" if is_text else None
            raise ConfigError(f"must be Atoms of ASE, got {type(one).__name__}", key="structures", hint=hint)
    for number, atoms in enumerate(many):
        check_atoms(atoms, f"structure {number}")
    return many, [replace(Structure.from_atoms(one), labels={}, name=f"structure {n}") for n, one in enumerate(many)]
