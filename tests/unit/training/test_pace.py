"""The seconds of a training, by its log."""

import pytest

from sciml.training.pace import seconds_of


def train(step, samples_per_s):
    return {"step": step, "split": "train", "samples_per_s": samples_per_s}


def test_a_training_whose_steps_become_dearer_takes_the_sum_of_its_steps():
    """Ten steps of 0.5 s and ten of 2 s; the median of the paces had said 1.25 s or 0.5 s for all of them."""
    history = [train(1, 8.0), train(10, 8.0), {"step": 10, "split": "valid"}, train(20, 2.0)]
    assert seconds_of(history, batch=4) == pytest.approx(10 * 0.5 + 10 * 2.0)


def test_steps_behind_the_last_logged_one_count():
    history = [train(1, 4.0), train(10, 4.0), {"step": 15, "split": "valid"}]
    assert seconds_of(history, batch=4) == 15.0


def test_a_log_without_paces_tells_nothing():
    assert seconds_of([{"step": 3, "split": "valid"}], batch=4) is None
    assert seconds_of([], batch=4) is None
