from types import SimpleNamespace

import pytest
import torch

from sciml.training.loss_scale import FLOOR, MOST_SKIPPED, PATIENCE, START, LossScale
from sciml.training.step_math import NotFiniteError, StepMath


def scale_after(*finite):
    scale = LossScale(enabled=True)
    for good in finite:
        scale.update(good)
    return scale


def test_it_halves_after_an_overflow_and_doubles_after_many_good_steps():
    assert scale_after(False, False).value == START / 4
    assert scale_after(*[True] * PATIENCE).value == START * 2


def test_it_has_a_floor_and_counts_what_was_left_out():
    scale = scale_after(*[False] * 20, True, False)
    assert scale.value == FLOOR
    assert scale.record() == {"loss_scale": FLOOR, "skipped": 21}
    assert scale.skipped_in_row == 1
    again = LossScale(enabled=True)
    again.load_state(scale.state())
    assert vars(again) == vars(scale)


def test_without_half_precision_there_is_nothing_to_keep():
    scale = LossScale(enabled=False)
    scale.update(False)
    assert (scale.value, scale.record(), scale.state()) == (1.0, {}, {})
    scale.load_state(scale_after(False).state())
    assert scale.value == 1.0


def test_the_parameter_is_named_once_no_smaller_scale_can_help():
    math = StepMath.__new__(StepMath)
    math.scale = scale_after(*[False] * (MOST_SKIPPED - 1))
    gradients = {"a": torch.zeros(2), "b": torch.tensor([torch.inf])}
    math.overflowed(gradients)
    math.scale.update(False)
    with pytest.raises(NotFiniteError, match=r"26 steps in a row and at a loss scale of 1: first in the parameter 'b'"):
        math.overflowed(gradients)
    math.scale.update(True)
    math.overflowed(gradients)


def test_all_is_well_again_after_a_good_step():
    math = SimpleNamespace(scale=scale_after(*[False] * MOST_SKIPPED))
    assert not math.scale.may_help
    math.scale.update(True)
    assert math.scale.may_help
