from types import SimpleNamespace

import pytest
import torch
from torch.distributed import Work

from sciml.distributed.communication import CommunicationVolume
from sciml.distributed.mesh import Mesh
from sciml.training.breakdown import Breakdown


def _breakdown(**degrees):
    return Breakdown(SimpleNamespace(device=torch.device("cpu"), degrees=degrees))


@pytest.mark.parametrize(
    ("degrees", "budgets"),
    [
        ({}, []),
        ({"tp": 2}, ["tp"]),
        ({"dp": 2}, ["dp"]),
        ({"shard": 2}, ["dp"]),
        ({"dp": 2, "shard": 2}, ["all", "dp"]),
        ({"pp": 4, "dp": 2, "sp": 2, "tp": 2}, ["all", "dp", "pp", "sp", "tp"]),
    ],
)
def test_each_way_of_sharing_has_its_column_also_where_it_took_no_time(degrees, budgets):
    with _breakdown(**degrees).step(0.5) as times:
        torch.ones(3).sum()
    assert set(times) == {"time_data", "time_compute"} | {f"time_{budget}" for budget in budgets}
    assert times["time_data"] == 0.5
    assert 0 < times["time_compute"] < 0.5
    assert all(times[f"time_{budget}"] == 0 for budget in budgets)


def test_nothing_is_left_behind_by_a_step_that_fails():
    wait, kernel = Work.wait, ("c10d::allreduce_", "BackendSelect")
    seen = []

    def fail():
        with Breakdown(Mesh.alone()).step() as times, CommunicationVolume(Mesh.alone()):
            seen.extend((times, Work.wait, torch._C._dispatch_has_kernel_for_dispatch_key(*kernel)))
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    times, wait_inside, kernel_inside = seen
    assert times == {}
    assert wait_inside is not wait
    assert kernel_inside
    assert Work.wait is wait
    assert not torch._C._dispatch_has_kernel_for_dispatch_key(*kernel)
