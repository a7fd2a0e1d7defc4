"""Describes what a materials model is built from, and what its targets are normalized with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from domains.materials.data.batch import LabelShape
from sciml.core.config import build
from sciml.core.errors import DataError


@dataclass(frozen=True)
class Label(LabelShape):
    """Describes a label of a store.

    Attributes:
        unit: as the suite keeps it.
    """

    unit: str = ""


@dataclass(frozen=True)
class MaterialsSchema:
    """Describes the elements, cutoff and labels of a store.

    Attributes:
        elements: atomic numbers, increasing; a model knows an element by its place in this table.
        cutoff: A; of the neighbor lists.
        labels: by name.
        branches: names of the data sets, each of which may have decoders of its own.
        title: what the data are, e.g. "EAM-labeled alloys, not DFT"; shown on pictures.
        avg_num_neighbors: of an atom in the training split; sums over neighbors are scaled by it.
        exact_references: whether energies of free atoms are known, so that bonds must be told from them.
    """

    elements: tuple[int, ...]
    cutoff: float
    labels: Mapping[str, Label]
    branches: tuple[str, ...] = ("main",)
    title: str = ""
    avg_num_neighbors: float = 1.0
    exact_references: bool = False

    @property
    def symbols(self) -> tuple[str, ...]:
        """Returns the symbols of the elements."""
        from ase.data import chemical_symbols

        return tuple(chemical_symbols[number] for number in self.elements)

    def unit(self, label: str) -> str:
        """Returns the unit of a label; empty where it is not known."""
        return self.labels[label].unit if label in self.labels else ""

    def element_index(self, atomic_numbers: Int[Tensor, "atom"]) -> Int[Tensor, "atom"]:
        """Returns positions in the table of elements; -1 for those that are not in it (see :meth:`check_elements`)."""
        table = torch.full((max(119, max(self.elements) + 1),), -1, dtype=torch.int64, device=atomic_numbers.device)
        table[list(self.elements)] = torch.arange(len(self.elements), device=atomic_numbers.device)
        return table[atomic_numbers]

    def check_elements(self, atomic_numbers: Any, where: str) -> None:
        """Refuses elements that the table does not have.

        Raises:
            DataError: names them and those that are known.
        """
        from ase.data import chemical_symbols

        unknown = sorted({int(number) for number in atomic_numbers} - set(self.elements))
        if unknown:
            names = ", ".join(chemical_symbols[number] for number in unknown)
            raise DataError(f"{where}: the model does not know {names}; it knows {', '.join(self.symbols)}")

    def check_labels(self, other: MaterialsSchema, where: str) -> None:
        """Refuses labels of the same name that are of another kind.

        Raises:
            DataError: names the label.
        """
        for name, label in self.labels.items():
            known = other.labels.get(name, label)
            if (label.level, label.shape) != (known.level, known.shape):
                raise DataError(
                    f"{where}: {name} is of each {known.level} and of shape {known.shape}, the model was trained on "
                    f"one of each {label.level} and of shape {label.shape}"
                )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MaterialsSchema:
        return build(cls, values, prefix="schema")


@dataclass(frozen=True)
class MaterialsStatistics:
    """Holds the statistics of the training split.

    Attributes:
        references: energy of a free atom of each element (eV): exact where it was known, by least squares on energies
            per atom elsewhere; each data set has its own. Zero for an element that it does not have.
        energy_std: standard deviation of energies per atom about the sum of references, eV.
        avg_num_neighbors: of an atom.
        element_counts: atoms of each element in each data set.
        shortest: shortest distance of each pair of elements (A) in each data set; infinite where they never meet.
            Runs of before have one row of counts and one table of distances for all data sets: those of the elements
            that have a reference energy in a data set are then taken for its own.
        mean, std, rms: of all values of each label; rms is about zero.
            The energy's are per atom.
        count: structures that have the label.
        pair: parts of a potential of pairs or embedded atoms under the network, by name (see
            :class:`domains.materials.training.pair_baseline.PairBaseline`); empty where there is none.
        bonding: what an atom whose free energy is exact gains in matter on average, eV; zero for others.
    """

    references: Float[Tensor, "branch element"]
    energy_std: Float[Tensor, ""]
    avg_num_neighbors: Float[Tensor, ""]
    element_counts: Float[Tensor, "*branch element"]
    shortest: Float[Tensor, "*branch element element"]
    mean: Mapping[str, Tensor]
    std: Mapping[str, Tensor]
    rms: Mapping[str, Tensor]
    count: Mapping[str, Tensor]
    bonding: Float[Tensor, "branch element"] | None = None
    pair: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = self.references != 0
        if self.bonding is not None:
            known = known | (self.bonding != 0)
        known = known | ~known.any(1, keepdim=True) | (len(known) == 1)
        if self.element_counts.ndim == 1:
            object.__setattr__(self, "element_counts", torch.where(known, self.element_counts, 0.0))
        if self.shortest.ndim == 2:
            pairs = known[:, :, None] & known[:, None]
            object.__setattr__(self, "shortest", torch.where(pairs, self.shortest, torch.inf))

    @property
    def force_rms(self) -> Float[Tensor, ""]:
        """Returns the root mean square of a force component, eV/A; 1 where there are no forces."""
        return self.rms.get("forces", torch.ones((), dtype=self.energy_std.dtype))

    @property
    def output_scale(self) -> Float[Tensor, ""]:
        """Returns the unit of the energies that a network gives: the rms of forces, or of what the potential of pairs
        under it leaves of them.
        """
        return self.pair.get("scale", self.force_rms)

    @property
    def moments(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Returns mean and standard deviation of each label; the latter is 1 where all values are the same."""
        return {name: (self.mean[name], torch.where(std > 0, std, 1.0)) for name, std in self.std.items()}

    def reference_energy(
        self,
        atomic_numbers: Int[Tensor, "atom"],
        elements: Sequence[int],
        branch: Int[Tensor, "atom"] | None = None,
    ) -> Float[Tensor, "atom"]:
        """Returns the reference energy of each atom, eV.

        Args:
            elements: the schema's table.
            branch: the data set of each atom; the first by default.
        """
        return _by_atom(self.references, atomic_numbers, elements, branch)

    def bonding_energy(
        self, atomic_numbers: Int[Tensor, "atom"], elements: Sequence[int], branch: Int[Tensor, "atom"]
    ) -> Float[Tensor, "atom"]:
        """Returns what each atom gains in matter on average, eV; zero where its reference is fitted."""
        if self.bonding is None:
            return torch.zeros(len(atomic_numbers), dtype=self.references.dtype, device=atomic_numbers.device)
        return _by_atom(self.bonding, atomic_numbers, elements, branch)

    def lacking(self, elements: Sequence[int], atomic_numbers: Iterable[int], branch: int) -> list[int]:
        """Returns the atomic numbers of which a data set had no atom in training, increasing.

        Args:
            elements: the schema's table, in which all of them are.
        """
        seen = {z for z, count in zip(elements, self.element_counts[branch].tolist(), strict=True) if count}
        return sorted({int(number) for number in atomic_numbers} - seen)

    def mixed(self, elements: Sequence[int], most: int) -> list[int]:
        """Returns atomic numbers of up to so many elements, each of which one data set has as a neighbor of all others.

        Args:
            elements: the schema's table.
        """
        best: list[int] = []
        for counts, shortest in zip(self.element_counts, self.shortest, strict=True):
            met, chosen = torch.minimum(shortest, shortest.T).isfinite(), list[int]()
            for place in counts.argsort(descending=True, stable=True).tolist():
                if counts[place] > 0 and len(chosen) < most and met[place, chosen].all():
                    chosen.append(place)
            best = max(best, chosen, key=len)
        return [elements[place] for place in sorted(best)]

    def to(self, device: torch.device | str) -> MaterialsStatistics:
        """Returns the statistics on a device."""
        return self.from_tensors({name: tensor.to(device) for name, tensor in self.to_tensors().items()})

    def to_tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                tensors[name] = value
            elif value is not None:
                tensors |= {f"{name}.{label}": tensor for label, tensor in value.items()}
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> MaterialsStatistics:
        fields: dict[str, Any] = {name: {} for name in ("mean", "std", "rms", "count", "pair")}
        for name, tensor in tensors.items():
            group, dot, label = name.partition(".")
            if dot:
                fields[group][label] = tensor
            else:
                fields[name] = tensor
        return cls(**fields)


def _by_atom(
    values: Float[Tensor, "branch element"],
    atomic_numbers: Int[Tensor, "atom"],
    elements: Sequence[int],
    branch: Int[Tensor, "atom"] | None,
) -> Float[Tensor, "atom"]:
    """Looks up a value by data set and element for each atom."""
    table = torch.zeros((len(values), max(119, max(elements) + 1)), dtype=values.dtype)
    table[:, list(elements)] = values.cpu()
    table = table.to(atomic_numbers.device)
    return table[0 if branch is None else branch, atomic_numbers]
