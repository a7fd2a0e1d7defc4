"""Defines the loss of each label of a structure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from domains.materials.data.batch import GraphBatch
from domains.materials.data.schema import MaterialsStatistics
from domains.materials.training.heads import TargetConfig
from domains.materials.training.potential import ENERGY


@dataclass(frozen=True)
class LabelLosses:
    """Computes Huber losses of energy per atom, forces, stress and properties, or Gaussian likelihoods where asked.

    Attributes:
        targets: what is learned, by the name of the label.
        huber: where losses turn from squared to linear, in units of the target's scale.
        statistics: of the training, which hold the scales.
    """

    targets: Mapping[str, TargetConfig]
    huber: float
    statistics: MaterialsStatistics

    def __call__(
        self, found: Mapping[str, Tensor], batch: GraphBatch, *, late: bool
    ) -> dict[str, tuple[float, Float[Tensor, "graph"]]]:
        """Returns the weight of each label and its loss by structure, zero where a structure lacks it.

        Args:
            found: what is predicted, in physical units.
            late: whether targets have their weights of the last part of a training.
        """
        errors: dict[str, tuple[float, Tensor]] = {}
        for name, target in self.targets.items():
            weight = target.late_weight if late and target.late_weight is not None else target.weight
            if target.kind != "energy":
                errors[name] = weight, self._property(name, found, batch, target)
                continue
            rms = self.statistics.force_rms.to(batch.positions)
            per_atom = ((found[ENERGY] - batch.labels[ENERGY]) / batch.num_atoms).to(rms)
            errors[ENERGY] = weight, self._huber(per_atom / rms) * batch.masks[ENERGY]
            if target.forces_weight and "forces" in batch.labels:
                components = self._huber((found["forces"] - batch.labels["forces"]) / rms).mean(-1)
                if target.large_forces_from is not None:
                    sizes = batch.labels["forces"].norm(dim=-1)
                    components = components * (target.large_forces_from / sizes).clamp(max=1.0)
                errors["forces"] = target.forces_weight, _by_graph(components, batch) * batch.masks["forces"]
            if target.stress_weight and "stress" in batch.labels:
                scale = self.statistics.moments["stress"][1].to(batch.positions)
                components = self._huber((found["stress"] - batch.labels["stress"]) / scale).mean((-1, -2))
                errors["stress"] = target.stress_weight, components * batch.masks["stress"]
        return errors

    def _property(
        self, name: str, found: Mapping[str, Tensor], batch: GraphBatch, target: TargetConfig
    ) -> Float[Tensor, "graph"]:
        scale = self.statistics.moments[name][1]
        error = (found[name] - batch.labels[name]) / scale
        if target.gaussian:
            spread = found[f"{name}_std"] / scale
            rows = 0.5 * (error / spread).square() + spread.log()
        else:
            rows = self._huber(error)
        return (_by_graph(rows, batch) if target.kind == "node" else rows) * batch.masks[name]

    def _huber(self, error: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        return F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.huber)


def _by_graph(rows: Float[Tensor, "atom"], batch: GraphBatch) -> Float[Tensor, "graph"]:
    """Returns the mean over the atoms of each structure."""
    total = rows.new_zeros(batch.num_samples).index_add(0, batch.graph_index, rows)
    return total / batch.num_atoms
