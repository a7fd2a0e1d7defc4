"""Over how many steps a model learns, and that the loss and its gradient are those of steps taken one by one."""

from dataclasses import replace

import pytest
import torch

from domains.climate.data.batch import collate
from domains.climate.model.horizon import HorizonConfig
from domains.climate.model.loss import LossConfig
from tests.unit.climate.test_random_forecasts import CRPS, samples, task, trained


def spans(config, steps=100, seed=0):
    return [config.span(step, steps, seed) for step in range(steps)]


def test_a_growing_horizon_takes_one_step_at_first_and_all_at_last():
    found = spans(HorizonConfig(rollout_steps=4, pushforward=3, horizon="grow"))
    learned = [span.learned for span in found]
    assert learned == sorted(learned)
    assert {count: learned.count(count) for count in range(1, 5)} == dict.fromkeys(range(1, 5), 25)
    assert all(span.pushforward <= 4 * step / 100 for step, span in enumerate(found))
    assert {span.pushforward for span in found[75:]} == {0, 1, 2, 3}


def test_other_horizons_are_full_or_drawn_evenly_from_the_step_alone():
    assert set(spans(HorizonConfig(rollout_steps=3))) == {(0, 3)}
    config = HorizonConfig(rollout_steps=3, pushforward=2, horizon="random")
    found = spans(config, 3000)
    assert found[17] == config.span(17, 9999, 0)
    assert found != spans(config, 3000, seed=1)
    for pair in {(own, learned) for own in range(3) for learned in (1, 2, 3)}:
        assert found.count(pair) == pytest.approx(3000 / 9, rel=0.2)
    assert config.longest == 5
    assert config.whole == (0, 3)


@pytest.mark.parametrize("loss", [LossConfig(), replace(CRPS, train_members=2)], ids=["mse", "crps"])
def test_steps_are_taken_without_gradient_and_then_learned_together(loss):
    """Against a rollout by hand, which keeps all activations."""
    model = trained("uvit", loss.noise_length)
    if loss.is_random:
        torch.nn.init.normal_(model.net.condition.noise.weight)
    batch = collate(samples(steps=5))
    judge = task(loss, horizon=HorizonConfig(rollout_steps=3, pushforward=2), seed=0)
    step_of = {judge.horizon.span(step, 50, 0): step for step in range(50)}
    judge.at_step(step_of[1, 3], 50)
    found = judge.loss(model, batch)
    found.loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    plain, losses = task(loss), []
    step = batch.as_members(2) if loss.is_random else batch
    for number in range(4):
        with torch.set_grad_enabled(number > 0):
            fields = plain.predict(model, step).values["fields"]
        errors = (fields - step.targets[:, 0]) / judge.statistics.increment_std[0][:, None, None]
        losses.append(plain.judge(errors))
        step = step.advance(fields)
    expected = torch.stack(losses[1:]).mean()
    expected.backward()
    torch.testing.assert_close(found.loss, expected, rtol=1e-5, atol=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5)
    judge.at_step(None, 50)
    assert len(judge.loss(model, batch).parts) == 3  # validation learns from no state of its own
