"""Timelines of pipelines: torch's own orders, and the published bubbles."""

from __future__ import annotations

import pytest

from sciml.planning.pipeline import FORWARD, INPUT, WEIGHT, Action, idle_share, in_flight, order, timeline

CASES = [("gpipe", 1), ("1f1b", 1), ("interleaved", 2), ("interleaved", 3), ("zero_bubble", 1), ("zero_bubble", 2)]
PASSES = [(4, 8), (4, 4), (2, 6)]


def step(schedule, pp, interleave, micro_batches, forward=1.0, backward=2.0):
    def seconds(action: Action) -> float:
        whole = forward if action.kind == FORWARD else backward
        return whole / interleave / (2 if action.kind in (INPUT, WEIGHT) else 1)

    return timeline([order(schedule, rank, pp, interleave, micro_batches) for rank in range(pp)], seconds)


@pytest.mark.parametrize(("pp", "micro_batches"), PASSES)
@pytest.mark.parametrize(("schedule", "interleave"), CASES)
def test_every_pass_runs_once_and_as_many_are_in_flight_as_memory_counts(schedule, interleave, pp, micro_batches):
    bars = step(schedule, pp, interleave, micro_batches)
    kinds = 3 if schedule == "zero_bubble" else 2
    assert len({bar.action for bar in bars}) == len(bars) == kinds * pp * interleave * micro_batches
    for rank in range(pp):
        flying = most = 0
        for action in order(schedule, rank, pp, interleave, micro_batches):
            assert action.stage % pp == rank
            flying += action.kind == FORWARD
            most = max(most, flying)
            flying -= action.kind not in (FORWARD, INPUT)
        assert most == in_flight(schedule, rank, pp, interleave, micro_batches)


@pytest.mark.parametrize(("pp", "micro_batches"), PASSES)
@pytest.mark.parametrize(("schedule", "interleave"), CASES[2:])
def test_orders_are_torchs_own(schedule, interleave, pp, micro_batches):
    from torch.distributed.pipelining import schedules

    in_a_round = micro_batches // max(1, micro_batches // pp)
    factor, delays = (2, False) if schedule == "interleaved" else (1, True)
    kinds = {"FORWARD": FORWARD, "FULL_BACKWARD": "backward", "BACKWARD_INPUT": INPUT, "BACKWARD_WEIGHT": WEIGHT}
    for rank in range(pp):
        warmup = schedules._get_warmup_ops(rank, interleave, in_a_round, pp, micro_batches, multiply_factor=factor)
        total = interleave * micro_batches
        actions = schedules._get_1f1b_rank_ops(
            interleave, pp, warmup, total - warmup, warmup, rank,
            lambda step, r=rank: step // in_a_round % interleave * pp + r,
            lambda step, w=warmup, r=rank: (interleave - 1 - (step - w) // in_a_round % interleave) * pp + r,
            rank if delays else 0, enable_zero_bubble=delays,
        )  # fmt: skip
        found = [
            Action(kinds[a.computation_type.name], a.stage_index, a.microbatch_index)
            for a in actions
            if a is not None and a.computation_type.name in kinds
        ]
        assert order(schedule, rank, pp, interleave, micro_batches) == found


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_the_bubble_is_that_of_the_formula(schedule):
    """(p - 1)/(m + p - 1) of the time: Huang et al. (2019), https://doi.org/10.48550/arXiv.1811.06965."""
    assert idle_share(step(schedule, 4, 1, 8)) == pytest.approx(3 / 11)


def test_interleaving_makes_it_smaller_and_zero_bubble_smaller_still():
    shares = [idle_share(step(name, 4, v, 8)) for name, v in (("1f1b", 1), ("interleaved", 2), ("zero_bubble", 2))]
    assert shares == sorted(shares, reverse=True)
    assert shares[1] == pytest.approx(3 / (2 * 8 + 3), rel=0.05)


def test_orders_that_wait_for_one_another_are_told():
    with pytest.raises(ValueError, match="wait for one another"):
        timeline([[Action("backward", 0, 0)], [Action("backward", 1, 0), Action(FORWARD, 1, 0)]], lambda _: 1.0)
