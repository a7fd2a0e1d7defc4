"""The memory that a log tells of is that of the process, now and at most."""

import torch

from sciml.training.callbacks import ProgressView
from sciml.training.device_memory import memory_in_use


def test_memory_now_and_at_most():
    before = memory_in_use(torch.device("cpu"))
    large = torch.ones(400_000_000 // 4)
    during = memory_in_use(torch.device("cpu"))
    del large
    after = memory_in_use(torch.device("cpu"))
    assert during["memory_gb"] - before["memory_gb"] > 0.35
    assert during["memory_gb"] - after["memory_gb"] > 0.35
    assert after["memory_peak_gb"] >= during["memory_gb"] * 0.999


def test_a_device_that_does_not_tell_has_none():
    assert memory_in_use(torch.device("meta")) == {}


def test_the_bar_shows_the_most_memory(capsys):
    view = ProgressView(max_steps=2)
    for step in (1, 2):
        view.on_step(step, {"loss": 0.5, "samples_per_s": 10.0, "memory_peak_gb": 1.25})
    assert "10 samples/s  1.2 GB" in capsys.readouterr().err
