"""Defines what the materials model learns, energies with their gradients and any other property, and how it is
judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from domains.materials.data.batch import GraphBatch
from domains.materials.data.schema import MaterialsSchema, MaterialsStatistics
from domains.materials.training.ensemble import combined
from domains.materials.training.heads import TargetConfig
from domains.materials.training.losses import LabelLosses
from domains.materials.training.metrics import MaterialsMetrics
from domains.materials.training.pair_baseline import PairBaseline, PairResult, evaluate
from domains.materials.training.potential import ATOMIC, BONDED, ENERGY, REPULSION
from sciml.core.errors import ConfigError
from sciml.core.types import AtLeastOne, Fraction, Positive
from sciml.domain.protocol import LossOutput, Prediction, Predictor, SampleSource, Splits
from sciml.domain.score import Baseline
from sciml.models.gnn import Exchange
from sciml.nn.repulsion import atomic_radii


@dataclass(frozen=True)
class MaterialsTaskConfig:
    """Says what is learned.

    Attributes:
        targets: by the name of their label; ``energy`` brings forces and stress.
        baseline: what the network learns the difference to: ``pair``, a potential of pairs fitted to the training
            forces when a run begins, ``eam``, one of pairs and embedded atoms, ``meam``, the modified form that knows
            directions, ``none``, as in runs whose file says nothing of it, or ``auto``: ``meam`` where it explains much
            of the forces of structures that it was not fitted to.
        huber: where the loss of an error turns from squared to linear, in units of the target's scale.
        late_from: share of the training's steps after which targets have their ``late_weight``, as in the second stage
            of MACE's trainings.
        members: models of an ensemble, trained side by side; from two on, everything predicted has a spread.
    """

    targets: dict[str, TargetConfig] = field(default_factory=lambda: {ENERGY: TargetConfig(kind="energy")})
    baseline: Literal["auto", "pair", "eam", "meam", "none"] = "none"
    huber: Positive[float] = 1.0
    late_from: Fraction = 0.75
    members: AtLeastOne = 1

    def __post_init__(self) -> None:
        if not self.targets:
            raise ConfigError("there is nothing to learn", key="task.targets", hint="{energy: {kind: energy}}")
        if ENERGY in self.targets and self.targets[ENERGY].kind != "energy":
            raise ConfigError(
                "an energy is a sum over atoms", key="task.targets.energy.kind", hint="energy; it may go without forces"
            )
        energies = [name for name, target in self.targets.items() if target.kind == "energy"]
        if energies not in ([], [ENERGY]):
            raise ConfigError(
                f"{', '.join(energies)} cannot all be potential energies", key="task.targets", hint="call one energy"
            )

    @property
    def has_gradients(self) -> bool:
        """Says whether forces or stress are learned."""
        target = self.targets.get(ENERGY)
        return target is not None and target.kind == "energy" and target.forces_weight + target.stress_weight > 0


class MaterialsTask:
    """Learns energies, forces, stress and properties of structures.

    An energy is the sum of its atoms' reference energies, of what the model says of them, in units of the rms force
    (or of what a potential of pairs leaves of it), and of what stands beside: the repulsion of nuclei, the potential of
    pairs, and the average gain of bonded atoms where energies of free atoms are exact. Forces and stress are its
    gradients. Other targets are standardized. The loss of a structure is the weighted sum of Huber losses of its labels
    (energy per atom, the mean over components of forces and of stress, Gaussian likelihoods where asked); a batch's is
    their mean, and labels that a structure lacks count for nothing.

    Args:
        baselines: what predictions are compared with.
    """

    calibration_samples = None

    def __init__(
        self,
        schema: MaterialsSchema,
        statistics: MaterialsStatistics,
        config: MaterialsTaskConfig,
        *,
        baselines: Callable[[], Mapping[Baseline, Predictor]] = dict,
    ) -> None:
        self.schema, self.statistics, self.config = schema, statistics, config
        self.needs_double_backward = config.has_gradients
        self.has_spread = config.members > 1 or any(target.gaussian for target in config.targets.values())
        self._make_baselines = baselines
        self._baselines: Mapping[Baseline, Predictor] | None = None
        self.calibration: Mapping[str, float] = {}
        self._is_late = False

    def to(self, device: torch.device | str) -> MaterialsTask:
        self.statistics = self.statistics.to(device)
        return self

    def at_step(self, step: int | None, max_steps: int) -> None:
        """Takes the weights of a step of the training; outside of it (None) those of most of it, so that losses on
        validation data can be compared.
        """
        self._is_late = step is not None and step >= self.config.late_from * max_steps

    @property
    def phase(self) -> bool:
        """Says whether it is late in the training, when weights are others."""
        return self._is_late

    def loss(self, model: nn.Module, batch: GraphBatch) -> LossOutput:
        members = self.evaluate(model, batch, create_graph=torch.is_grad_enabled())
        total = torch.zeros((), device=batch.positions.device)
        parts: dict[str, Tensor] = {}
        losses = LabelLosses(self.config.targets, self.config.huber, self.statistics)
        for member in members:
            for name, (weight, error) in losses(member, batch, late=self._is_late).items():
                value = error.sum() / (batch.num_samples * len(members))
                total = total + weight * value
                parts[name] = parts.get(name, torch.zeros_like(value)) + value.detach()
        return LossOutput(total, parts, weight=batch.num_samples)

    def predict(self, model: nn.Module, batch: GraphBatch, *, gradients: bool = True) -> Prediction:
        """Predicts all targets in physical units; energies in float64, since those of thousands of eV have too many
        digits.

        Args:
            gradients: whether forces and stress are wanted, where they are learned.
        """
        members = self.evaluate(model, batch, create_graph=False, gradients=gradients)
        predicted = {name: value.detach() for name, value in combined(members, self.calibration).items()}
        return Prediction({name: value if name == ENERGY else value.float() for name, value in predicted.items()})

    def calibrator(self) -> MaterialsMetrics:
        return self.metrics()

    def calibration_source(self, splits: Splits) -> SampleSource:
        return splits.valid

    def advance(self, batch: GraphBatch, prediction: Prediction) -> None:
        return None

    def evaluate(
        self,
        model: nn.Module,
        batch: GraphBatch,
        *,
        create_graph: bool,
        gradients: bool = True,
        atomic: bool = False,
        exchange: Exchange | None = None,
    ) -> list[dict[str, Tensor]]:
        """Predicts all targets in physical units by each member; ``<name>_std`` beside those with a variance.

        Args:
            create_graph: whether forces and stress are to be differentiated further.
            gradients: whether there are to be any.
            atomic: whether what each atom has of energy and stress is wanted beside, ``energies`` and ``stresses``.
            exchange: where ranks share a structure, what brings the states of copies of others' atoms up to date. The
                copies are the last structure of the batch, whose energy does not count.
        """
        wanted = self.config.has_gradients and gradients
        with torch.enable_grad() if wanted else torch.set_grad_enabled(torch.is_grad_enabled()):
            positions, strain, vectors = strained(batch, wanted)
            pair = self._pair(batch, vectors, wanted)
            graph = (batch.atomic_numbers, vectors, batch.senders, batch.receivers, batch.graph_index, batch.branch)
            raw = model(*graph) if exchange is None else model(*graph, exchange=exchange)
            counted = batch.num_samples - (exchange is not None)
            members = []
            for outputs in raw if isinstance(raw, list) else [raw]:
                member: dict[str, Tensor] = {}
                for name, target in self.config.targets.items():
                    if target.kind == "energy":
                        moved = (positions, strain) if wanted else ()
                        if atomic:
                            member |= self._atomic(outputs, batch, vectors if wanted else None, pair, counted)
                        member |= self._energy(outputs, batch, moved, create_graph, counted)
                        if pair is not None:
                            self._add_pair(member, batch, vectors, pair)
                    else:
                        member |= self._property(name, outputs[name], target)
                members.append(member)
        return members

    def _energy(
        self,
        outputs: Mapping[str, Tensor],
        batch: GraphBatch,
        moved: tuple[Tensor, ...],
        create_graph: bool,
        counted: int,
    ) -> dict[str, Tensor]:
        """Returns the energy, float64, and its gradients in positions and strain where these were moved.

        Args:
            counted: how many of the structures count in the gradients.
        """
        raw, branch = outputs[ENERGY], batch.branch[batch.graph_index]
        energy = raw[:, 0].to(batch.positions.dtype) * self.statistics.output_scale.to(raw)
        beside = self._beside(outputs, batch)
        if beside is not None:
            energy = energy.index_add(0, batch.graph_index, beside.to(energy))
        gradients = {}
        if moved:
            # members share what comes before them: positions, strain and vectors
            total = energy[:counted].sum()
            slope, virial = torch.autograd.grad(total, moved, create_graph=create_graph, retain_graph=True)
            volume = torch.linalg.det(batch.cell).abs()[:, None, None]
            stress = torch.where(volume > 0, virial / volume.clamp(min=1e-6), 0.0)
            gradients = {"forces": -slope, "stress": stress}
        reference = self.statistics.reference_energy(batch.atomic_numbers, self.schema.elements, branch)
        total = energy.double().index_add(0, batch.graph_index, reference)
        return {ENERGY: total, **gradients}

    def pair_result(self, batch: GraphBatch, vectors: Float[Tensor, "edge 3"]) -> PairResult | None:
        """Returns what the potential of pairs under the network gives, with its gradients; None where there is none."""
        return self._pair(batch, vectors, True)

    def _pair(self, batch: GraphBatch, vectors: Float[Tensor, "edge 3"], gradients: bool) -> PairResult | None:
        """Evaluates the potential of pairs under the network; None where there is none."""
        if not self.statistics.pair or ENERGY not in self.config.targets:
            return None
        places = self.schema.element_index(batch.atomic_numbers)
        radii = atomic_radii().to(vectors)[batch.atomic_numbers]
        baseline = PairBaseline.from_tensors(self.statistics.pair)
        return evaluate(baseline, places, radii, vectors, batch, gradients=gradients)

    def _add_pair(
        self, member: dict[str, Tensor], batch: GraphBatch, vectors: Float[Tensor, "edge 3"], pair: PairResult
    ) -> None:
        """Adds the potential of pairs to energies and their gradients."""
        member[ENERGY] = member[ENERGY].index_add(0, batch.graph_index, pair.energies.double())
        if pair.pull is not None:
            member["forces"] = member["forces"] + pair.forces(batch)
            virial = torch.zeros_like(batch.cell).index_add(0, batch.edge_graph, pair.virials(vectors))
            volume = torch.linalg.det(batch.cell).abs()[:, None, None]
            member["stress"] = member["stress"] + torch.where(volume > 0, virial / volume.clamp(min=1e-6), 0.0)

    def _beside(self, outputs: Mapping[str, Tensor], batch: GraphBatch) -> Float[Tensor, "atom"] | None:
        """Returns what atoms have beside the network and their references, eV; None where they have none."""
        beside: Tensor | None = None
        if REPULSION in outputs:
            beside = outputs[REPULSION][:, 0]
        if BONDED in outputs:
            branch = batch.branch[batch.graph_index]
            gain = self.statistics.bonding_energy(batch.atomic_numbers, self.schema.elements, branch)
            gained = gain.to(outputs[BONDED]) * outputs[BONDED][:, 0]
            beside = gained if beside is None else beside + gained
        return beside

    def _atomic(
        self,
        outputs: Mapping[str, Tensor],
        batch: GraphBatch,
        vectors: Float[Tensor, "edge 3"] | None,
        pair: PairResult | None,
        counted: int,
    ) -> dict[str, Tensor]:
        """Returns the energy of each atom (eV), and its stress (eV/A^3) where the edges' vectors are given.

        Both add up to those of the structure. The part of an edge in the virial belongs to its ends by halves.
        """
        energies = outputs[ATOMIC][:, 0] * self.statistics.output_scale.to(outputs[ATOMIC])
        beside = self._beside(outputs, batch)
        if beside is not None:
            energies = energies + beside.to(energies)
        branch = batch.branch[batch.graph_index]
        reference = self.statistics.reference_energy(batch.atomic_numbers, self.schema.elements, branch)
        found = {"energies": energies.double() + reference}
        if pair is not None:
            found["energies"] = found["energies"] + pair.energies
        if vectors is not None:
            total = energies[batch.graph_index < counted].sum()
            (pull,) = torch.autograd.grad(total, vectors, retain_graph=True)
            outer = torch.einsum("ea,eb->eab", vectors, pull)
            halves = 0.25 * (outer + outer.transpose(1, 2))
            if pair is not None:
                halves = halves + 0.5 * pair.virials(vectors)
            virial = (
                halves.new_zeros(len(energies), 3, 3)
                .index_add(0, batch.senders, halves)
                .index_add(0, batch.receivers, halves)
            )
            volume = torch.linalg.det(batch.cell).abs()[batch.graph_index, None, None]
            found["stresses"] = torch.where(volume > 0, virial / volume.clamp(min=1e-6), 0.0)
        return found

    def _property(self, name: str, raw: Float[Tensor, "row output"], target: TargetConfig) -> dict[str, Tensor]:
        mean, std = self.statistics.moments[name]
        values = {name: mean + std * raw[:, 0]}
        if target.gaussian:
            values[f"{name}_std"] = std * torch.exp(0.5 * raw[:, 1])
        return values

    def metrics(self) -> MaterialsMetrics:
        return MaterialsMetrics(self.schema, self.config.targets, spreads=self.config.members > 1)

    def baselines(self) -> Mapping[Baseline, Predictor]:
        if self._baselines is None:
            self._baselines = self._make_baselines()
        return self._baselines


def strained(
    batch: GraphBatch, needs_grad: bool
) -> tuple[Float[Tensor, "atom 3"], Float[Tensor, "graph 3 3"], Float[Tensor, "edge 3"]]:
    """Returns positions, a strain of zero for each structure, and the edges' vectors as a function of both.

    A homogeneous strain turns every vector r into r (1 + e), edges across the cell's faces included; the energy's
    derivative in the symmetric part of e is volume times stress.
    """
    positions = batch.positions.detach().requires_grad_(needs_grad)
    strain = torch.zeros_like(batch.cell).requires_grad_(needs_grad)
    shifts = torch.einsum("ea,eab->eb", batch.shifts, batch.cell[batch.edge_graph])
    vectors = positions[batch.senders] + shifts - positions[batch.receivers]
    symmetric = 0.5 * (strain + strain.transpose(1, 2))
    return positions, strain, vectors + torch.einsum("ea,eab->eb", vectors, symmetric[batch.edge_graph])
