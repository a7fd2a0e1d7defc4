"""Errors of predicted energies, forces, stress and properties, in the units that people think in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from domains.materials.data.batch import GraphBatch
from domains.materials.data.schema import MaterialsSchema
from domains.materials.training.calibration import SCALED_ERROR, Calibration
from domains.materials.training.heads import TargetConfig
from sciml.domain.protocol import Prediction
from sciml.domain.score import Metric, Score

GPA = 160.21766208
"""One eV/A^3."""
MOST_ORDERS = 6
MAE = Metric("mae")
RMSE = Metric("rmse", reduce=math.sqrt)
BY_KIND = {kind: Metric(f"mae_by_{kind}", f"MAE by {kind}") for kind in ("element", "order", "branch")}
DISPLAY = {"energy": (1e3, "meV/atom"), "forces": (1e3, "meV/A"), "stress": (GPA, "GPa")}


class MaterialsMetrics:
    """Sums absolute and squared errors: of every label, by element, composition order and data set.

    Energies are compared per atom; forces and stress by component. Where predictions have spreads, so have the scores
    (see :class:`~domains.materials.training.calibration.Calibration`).

    Args:
        spreads: whether everything predicted has a spread, as that of an ensemble has.
    """

    def __init__(self, schema: MaterialsSchema, targets: Mapping[str, TargetConfig], spreads: bool = False) -> None:
        self.schema, self.targets = schema, targets
        self.labels = [name for target in targets for name in _labels_of(target, targets[target])]
        self.elements = list(schema.elements)
        self.rows = [("", "")]
        self.rows += [("element", symbol) for symbol in schema.symbols]
        self.rows += [("order", f"order {order}") for order in range(1, MOST_ORDERS + 1)]
        self.rows += [("branch", branch) for branch in schema.branches if len(schema.branches) > 1]
        # Columns: count, |error|, error^2.
        self.tables = {name: torch.zeros(len(self.rows), 3, dtype=torch.float64) for name in self.labels}
        uncertain = [name for name in self.labels if spreads or (name in targets and targets[name].gaussian)]
        self.calibration = {name: Calibration() for name in uncertain}

    def update(self, prediction: Prediction, batch: GraphBatch) -> None:
        orders = composition_orders(batch)
        for name in self.labels:
            if name not in batch.labels or name not in prediction.values:
                continue
            scale = batch.num_atoms.cpu() if name == "energy" else 1
            error = (prediction.values[name].double() - batch.labels[name].double()).cpu() / scale
            of_atoms = self._is_node(name)
            graph = batch.graph_index.cpu() if of_atoms else torch.arange(batch.num_samples)
            known = batch.masks[name].cpu()[graph]
            self._add(name, error, batch, orders, graph, known)
            spread = prediction.values.get(f"{name}_std")
            if name in self.calibration and spread is not None:
                self.calibration[name].update(error[known], (spread.double().cpu() / scale)[known])

    def _add(
        self,
        name: str,
        error: Float[Tensor, "value ..."],
        batch: GraphBatch,
        orders: Int[Tensor, "graph"],
        graph: Int[Tensor, "value"],
        known: Bool[Tensor, "value"],
    ) -> None:
        """Adds the errors of one label.

        Args:
            graph: the structure of each error.
            known: which errors count.
        """
        values = error.flatten(1) if error.ndim > 1 else error[:, None]
        columns = torch.stack(
            [torch.full_like(values[:, 0], values.shape[1]), values.abs().sum(1), values.square().sum(1)], dim=1
        )[known]
        table = self.tables[name]
        table[0] += columns.sum(0)
        order = orders[graph][known].clamp(max=MOST_ORDERS) + len(self.elements)
        table.index_add_(0, order, columns)
        if len(self.schema.branches) > 1:
            first = 1 + len(self.elements) + MOST_ORDERS
            table.index_add_(0, first + batch.branch.cpu()[graph][known], columns)
        if self._is_node(name):
            places = torch.searchsorted(torch.tensor(self.elements), batch.atomic_numbers.cpu())[known]
            table.index_add_(0, 1 + places, columns)

    def _is_node(self, name: str) -> bool:
        return name == "forces" or (name in self.targets and self.targets[name].kind == "node")

    def sums(self) -> list[Tensor]:
        return [*self.tables.values(), *(sums for one in self.calibration.values() for sums in one.sums())]

    def compute(self) -> list[Score]:
        scores: list[Score] = []
        for label, table in self.tables.items():
            factor, unit = DISPLAY.get(label, (1.0, self.schema.unit(label)))
            for (kind, row), (count, absolute, squared) in zip(self.rows, table.tolist(), strict=True):
                if not count:
                    continue
                name = f"{label}[{row}]" if row else label
                scores.append(Score(name, BY_KIND[kind] if kind else MAE, absolute / count * factor, unit))
                if not kind:
                    scores.append(Score(name, RMSE, RMSE.reduce(squared / count) * factor, unit))
        for label, calibration in self.calibration.items():
            scores += [Score(label, metric, value, "1") for metric, value in calibration.compute().items()]
        return scores

    def factors(self) -> dict[str, float]:
        """Returns the factors that would have made spreads right, by name of the value."""
        return {score.variable: score.value for score in self.compute() if score.metric == SCALED_ERROR}


def composition_orders(batch: GraphBatch) -> Int[Tensor, "graph"]:
    """Counts the elements of each structure."""
    pairs = torch.stack([batch.graph_index.cpu(), batch.atomic_numbers.cpu()]).unique(dim=1)
    return torch.bincount(pairs[0], minlength=batch.num_samples)


def _labels_of(name: str, target: TargetConfig) -> list[str]:
    if target.kind != "energy":
        return [name]
    gradients: dict[str, Any] = {"forces": target.forces_weight, "stress": target.stress_weight}
    return [name, *(label for label, weight in gradients.items() if weight)]
