"""A trained potential as an object of Python: it predicts lists of structures, and is a calculator of ASE."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ase import Atoms

from domains.materials.data.readers.source import check_atoms
from domains.materials.data.structure import Structure
from domains.materials.inference.calculator import SciMLCalculator
from domains.materials.inference.predict import GRADIENTS
from domains.materials.inference.predictor import Predictor
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
            branch: the data set whose head is read; None takes the first.

        Returns:
            Copies. What ASE knows (energy, eV; forces, eV/A; stress, eV/A^3) is asked of each as of any atoms
            (``get_potential_energy()``); the rest, and standard deviations, stand in ``info`` and ``arrays``.

        Raises:
            DataError: a structure has elements that the model does not know, or atoms that are too close.
        """
        many = [structures] if isinstance(structures, Atoms) else list(structures)
        for number, atoms in enumerate(many):
            check_atoms(atoms, f"structure {number}")
        plain = [replace(Structure.from_atoms(atoms), labels={}, name=f"structure {n}") for n, atoms in enumerate(many)]
        predictor = Predictor(self._loaded, dtype=dtype, branch=branch)
        gradients = bool(set(predictor.predicts) & set(GRADIENTS))
        predicted = []
        for structure, atoms, values in zip(plain, many, predictor.predict(plain, gradients=gradients), strict=True):
            known = {name: value for name, value in values.items() if structure.volume or not name.startswith("stress")}
            labeled = replace(structure, labels=known, group="", branch=0).to_atoms()
            labeled.info = {**atoms.info, **{key: value for key, value in labeled.info.items() if key != "name"}}
            predicted.append(labeled)
        return predicted

    def calculator(self, **options: Any) -> SciMLCalculator:
        """Returns ASE's calculator of the model; takes ``dtype``, ``branch`` and ``skin`` as that does."""
        return SciMLCalculator(self.folder, checkpoint=self._checkpoint, device=str(self._mesh.device), **options)
