"""A trained model applied to structures: what prediction, ASE's calculator and screening have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from domains.materials.data.batch import GraphSample, collate
from domains.materials.data.labels import NODE
from domains.materials.data.neighbors import graph_sample
from domains.materials.data.samples import DTYPES
from domains.materials.data.structure import Structure
from domains.materials.training.ensemble import combined
from domains.materials.training.task import ENERGY, MaterialsTask
from sciml.core.config import one_of
from sciml.core.errors import ConfigError
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import pick_device
from sciml.domain.protocol import LoadedModel
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_model

Labels = dict[str, np.ndarray]
ATOMIC = ("energies", "stresses")
"""Names what each atom has of energy and stress, under ASE's names."""
BATCH_EDGES = 60_000
"""Edges that are gone through together; a structure with more goes alone."""


class Predictor:
    """Predicts for structures without labels.

    Args:
        loaded: the model.
        dtype: ``float32`` or ``float64``, of everything that is computed.
        branch: the data set whose head is read; None takes the first.

    Attributes:
        schema: elements, cutoff, labels.
        predicts: names of what the model has a head for, forces and stress included.
        has_spread: whether everything predicted has a standard deviation beside it, ``<name>_std``.

    Raises:
        ConfigError: the model has no such data set.
    """

    def __init__(self, loaded: LoadedModel, *, dtype: str = "float32", branch: str | None = None) -> None:
        one_of(dtype, DTYPES, "dtype")
        self.schema, self.statistics = loaded.fitted.schema, loaded.fitted.statistics
        names = self.schema.branches
        self.branch = 0 if branch is None else names.index(one_of(branch, names, "branch"))
        self.dtype, self.device = DTYPES[dtype], loaded.device
        self.model = loaded.model.to(self.dtype)
        self.cutoff: float = loaded.spec.model.cutoff
        self.config = loaded.spec.task
        self.task = MaterialsTask(self.schema, self.statistics, self.config).to(self.device)
        self.task.calibration = loaded.fitted.calibration
        self.has_spread = self.config.members > 1
        energy = self.config.targets.get(ENERGY)
        weights = {"forces": energy.forces_weight, "stress": energy.stress_weight} if energy else {}
        gradients = tuple(weights) if self.config.has_gradients else ()
        self.predicts = (*self.config.targets, *gradients)

    @classmethod
    def open(
        cls,
        run: str | Path,
        *,
        runs_dir: str = "runs",
        checkpoint: str = "best",
        device: str = "auto",
        dtype: str = "float32",
        branch: str | None = None,
    ) -> Predictor:
        """Opens the model of a run: its folder, its name, or ``latest``.

        Raises:
            ConfigError: there is no such run, checkpoint or device, or it is no run of this domain.
        """
        folder = RunFolder.find(str(run), runs_dir)
        if folder.record["domain"] != "materials":
            raise ConfigError(f"{folder.path} is a run of domain={folder.record['domain']}", key="run")
        loaded = load_model(folder, checkpoint=checkpoint, mesh=Mesh.alone(pick_device(device)))
        return cls(loaded, dtype=dtype, branch=branch)

    def refuse_without(self, *names: str) -> None:
        """Refuses what the model has no head for.

        Raises:
            ConfigError: naming it and what the model predicts.
        """
        for name in names:
            if name not in (known := (*self.predicts, *self.atomic)):
                raise ConfigError(
                    f"the model has no head for {name!r}", key="run", hint=f"it predicts {', '.join(known)}"
                )

    def sample(self, structure: Structure) -> GraphSample:
        """Returns a structure with its neighbors within the model's reach.

        Raises:
            DataError: it has elements that the model does not know, or atoms that are too close.
        """
        self.schema.check_elements(structure.elements, structure.name or structure.formula)
        return replace(graph_sample(structure, self.cutoff), branch=self.branch, labels={})

    @property
    def atomic(self) -> tuple[str, ...]:
        """Returns what may be asked of each atom: its energy, and its stress where stress is learned."""
        if ENERGY not in self.config.targets:
            return ()
        return ATOMIC if self.config.has_gradients else ATOMIC[:1]

    def predict(
        self, structures: Iterable[Structure], *, gradients: bool = True, atomic: bool = False
    ) -> Iterator[Labels]:
        """Yields the predictions for each structure in turn, by name; in the units of its labels.

        Args:
            structures: any number; they are gone through in batches of about as many edges.
            gradients: whether forces and stress are wanted.
            atomic: whether energies and stresses of atoms are wanted beside; they add up to those of the structure.
        """
        for samples in _batches(map(self.sample, structures)):
            yield from self.predict_samples(samples, gradients=gradients, atomic=atomic)

    def predict_samples(
        self, samples: Sequence[GraphSample], *, gradients: bool = True, atomic: bool = False
    ) -> list[Labels]:
        """Predicts for structures whose neighbors are known, in one batch."""
        batch = collate(samples, dtype=self.dtype).to(self.device)
        with torch.no_grad():
            members = self.task.evaluate(self.model, batch, create_graph=False, gradients=gradients, atomic=atomic)
            values = combined(members, self.task.calibration)
        sizes = batch.num_atoms.tolist()
        split = {
            name: np.split(value.detach().cpu().numpy(), np.cumsum(sizes if self._is_node(name) else [1] * len(sizes)))
            for name, value in values.items()
        }
        return [
            {name: parts[n] if self._is_node(name) else parts[n][0] for name, parts in split.items()}
            for n in range(len(samples))
        ]

    def member_values(self, samples: Iterable[GraphSample], name: str) -> Float[np.ndarray, "member sample *any"]:
        """Returns one value of each structure by each member of an ensemble, without averages.

        Args:
            samples: structures whose neighbors are known; they are gone through in batches.
            name: of what structures have, e.g. ``energy`` or ``stress``.
        """
        values = []
        for few in _batches(samples):
            batch = collate(few, dtype=self.dtype).to(self.device)
            with torch.no_grad():
                members = self.task.evaluate(self.model, batch, create_graph=False, gradients=name == "stress")
            values.append(torch.stack([member[name].detach().double() for member in members]).cpu().numpy())
        return np.concatenate(values, axis=1)

    def _is_node(self, name: str) -> bool:
        name = name.removesuffix("_std")
        return name in ("forces", *ATOMIC) or (name in self.schema.labels and self.schema.labels[name].level == NODE)


def _batches(samples: Iterable[GraphSample]) -> Iterator[list[GraphSample]]:
    batch: list[GraphSample] = []
    edges = 0
    for sample in samples:
        if batch and edges + len(sample.senders) > BATCH_EDGES:
            yield batch
            batch, edges = [], 0
        batch.append(sample)
        edges += len(sample.senders)
    if batch:
        yield batch
