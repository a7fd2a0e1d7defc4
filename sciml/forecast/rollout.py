"""Forecasting on and on: a model applied to its own predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from sciml.domain.protocol import Prediction, Task
from sciml.forecast.intervals import LeadTree


@torch.no_grad()
def rollout(task: Task, model: nn.Module, batch: Any) -> Iterator[tuple[Any, Prediction]]:
    """Yields each step's batch with its prediction, in constant memory, until the task sees nothing further."""
    while batch is not None:
        prediction = task.predict(model, batch)
        yield batch, prediction
        batch = task.advance(batch, prediction)


class SteppingBatch(Protocol):
    """Describes a batch whose steps ahead can be chosen."""

    def with_steps(self, hours: Sequence[float]) -> SteppingBatch:
        """Returns the same states with other steps ahead and without targets."""
        ...


@torch.no_grad()
def tree_rollout(
    task: Task, model: nn.Module, batch: SteppingBatch, tree: LeadTree
) -> Iterator[tuple[float, Prediction]]:
    """Yields the wanted lead times in hours with their predictions; keeps only states that more steps start from."""
    standing = {0: batch}
    last_use = {parent: lead for lead, parent in tree.parents.items()}
    for lead, parent in tree.parents.items():
        hours = (lead - parent) * tree.step_hours
        step = standing[parent].with_steps((hours, hours))  # the second is never taken: it lets the batch go on
        prediction = task.predict(model, step)
        if lead in tree.wanted:
            yield lead * tree.step_hours, prediction
        if lead in last_use and (following := task.advance(step, prediction)) is not None:
            standing[lead] = following
        standing = {begin: state for begin, state in standing.items() if last_use[begin] > lead}
