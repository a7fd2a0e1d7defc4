"""Errors of predicted energies, forces, stress and properties, in the units that people think in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from domains.materials.batch import GraphBatch
from domains.materials.heads import TargetConfig
from domains.materials.schema import MaterialsSchema
from sciml.domain.protocol import Prediction, Score

GPA = 160.21766208
"""One eV/A^3."""
MOST_ORDERS = 6
DISPLAY = {"energy": (1e3, "meV/atom"), "forces": (1e3, "meV/A"), "stress": (GPA, "GPa")}


class MaterialsMetrics:
    """Sums of absolute and squared errors: of every label, by element and by composition order, and of calibration.

    Energies are compared per atom; forces and stress by component.
    """

    def __init__(self, schema: MaterialsSchema, targets: Mapping[str, TargetConfig]) -> None:
        self.schema, self.targets = schema, targets
        self.labels = [name for target in targets for name in _labels_of(target, targets[target])]
        self.elements = list(schema.elements)
        # Rows: all, each element, each composition order; columns: count, |error|, error^2.
        rows = 1 + len(self.elements) + MOST_ORDERS
        self.tables = {name: torch.zeros(rows, 3, dtype=torch.float64) for name in self.labels}
        self.calibration = {
            name: torch.zeros(4, dtype=torch.float64) for name, target in targets.items() if target.gaussian
        }

    def update(self, prediction: Prediction, batch: GraphBatch) -> None:
        orders = composition_orders(batch)
        for name in self.labels:
            if name not in batch.labels or name not in prediction.values:
                continue
            error = (prediction.values[name].double() - batch.labels[name].double()).cpu()
            if name == "energy":
                error = error / batch.num_atoms.cpu()
            self._add(name, error, batch, orders)
        for name, sums in self.calibration.items():
            self._calibrate(name, sums, prediction, batch)

    def _add(self, name: str, error: Tensor, batch: GraphBatch, orders: Tensor) -> None:
        of_atoms = len(error) == len(batch.atomic_numbers) and self._is_node(name)
        graph = batch.graph_index.cpu() if of_atoms else torch.arange(batch.num_samples)
        known = batch.masks[name].cpu()[graph]
        values = error.flatten(1) if error.ndim > 1 else error[:, None]
        columns = torch.stack(
            [torch.full_like(values[:, 0], values.shape[1]), values.abs().sum(1), values.square().sum(1)], dim=1
        )[known]
        table = self.tables[name]
        table[0] += columns.sum(0)
        order = orders[graph][known].clamp(max=MOST_ORDERS) + len(self.elements)
        table.index_add_(0, order, columns)
        if of_atoms:
            places = torch.searchsorted(torch.tensor(self.elements), batch.atomic_numbers.cpu())[known]
            table.index_add_(0, 1 + places, columns)

    def _is_node(self, name: str) -> bool:
        return name == "forces" or (name in self.targets and self.targets[name].kind == "node")

    def _calibrate(self, name: str, sums: Tensor, prediction: Prediction, batch: GraphBatch) -> None:
        if name not in batch.labels or f"{name}_std" not in prediction.values:
            return
        std = prediction.values[f"{name}_std"].double().cpu()
        error = (prediction.values[name].double() - batch.labels[name].double()).cpu()
        graph = batch.graph_index.cpu() if self._is_node(name) else torch.arange(batch.num_samples)
        known = batch.masks[name].cpu()[graph]
        ratio = (error / std)[known]
        sums += torch.stack(
            [
                torch.tensor(float(len(ratio)), dtype=torch.float64),
                (ratio.abs() < 1).double().sum(),
                (ratio.abs() < 1.96).double().sum(),
                ratio.square().sum(),
            ]
        )

    def sums(self) -> list[Tensor]:
        return [*self.tables.values(), *self.calibration.values()]

    def compute(self) -> list[Score]:
        scores: list[Score] = []
        names = ["", *(f"[{symbol}]" for symbol in self.schema.symbols)]
        names += [f"[order {order}]" for order in range(1, MOST_ORDERS + 1)]
        for label, table in self.tables.items():
            factor, unit = DISPLAY.get(label, (1.0, self.schema.unit(label)))
            for row, (count, absolute, squared) in enumerate(table.tolist()):
                if not count:
                    continue
                metrics = {"mae": absolute / count, "rmse": (squared / count) ** 0.5}
                kind = "" if not row else "_by_element" if row <= len(self.elements) else "_by_order"
                for metric, value in metrics.items():
                    if not kind or metric == "mae":
                        scores.append(Score(f"{label}{names[row]}", f"{metric}{kind}", value * factor, unit))
        for label, sums in self.calibration.items():
            count, one, two, ratio = sums.tolist()
            if count:
                scores += [
                    Score(label, "coverage_68", one / count, "1"),
                    Score(label, "coverage_95", two / count, "1"),
                    Score(label, "scaled_error", (ratio / count) ** 0.5, "1"),
                ]
        return scores


def composition_orders(batch: GraphBatch) -> Tensor:
    """How many elements each structure has."""
    pairs = torch.stack([batch.graph_index.cpu(), batch.atomic_numbers.cpu()]).unique(dim=1)
    return torch.bincount(pairs[0], minlength=batch.num_samples)


def _labels_of(name: str, target: TargetConfig) -> list[str]:
    if target.kind != "energy":
        return [name]
    gradients: dict[str, Any] = {"forces": target.forces_weight, "stress": target.stress_weight}
    return [name, *(label for label, weight in gradients.items() if weight)]
