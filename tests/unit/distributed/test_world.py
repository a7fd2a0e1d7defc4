"""A process among its peers: what is decided without any."""

import os

import pytest
import torch
import torch.distributed as dist

from sciml.core.errors import ConfigError
from sciml.distributed import world
from sciml.distributed.launcher import Launch
from sciml.distributed.world import World
from sciml.testing.ranks import ranks


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


def test_a_group_of_accelerators_knows_its_device(monkeypatch):
    asked = {}
    monkeypatch.setattr(world, "launched", lambda: Launch(5, 8, 1, agent=True))
    monkeypatch.setattr(world, "pick_device", lambda device, key: "cuda")
    monkeypatch.setattr(world, "rendezvous", lambda launch, timeout_s: None)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda index: None)
    monkeypatch.setattr(dist, "get_default_backend_for_device", lambda device: "nccl")
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **options: asked.update(options, backend=backend))
    assert world.join() == World(5, 8, torch.device("cuda:1"))
    assert (asked["backend"], asked["device_id"]) == ("nccl", torch.device("cuda:1"))


@pytest.mark.parametrize(
    ("nccl", "gloo", "expected"),
    [
        ("hsn", None, "hsn0"),
        ("=hsn1", None, "hsn1"),
        ("bond,hsn1", None, "hsn1"),
        ("^lo", None, None),  # says which not to take
        ("ib", None, None),
        ("hsn", "eth0", "eth0"),
        (None, None, None),
    ],
)
def test_gloo_takes_the_network_that_nccl_was_told_to_take(monkeypatch, nccl, gloo, expected):
    for name, value in (("NCCL_SOCKET_IFNAME", nccl), ("GLOO_SOCKET_IFNAME", gloo)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(world.socket, "if_nameindex", lambda: list(enumerate(["lo", "eth0", "hsn0", "hsn1"])))
    world._same_interface()
    assert os.environ.pop("GLOO_SOCKET_IFNAME", None) == expected


@pytest.mark.parametrize(("device", "expected"), [("auto", "cpu"), ("mps", "mps")])
def test_a_device_without_float64_is_taken_only_where_it_is_named(monkeypatch, device, expected):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    assert world.pick_device(device) == expected


def _sums(own):
    """Adds on a rank whose device has no float64."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "widest_float", lambda device: torch.float32)
        reduced, reduce = [], dist.all_reduce
        patch.setattr(dist, "all_reduce", lambda t, **options: (reduced.append(t.dtype), reduce(t, **options))[1])
        tensors = [torch.tensor([0.5, 2.0], dtype=torch.float64), torch.tensor([1, 2])]
        own.add(tensors)
        return reduced, [tensor.tolist() for tensor in tensors], tensors[0].dtype


def test_sums_in_float64_go_over_the_wire_in_what_the_device_has():
    for reduced, sums, kept in ranks(2).run(_sums):
        assert reduced == [torch.float32, torch.int64]
        assert sums == [[1.0, 4.0], [2, 4]]
        assert kept == torch.float64
