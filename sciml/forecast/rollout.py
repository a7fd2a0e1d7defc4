"""Forecasting on and on: a model applied to its own predictions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from sciml.domain.protocol import Prediction, Task


@torch.no_grad()
def rollout(task: Task, model: nn.Module, batch: Any) -> Iterator[tuple[Any, Prediction]]:
    """Yields each step's batch with its prediction, in constant memory, until the task sees nothing further."""
    while batch is not None:
        prediction = task.predict(model, batch)
        yield batch, prediction
        batch = task.advance(batch, prediction)
