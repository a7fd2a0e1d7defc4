"""Computes what the figures show of a model: its predictions beside the truth on some of the test structures."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from domains.materials.training.metrics import composition_orders
from sciml.data.source import SampleSource

MOST_STRUCTURES = 400
BATCH = 32


def test_example(task: Any, model: nn.Module, source: SampleSource) -> dict[str, np.ndarray]:
    """Returns ``<label>.predicted`` and ``<label>.true`` of structures spread over a split.

    Energies are per atom; ``<label>.order`` says how many elements each value's structure has, ``<label>.spread``,
    where there is one, how far the model trusts itself.
    """
    count = min(len(source), MOST_STRUCTURES)
    chosen = np.unique(np.linspace(0, len(source) - 1, count).round().astype(int))
    rows: dict[str, list[np.ndarray]] = {}
    for first in range(0, len(chosen), BATCH):
        drawn = [source.sample(int(i), np.random.default_rng(0)) for i in chosen[first : first + BATCH]]
        batch: Any = source.collate(drawn).to(task.statistics.energy_std.device)
        values = task.predict(model, batch).values
        orders = composition_orders(batch)
        for name in (label for label in batch.labels if label in values):
            scale = batch.num_atoms.cpu() if name == "energy" else 1
            shown = {"predicted": values[name], "true": batch.labels[name]}
            if f"{name}_std" in values:
                shown["spread"] = values[f"{name}_std"]
            graph = batch.graph_index.cpu() if task.schema.labels[name].level == "node" else np.arange(len(orders))
            known = batch.masks[name].cpu()[graph]
            width = max(values[name][0].numel(), 1)
            for key, value in shown.items():
                kept = (value.double().cpu() / scale)[known]
                rows.setdefault(f"{name}.{key}", []).append(kept.flatten().float().numpy())
            rows.setdefault(f"{name}.order", []).append(np.repeat(orders[graph][known].numpy(), width))
    return {name: np.concatenate(parts) for name, parts in rows.items()}
