"""Schedules of a pipeline: how many passes are in flight, and which rank does what when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from sciml.parallel.stage import stage_bounds

FORWARD, BACKWARD, INPUT, WEIGHT = "forward", "backward", "input", "weight"
"""A backward pass is one, or its two halves: what the stage before waits for, and the gradients of weights."""


@lru_cache(maxsize=4096)
def blocks_of_ranks(depth: int, pp: int, interleave: int) -> tuple[tuple[int, ...], ...]:
    """Returns the numbers of the blocks on each rank of a pipeline."""
    bounds = stage_bounds(depth, pp * interleave)
    chunks = [range(first, last) for first, last in pairwise(bounds)]
    return tuple(tuple(n for chunk in chunks[rank::pp] for n in chunk) for rank in range(pp))


@lru_cache(maxsize=4096)
def middle_stages(depth: int, pp: int, interleave: int) -> tuple[tuple[int, int], ...]:
    """Returns, for each number of blocks that middle ranks have, the first such rank and how many there are."""
    numbers = [len(blocks) for blocks in blocks_of_ranks(depth, pp, interleave)] if depth else [0] * pp
    middle = numbers[1:-1]
    return tuple((1 + middle.index(number), times) for number, times in Counter(middle).items())


def warm_up_passes(schedule: str, rank: int, pp: int, interleave: int, micro_batches: int) -> int:
    """Returns the forward passes of a stage that a rank starts with, before forward and backward passes take turns.

    As torch's schedules go: 1f1b (Narayanan et al., 2021, https://doi.org/10.48550/arXiv.2104.04473) with as many as
    there are stages behind; interleaved stages with more.
    """
    total = micro_batches * interleave
    if schedule == "gpipe":
        return total
    in_a_round = micro_batches // max(1, micro_batches // pp)
    hops = (2 if schedule == "interleaved" else 1) * (pp - 1 - rank)
    return min(total, (interleave - 1) * in_a_round + hops)


def delayed_weight_passes(schedule: str, rank: int) -> int:
    """Returns the backward passes after which a rank computes gradients of weights; zero bubble delays by the rank.

    Source: Qi et al. (2024), https://doi.org/10.48550/arXiv.2401.10241.
    """
    return rank if schedule == "zero_bubble" else 0


def in_flight(schedule: str, rank: int, pp: int, interleave: int, micro_batches: int) -> int:
    """Returns the most forward passes of a stage whose activations a rank holds at once."""
    ahead = warm_up_passes(schedule, rank, pp, interleave, micro_batches) + 1 + delayed_weight_passes(schedule, rank)
    return min(micro_batches * interleave, ahead)


class Action(NamedTuple):
    """Describes a pass of a micro-batch through a stage."""

    kind: str
    stage: int
    micro_batch: int


class Bar(NamedTuple):
    """Says between which seconds an action runs on a rank."""

    rank: int
    action: Action
    start: float
    end: float


def order(schedule: str, rank: int, pp: int, interleave: int, micro_batches: int) -> list[Action]:
    """Returns the actions of a rank, in torch's order."""
    total = micro_batches * interleave
    in_a_round = micro_batches // max(1, micro_batches // pp)
    halves = schedule == "zero_bubble"

    def target(step: int, chunk: int) -> tuple[int, int]:
        return chunk * pp + rank, step // (in_a_round * interleave) * in_a_round + step % in_a_round

    def forward(step: int) -> Action:
        return Action(FORWARD, *target(step, step // in_a_round % interleave))

    def backward(step: int, kind: str) -> Action:
        return Action(kind, *target(step, interleave - 1 - step // in_a_round % interleave))

    if schedule == "gpipe":
        return [*map(forward, range(total)), *(backward(step, BACKWARD) for step in range(total))]
    first = warm_up_passes(schedule, rank, pp, interleave, micro_batches)
    delay = delayed_weight_passes(schedule, rank)
    actions = [forward(step) for step in range(first)]
    for step in range(total):
        if first + step < total:
            actions.append(forward(first + step))
        actions.append(backward(step, INPUT if halves else BACKWARD))
        if halves and step >= delay:
            actions.append(backward(step - delay, WEIGHT))
    return actions + [backward(step, WEIGHT) for step in range(max(0, total - delay), total) if halves]


def timeline(orders: Sequence[Sequence[Action]], seconds: Callable[[Action], float], sending: float = 0.0) -> list[Bar]:
    """Starts each action as soon as its rank is free and its inputs have arrived.

    Args:
        orders: the actions of each rank.
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
                inputs = _inputs(action, last)
                if any(one not in ended for one in inputs):
                    break
                ready = [ended[one] + (sending if one.stage != action.stage else 0.0) for one in inputs]
                start = max([free[rank], *ready])
                ended[action] = free[rank] = start + seconds(action)
                bars.append(Bar(rank, action, start, free[rank]))
                next_up[rank] += 1
                moved = True
        if all(next_up[rank] == len(actions) for rank, actions in enumerate(orders)):
            return bars
        if not moved:
            raise ValueError("these orders wait for one another")


def _inputs(action: Action, last: int) -> list[Action]:
    """Returns the actions that must have ended before one starts."""
    kind, stage, number = action
    if kind == FORWARD:
        return [Action(FORWARD, stage - 1, number)] if stage else []
    if kind == WEIGHT:
        return [Action(INPUT, stage, number)]
    own = Action(FORWARD, stage, number)
    return [own] if stage == last else [own, Action(kind, stage + 1, number)]


def idle_share(bars: Sequence[Bar]) -> float:
    """Returns the share of the ranks' time in which they wait."""
    ranks = 1 + max(bar.rank for bar in bars)
    return 1 - sum(bar.end - bar.start for bar in bars) / (ranks * max(bar.end for bar in bars))
