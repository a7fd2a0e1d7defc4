"""A pipeline's step as it would run: which rank does what when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sciml.planning.strategy import put_off, warm_up

FORWARD, BACKWARD, INPUT, WEIGHT = "forward", "backward", "input", "weight"
"""A backward pass is one, or its two halves: what the stage before waits for, and the gradients of weights."""


class Action(NamedTuple):
    """A pass of a micro-batch through a stage."""

    kind: str
    stage: int
    micro_batch: int


class Bar(NamedTuple):
    """An action on a rank, with the seconds between which it runs."""

    rank: int
    action: Action
    start: float
    end: float


def order(schedule: str, rank: int, pp: int, interleave: int, micro_batches: int) -> list[Action]:
    """What a rank does, in torch's order."""
    total = micro_batches * interleave
    in_a_round = micro_batches // max(1, micro_batches // pp)
    halves = schedule == "zero_bubble"

    def place(step: int, chunk: int) -> tuple[int, int]:
        return chunk * pp + rank, step // (in_a_round * interleave) * in_a_round + step % in_a_round

    def forward(step: int) -> Action:
        return Action(FORWARD, *place(step, step // in_a_round % interleave))

    def backward(step: int, kind: str) -> Action:
        return Action(kind, *place(step, interleave - 1 - step // in_a_round % interleave))

    if schedule == "gpipe":
        return [*map(forward, range(total)), *(backward(step, BACKWARD) for step in range(total))]
    first, late = warm_up(schedule, rank, pp, interleave, micro_batches), put_off(schedule, rank)
    found = [forward(step) for step in range(first)]
    for step in range(total):
        if first + step < total:
            found.append(forward(first + step))
        found.append(backward(step, INPUT if halves else BACKWARD))
        if halves and step >= late:
            found.append(backward(step - late, WEIGHT))
    return found + [backward(step, WEIGHT) for step in range(max(0, total - late), total) if halves]


def run(orders: Sequence[Sequence[Action]], seconds: Callable[[Action], float], sending: float = 0.0) -> list[Bar]:
    """Starts each action as soon as its rank is free and what it needs has come.

    Args:
        orders: of each rank.
        sending: seconds from a stage to the next, there and back.

    Raises:
        ValueError: where ranks would wait for one another for ever.
    """
    last = max(action.stage for actions in orders for action in actions)
    ended: dict[Action, float] = {}
    free, next_up = [0.0] * len(orders), [0] * len(orders)
    bars: list[Bar] = []
    while True:
        moved = False
        for rank, actions in enumerate(orders):
            while next_up[rank] < len(actions):
                action = actions[next_up[rank]]
                needed = _needed(action, last, ended)
                if any(one not in ended for one in needed):
                    break
                ready = [ended[one] + (sending if one.stage != action.stage else 0.0) for one in needed]
                start = max([free[rank], *ready])
                ended[action] = free[rank] = start + seconds(action)
                bars.append(Bar(rank, action, start, free[rank]))
                next_up[rank] += 1
                moved = True
        if all(next_up[rank] == len(actions) for rank, actions in enumerate(orders)):
            return bars
        if not moved:
            raise ValueError("these orders wait for one another")


def _needed(action: Action, last: int, ended: dict[Action, float]) -> list[Action]:
    kind, stage, number = action
    if kind == FORWARD:
        return [Action(FORWARD, stage - 1, number)] if stage else []
    if kind == WEIGHT:
        return [Action(INPUT, stage, number)]
    own = Action(FORWARD, stage, number)
    return [own] if stage == last else [own, Action(kind, stage + 1, number)]


def idle(bars: Sequence[Bar]) -> float:
    """Share of the ranks' time in which they wait."""
    ranks = 1 + max(bar.rank for bar in bars)
    return 1 - sum(bar.end - bar.start for bar in bars) / (ranks * max(bar.end for bar in bars))
