"""A process among its peers: what is decided without any."""

import pytest
import torch

from sciml.core.errors import ConfigError
from sciml.distributed import world
from sciml.distributed.launcher import Launch
from sciml.distributed.world import World


def test_a_process_alone_agrees_with_itself():
    World(0, 1, torch.device("cpu")).agree("the configuration", {"seed": 0})


def test_values_are_compared_leaf_by_leaf():
    assert world._leaves({"a": {"b": [1, 2], "c": None}, "d": "x"}) == {"a.b": "[1, 2]", "a.c": "null", "d": '"x"'}
    assert world._leaves(3) == {"": "3"}


@pytest.mark.parametrize(
    ("launch", "visible", "index"),
    [
        (Launch(5, 8, 1, agent=True), 4, 1),  # torchrun: all devices of the node are seen
        (Launch(5, 8, 1), 1, 0),  # srun --gpus-per-task=1: only its own
        (Launch(5, 8, 5), 8, 5),
    ],
)
def test_each_process_has_a_device_of_its_own(monkeypatch, launch, visible, index):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: visible)
    assert world._own_device(launch) == index


@pytest.mark.parametrize(("launch", "visible"), [(Launch(5, 8, 1, agent=True), 1), (Launch(7, 8, 3), 2)])
def test_more_processes_than_devices_are_refused(monkeypatch, launch, visible):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: visible)
    with pytest.raises(
        ConfigError, match=rf"trainer.device: rank {launch.rank} on .* has {visible}, .* start {visible} a node"
    ):
        world._own_device(launch)
