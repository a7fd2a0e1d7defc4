"""A tree of lead times gives each of them what a rollout along its own steps gives."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sciml.domain.protocol import Prediction
from sciml.forecast.intervals import lead_tree
from sciml.forecast.rollout import tree_rollout


@dataclass(frozen=True)
class Hours:
    """A batch whose state says by which steps it was reached."""

    state: Tensor
    steps: tuple[float, ...] = ()

    def with_steps(self, hours):
        return replace(self, steps=tuple(hours))


class Counting:
    """Multiplies by 3 and adds the hours of a step: no two ways to a state give the same."""

    calls = 0

    def predict(self, model: nn.Module, batch: Hours) -> Prediction:
        self.calls += 1
        return Prediction({"state": 3 * batch.state + batch.steps[0]})

    def advance(self, batch: Hours, prediction: Prediction) -> Hours | None:
        return Hours(prediction.values["state"], batch.steps[1:]) if len(batch.steps) > 1 else None


def test_every_lead_time_is_what_its_own_steps_give():
    task = Counting()
    tree = lead_tree(60.0, [6.0, 18.0, 24.0], 6.0)
    found = dict(tree_rollout(task, nn.Identity(), Hours(torch.ones(1)), tree))
    assert list(found) == [6.0 * n for n in range(1, 11)]
    assert task.calls == 10
    for lead, prediction in found.items():
        at, steps = round(lead / 6), []
        while at:
            steps.append(6.0 * (at - tree.parents[at]))
            at = tree.parents[at]
        by_hand = 1.0
        for step in reversed(steps):
            by_hand = 3 * by_hand + step
        assert float(prediction.values["state"]) == by_hand, lead
