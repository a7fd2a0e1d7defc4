import pytest

from sciml.training.config import OptimConfig
from sciml.training.schedule import learning_rate, rest_of_schedule

COSINE = OptimConfig(lr=2.0, warmup_steps=10, min_lr_ratio=0.1)
WSD = OptimConfig(lr=2.0, warmup_steps=10, min_lr_ratio=0.1, schedule="wsd", decay_steps=20)


def rates(config, max_steps):
    return [learning_rate(config, step, max_steps) for step in range(max_steps + 1)]


def test_the_learning_rate_warms_up_and_falls_like_a_cosine():
    found = rates(COSINE, 110)
    assert found[0] == pytest.approx(0.2)
    assert found[9] == found[10] == pytest.approx(2.0)
    assert found[60] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert found[110] == pytest.approx(0.2)


def test_a_decay_of_its_own_length_does_not_know_how_long_the_training_is():
    own = OptimConfig(lr=2.0, warmup_steps=10, min_lr_ratio=0.1, decay_steps=100)
    assert rates(own, 110) == rates(COSINE, 110)
    assert rates(own, 300)[:111] == rates(own, 110)
    assert set(rates(own, 300)[110:]) == {rates(own, 110)[110]}


def test_warm_up_stable_decay_keeps_its_peak_until_the_last_steps():
    found = rates(WSD, 100)
    assert set(found[9:81]) == {2.0}
    assert found[85] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))  # after a quarter: the square root of it is left
    assert found[100] == pytest.approx(0.2)
    assert rates(WSD, 300)[:81] == found[:81]  # any checkpoint before the decay is one of a longer training
    tenth = OptimConfig(lr=2.0, warmup_steps=10, schedule="wsd")
    assert [rate == 2.0 for rate in rates(tenth, 100)[10:]] == [True] * 81 + [False] * 10


@pytest.mark.parametrize("config", [COSINE, WSD, OptimConfig(warmup_steps=0), OptimConfig(schedule="wsd")])
@pytest.mark.parametrize("max_steps", [1, 2, 9, 10, 11, 15, 50])
def test_every_length_has_rates_between_the_floor_and_the_peak(config, max_steps):
    for rate in rates(config, max_steps):
        assert 0 < rate <= config.lr


@pytest.mark.parametrize(
    ("config", "step", "max_steps", "says"),
    [
        (COSINE, 60, 110, "the learning rate is 1.1 at step 60, falls to 0.2 at step 110"),
        (COSINE, 5, 8, "is 1.2 at step 5, rises to 1.6 until step 8"),
        (COSINE, 5, 110, "is 1.2 at step 5, rises to 2 until step 10, falls to 0.2 at step 110"),
        (OptimConfig(lr=2.0, warmup_steps=10, min_lr_ratio=0.1, decay_steps=100), 110, 300,
         "stays at its floor of 0.2, since its decay ended with step 110; optim.decay_steps=290 would decay it until"),
        (OptimConfig(lr=2.0, warmup_steps=10, min_lr_ratio=0.1, decay_steps=100), 60, 300,
         "is 1.1 at step 60, falls to 0.2, and stays there from step 110 on"),
        (WSD, 50, 100, "is 2 at step 50, stays until step 80, falls to 0.2 at step 100"),
        (WSD, 85, 100, "is 1.1 at step 85, falls to 0.2 at step 100"),
    ],
)  # fmt: skip
def test_what_the_rate_will_do_is_said(config, step, max_steps, says):
    assert says in rest_of_schedule(config, step, max_steps)
