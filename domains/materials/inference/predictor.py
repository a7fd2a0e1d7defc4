"""A trained model applied to structures: what prediction, ASE's calculator and screening have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import nn

from domains.materials.data.batch import GraphSample, collate
from domains.materials.data.labels import NODE
from domains.materials.data.neighbors import graph_sample
from domains.materials.data.samples import DTYPES
from domains.materials.data.structure import Structure
from domains.materials.inference.partition import Ranks, evaluate_shared
from domains.materials.training.ensemble import combined
from domains.materials.training.potential import ENERGY
from domains.materials.training.task import MaterialsTask
from sciml.core.config import one_of
from sciml.core.errors import ConfigError
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World, join, pick_device
from sciml.domain.protocol import LoadedModel
from sciml.models.gnn import GNN
from sciml.run.folder import RunFolder

Labels = dict[str, np.ndarray]
ATOMIC = ("energies", "stresses")
"""Names what each atom has of energy and stress, under ASE's names."""
DATA_SET = "data_set"
"""Entry of a structure that was predicted by one of several data sets' heads: the name of the data set."""
BATCH_EDGES = 60_000
"""Edges that are gone through together; a structure with more goes alone, shared by the processes there are."""
LARGE_EDGES = 1_000_000
"""Edges from which on layers are computed again in the backward pass, since memory is dearer than time."""


class Predictor:
    """Predicts for structures without labels.

    Args:
        loaded: the model.
        dtype: ``float32`` or ``float64``, of everything that is computed.
        branch: the data set whose head is read; None takes for each structure the first that knows all its elements.

    Attributes:
        schema: elements, cutoff, labels.
        predicts: names of what the model has a head for, forces and stress included.
        has_spread: whether everything predicted has a standard deviation beside it, ``<name>_std``.
        world: the processes that share structures; None: this one alone. All must ask for the same structures.
        least_shared: edges from which on a structure is shared.

    Raises:
        ConfigError: the model has no such data set.
    """

    def __init__(self, loaded: LoadedModel, *, dtype: str = "float32", branch: str | None = None) -> None:
        one_of(dtype, DTYPES, "dtype")
        self.schema, self.statistics = loaded.fitted.schema, loaded.fitted.statistics
        names = self.schema.branches
        self._branch: int | None = 0 if len(names) == 1 else None
        if branch is not None:
            self._branch = names.index(one_of(branch, names, "branch"))
        self.dtype, self.device = DTYPES[dtype], loaded.device
        self.model = loaded.model.to(self.dtype)
        self.cutoff: float = loaded.spec.model.cutoff
        self.config = loaded.spec.task
        self.task = MaterialsTask(self.schema, self.statistics, self.config).to(self.device)
        self.task.calibration = loaded.fitted.calibration
        self.world, self.least_shared = loaded.world, BATCH_EDGES
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
        shared: bool = False,
    ) -> Predictor:
        """Opens the model of a run: its folder, its name, or ``latest``.

        Args:
            shared: whether all processes that torchrun started share each structure; all must then do the same.

        Raises:
            ConfigError: there is no such run, checkpoint or device, or it is no run of this domain.
        """
        folder = RunFolder.find(str(run), runs_dir)
        if folder.record["domain"] != "materials":
            raise ConfigError(f"{folder.path} is a run of domain={folder.record['domain']}", key="run")
        world = join(device) if shared else World(0, 1, torch.device(pick_device(device)))
        from sciml.run.loaded import load_model  # torch's checkpoints take a second to import, which no plan needs

        loaded = load_model(folder, checkpoint=checkpoint, mesh=Mesh.alone(world.device))
        predictor = cls(replace(loaded, world=world), dtype=dtype, branch=branch)
        predictor.least_shared = 0 if shared else BATCH_EDGES
        return predictor

    @property
    def branch(self) -> int:
        """Returns the number of the data set that was named or kept, the first where each structure has its own."""
        return self._branch or 0

    def branch_of(self, atomic_numbers: Iterable[int]) -> int:
        """Returns the number of the data set whose head is read for some elements.

        Where none was named it is the first that had them all in training, or else most of them: energies of different
        data sets need not share a zero, and a data set says nothing of elements that it lacks.
        """
        if self._branch is not None:
            return self._branch
        numbers = set(atomic_numbers)
        branches = range(len(self.schema.branches))
        return min(branches, key=lambda one: len(self.statistics.lacking(self.schema.elements, numbers, one)))

    def keep_branch(self, atomic_numbers: Iterable[int]) -> int:
        """Reads from now on one head for all structures, the one for these elements, and returns its number."""
        self._branch = self.branch_of(atomic_numbers)
        return self._branch

    def told_data_set(self) -> list[str]:
        """Names, in a sentence, the data set that was named or kept; empty where the model has only one."""
        names = self.schema.branches
        return (
            [f"judged as in the data set {names[self.branch]!r}; branch=NAME takes another"] if len(names) > 1 else []
        )

    def data_set(self, structure: Structure) -> dict[str, str]:
        """Returns the name of the data set whose head is read, as an entry; empty where the model has only one."""
        names = self.schema.branches
        return {} if len(names) == 1 else {DATA_SET: names[self.branch_of(structure.elements)]}

    @property
    def uncertain(self) -> tuple[str, ...]:
        """Returns the names of what is predicted with a standard deviation: everything by an ensemble, else properties
        that have a variance of their own.
        """
        targets = self.config.targets
        own = {name for name, target in targets.items() if target.gaussian}
        return tuple(name for name in self.predicts if self.has_spread or name in own)

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
        return replace(graph_sample(structure, self.cutoff), branch=self.branch_of(structure.elements), labels={})

    @property
    def atomic(self) -> tuple[str, ...]:
        """Returns what may be asked of each atom: its energy, and its stress where stress is learned."""
        if ENERGY not in self.config.targets:
            return ()
        return ATOMIC if self.config.has_gradients else ATOMIC[:1]

    def predict(
        self, structures: Iterable[Structure], *, gradients: bool = True, atomic: bool = False
    ) -> Iterator[Labels]:
        """Returns the predictions for each structure in turn, by name; in the units of its labels.

        Args:
            structures: any number; they are gone through in batches of about as many edges.
            gradients: whether forces and stress are wanted.
            atomic: whether energies and stresses of atoms are wanted beside; they add up to those of the structure.
        """
        samples = map(self.sample, structures)
        return (values for _, values in self.predict_graphs(samples, gradients=gradients, atomic=atomic))

    def predict_graphs(
        self, samples: Iterable[GraphSample], *, gradients: bool = True, atomic: bool = False
    ) -> Iterator[tuple[GraphSample, Labels]]:
        """Yields each structure whose neighbors are known, from :meth:`sample`, with the predictions for it.

        Args:
            samples, gradients, atomic: see :meth:`predict`.
        """
        for few in _batches(samples):
            yield from zip(few, self.predict_samples(few, gradients=gradients, atomic=atomic), strict=True)

    def predict_samples(
        self, samples: Sequence[GraphSample], *, gradients: bool = True, atomic: bool = False
    ) -> list[Labels]:
        """Predicts for structures whose neighbors are known, in one batch; one that is large by all processes."""
        edges = sum(len(sample.senders) for sample in samples)
        with recomputing(self.model) if edges >= LARGE_EDGES else nullcontext():
            if len(samples) == 1 and self.world is not None and self.world.size > 1 and edges >= self.least_shared:
                values = self._shared(samples[0], gradients=gradients, atomic=atomic)
            else:
                values = self._whole(samples, gradients=gradients, atomic=atomic)
        sizes = [len(sample.atomic_numbers) for sample in samples]
        split = {
            name: np.split(value.detach().cpu().numpy(), np.cumsum(sizes if self._is_node(name) else [1] * len(sizes)))
            for name, value in values.items()
        }
        return [
            {name: parts[n] if self._is_node(name) else parts[n][0] for name, parts in split.items()}
            for n in range(len(samples))
        ]

    def _whole(self, samples: Sequence[GraphSample], *, gradients: bool, atomic: bool) -> dict[str, torch.Tensor]:
        """Predicts for structures in this process."""
        batch = collate(samples, dtype=self.dtype).to(self.device)
        with torch.no_grad():
            members = self.task.evaluate(self.model, batch, create_graph=False, gradients=gradients, atomic=atomic)
            return combined(members, self.task.calibration)

    def _shared(self, sample: GraphSample, *, gradients: bool, atomic: bool) -> dict[str, torch.Tensor]:
        """Predicts energies of a structure together with the other processes."""
        assert self.world is not None
        if tuple(self.config.targets) != (ENERGY,):
            raise ConfigError("processes share a structure's energy alone", key="run", hint="leave torchrun out")
        ranks = Ranks(self.world.rank, self.world.size, dist.group.WORLD)
        return evaluate_shared(
            self.task,
            self.model,
            sample,
            ranks,
            dtype=self.dtype,
            device=self.device,
            gradients=gradients,
            atomic=atomic,
        )

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


@contextmanager
def recomputing(model: nn.Module) -> Iterator[None]:
    """Lets all layers of a model be computed again in the backward pass."""
    networks = [module for module in model.modules() if isinstance(module, GNN)]
    before = [network.recomputes_layers for network in networks]
    for network in networks:
        network.recomputes_layers = True
    try:
        yield
    finally:
        for network, recomputes in zip(networks, before, strict=True):
            network.recomputes_layers = recomputes


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
