"""Traffic and breakdown against what DDP, FSDP2, pipelining and hand-made calls are known to do."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import _functional_collectives as functional
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

from sciml.distributed.communication import CommunicationVolume, Count
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.testing.ranks import Ranks
from sciml.training.breakdown import Breakdown

WIDTH = 8
PARAMETERS = 2 * (WIDTH * WIDTH + WIDTH)  # of two linears
NAP_S = 0.3


def _run(body, num_processes):
    """Results of ``body(world)`` in processes of one gloo group, by rank; the group is no other test's."""
    with Ranks(num_processes) as ranks:
        return ranks.run(body)


def _counted(mesh, block):
    with CommunicationVolume(mesh) as traffic:
        block()
    return traffic.table()


def _linears(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))


def _backward(model):
    model(torch.ones(2, WIDTH)).sum().backward()


def _by_hand(mesh):
    """One call of each kind, ten float32 numbers each, in order."""
    rank, size, peer = dist.get_rank(), dist.get_world_size(), 1 - dist.get_rank()
    x, parts = torch.ones(10), torch.ones(10 * size)
    dist.all_reduce(x)
    dist.all_reduce(x, async_op=True).wait()
    functional.all_reduce(x, "sum", dist.group.WORLD).sum()
    dist.all_gather_into_tensor(parts.clone(), x)
    dist.all_gather([torch.empty(10) for _ in range(size)], x)
    dist.reduce_scatter_tensor(x.clone(), parts)
    dist.reduce_scatter(x.clone(), list(parts.chunk(size)))
    dist.all_to_all_single(torch.empty(10), x)
    dist.broadcast(x, src=0)
    dist.reduce(x, dst=0)
    dist.gather(x, [torch.empty(10) for _ in range(size)] if rank == 0 else None, dst=0)
    dist.scatter(torch.empty(10), list(parts.chunk(size)) if rank == 0 else None, src=0)
    dist.barrier()
    works = [dist.P2POp(dist.isend, x, peer), dist.P2POp(dist.irecv, torch.empty(10), peer)]
    for work in dist.batch_isend_irecv(works):
        work.wait()
    if rank == 0:
        dist.send(x[:5], dst=1)
    else:
        dist.recv(x[:5], src=0)


def _fsdp(mesh, *, reshard):
    model = _linears()
    fully_shard(model, mesh=mesh.axes("shard"), reshard_after_forward=reshard)
    _backward(model)
    model.zero_grad()

    def step():
        _backward(model)
        grads = [parameter.grad for parameter in model.parameters()]
        nn.utils.get_total_norm(grads).full_tensor()

    return _counted(mesh, step)


def _pipeline(mesh, schedule, num_micro):
    rank = dist.get_rank()
    torch.manual_seed(rank)
    stage = PipelineStage(nn.Linear(WIDTH, WIDTH), rank, 2, torch.device("cpu"), group=mesh.group("pp"))
    runner = schedule(stage, num_micro, loss_fn=lambda output, target: (output - target).square().mean())
    batch = torch.ones(num_micro * 2, WIDTH)
    step = (lambda: runner.step(batch)) if rank == 0 else (lambda: runner.step(target=batch))
    step()  # the first one also exchanges shapes
    return _counted(mesh, step)


def _timed(breakdown, block, data_wait=0.0):
    dist.barrier()
    with breakdown.step(data_wait) as times:
        began = time.perf_counter()
        block()
        whole = time.perf_counter() - began
    return whole, times


def _late(rank, block):
    """A block before which rank 1 dawdles, so that rank 0 waits inside."""

    def dawdle():
        if rank == 1:
            time.sleep(NAP_S)
        block()

    return dawdle


def _two_processes(world):
    dp, shard, pp, tp = (Mesh(world, {axis: 2}) for axis in ("dp", "shard", "pp", "tp"))
    results = {"by hand": _counted(tp, lambda: _by_hand(tp))}
    ddp = DistributedDataParallel(_linears(), bucket_cap_mb=0.0003)
    for _ in range(2):  # buckets are rebuilt once
        _backward(ddp)
    results["ddp"] = _counted(dp, lambda: _backward(ddp))
    results["fsdp, resharded"] = _fsdp(shard, reshard=True)
    results["fsdp, kept"] = _fsdp(shard, reshard=False)
    results["gpipe"] = _pipeline(pp, ScheduleGPipe, 4)
    results["1f1b"] = _pipeline(pp, Schedule1F1B, 4)

    x = torch.ones(10)
    blocks = {
        "tp": (tp, lambda: dist.all_reduce(x)),
        "tp, waited for": (tp, lambda: dist.all_reduce(x, async_op=True).wait()),
        "tp, functional": (tp, lambda: functional.all_reduce(x, "sum", dist.group.WORLD).sum()),
        "dp": (dp, lambda: _backward(ddp)),
        "pp": (pp, lambda: dist.recv(x, src=1) if world.rank == 0 else dist.send(x, dst=0)),
    }
    for name, (mesh, block) in blocks.items():
        results[f"time of {name}"] = _timed(Breakdown(mesh), _late(world.rank, block), data_wait=0.25)

    def overlapped():
        work = dist.all_reduce(x, async_op=True)
        time.sleep(2 * NAP_S)
        work.wait()

    results["time of overlapped"] = _timed(Breakdown(tp), _late(world.rank, overlapped))
    with Breakdown(dp).step(measure=False) as times, CommunicationVolume(dp) as traffic:
        dist.all_reduce(x)
    results["unmeasured"] = times
    with Breakdown(dp).step(), CommunicationVolume(dp) as traffic:
        dist.all_reduce(x)
    results["both"] = traffic.table()
    with CommunicationVolume(dp) as traffic, ThreadPoolExecutor(1) as other:
        other.submit(dist.all_reduce, x).result()
    dist.all_reduce(x)
    results["elsewhere"] = traffic.table()
    results["dry run"] = _dry_run()
    return results


def _dry_run():
    """Traffic of rank 1025 of 3,072, none of which are there."""
    dist.barrier()
    dist.destroy_process_group()
    dist.init_process_group("fake", rank=1025, world_size=3072, store=FakeStore())
    mesh = Mesh(World(1025, 3072, torch.device("cpu")), {"pp": 64, "dp": 6, "tp": 8})
    x = torch.ones(1000, device="meta")

    def block():
        dist.all_reduce(x, group=mesh.group("tp"))
        dist.all_reduce(x, group=mesh.group("dp"))
        dist.all_reduce(x)

    return _counted(mesh, block)


@pytest.fixture(scope="module")
def two():
    return _run(_two_processes, 2)


def test_every_kind_of_call_is_counted_with_its_payload(two):
    for rank, result in enumerate(two):
        assert set(result["by hand"]) == {"tp"}
        table = result["by hand"]["tp"]
        assert table.pop("send") == (Count(2, 60, 60.0) if rank == 0 else Count(1, 40, 40.0))
        assert table.pop("recv") == (Count(1, 40, 0.0) if rank == 0 else Count(2, 60, 0.0))
        assert table.pop("scatter") == (Count(1, 80, 40.0) if rank == 0 else Count(1, 0, 0.0))
        assert table == {
            "all_reduce": Count(3, 120, 120.0),
            "all_gather": Count(2, 80, 80.0),
            "reduce_scatter": Count(2, 160, 80.0),
            "all_to_all": Count(1, 40, 20.0),
            "broadcast": Count(1, 40, 20.0),
            "reduce": Count(1, 40, 20.0),
            "gather": Count(1, 40, 20.0),
            "barrier": Count(1, 0, 0.0),
        }


def test_ddp_reduces_each_gradient_once_though_in_cpp(two):
    for result in two:
        (count,) = result["ddp"]["dp"].values()
        assert count.calls > 1  # several buckets
        assert count.bytes == PARAMETERS * 4
        assert count.wire_bytes == PARAMETERS * 4


def test_fsdp_gathers_twice_or_once_and_scatters_once(two):
    for result in two:
        for name, gathers in (("fsdp, resharded", 2), ("fsdp, kept", 1)):
            assert result[name] == {
                "shard": {
                    "all_gather": Count(gathers, gathers * PARAMETERS * 4 // 2, gathers * PARAMETERS * 4 / 2),
                    "reduce_scatter": Count(1, PARAMETERS * 4, PARAMETERS * 4 / 2),
                    "all_reduce": Count(1, 16, 16.0),  # four norms: a functional collective inside DTensor
                }
            }


def test_a_pipeline_sends_one_message_a_way_boundary_and_micro_batch(two):
    message = 2 * WIDTH * 4
    for result in two:
        for name in ("gpipe", "1f1b"):
            kinds = result[name]["pp"]
            assert kinds["send"] == Count(4, 4 * message, 4.0 * message)
            assert kinds["recv"] == Count(4, 4 * message, 0.0)


@pytest.mark.parametrize("name", ["tp", "tp, waited for", "tp, functional", "dp", "pp"])
def test_waiting_for_a_late_peer_is_booked_on_its_axis(two, name):
    whole, times = two[0][f"time of {name}"]
    waited = times[f"time_{name[:2]}"]
    assert NAP_S / 2 < waited <= whole
    assert times["time_data"] == 0.25
    assert times["time_compute"] + waited == pytest.approx(whole, abs=0.1)
    _, late = two[1][f"time of {name}"]
    assert late["time_compute"] >= NAP_S > late[f"time_{name[:2]}"]
    assert set(late) == {"time_data", "time_compute", f"time_{name[:2]}"}


def test_what_overlaps_with_computing_costs_nothing(two):
    _, times = two[0]["time of overlapped"]
    assert times["time_tp"] < NAP_S / 2
    assert times["time_compute"] >= 2 * NAP_S


def test_a_big_mesh_is_counted_without_its_processes(two):
    for result in two:
        assert {axes: kinds["all_reduce"].wire_bytes for axes, kinds in result["dry run"].items()} == {
            "tp": pytest.approx(2 * 7 / 8 * 4000),
            "dp": pytest.approx(2 * 5 / 6 * 4000),
            "pp_dp_tp": pytest.approx(2 * 3071 / 3072 * 4000),
        }


def test_nothing_is_told_or_counted_outside(two):
    for result in two:
        assert result["unmeasured"] == {}
        assert result["elsewhere"] == {}
        assert result["both"] == {"dp": {"all_reduce": Count(1, 40, 40.0)}}


def _four_processes(world):
    mesh = Mesh(world, {"dp": 2, "tp": 2})
    tp, dp = mesh.group("tp"), mesh.group("dp")
    stranger = dist.new_group([0, 1]), dist.new_group([2, 3])  # not of the mesh, yet along tp
    x, peers = torch.ones(8), (world.rank + 2) % 4

    def block():
        dist.all_reduce(x, group=tp)
        dist.all_reduce(x, group=dp)
        dist.all_reduce(x, group=stranger[world.rank // 2])
        dist.all_reduce(x)
        dist.all_to_all_single(torch.empty(8), x)
        works = [dist.P2POp(dist.isend, x, peers), dist.P2POp(dist.irecv, torch.empty(8), peers)]
        for work in dist.batch_isend_irecv(works):  # through the group of all
            work.wait()

    table = _counted(mesh, block)
    _, times = _timed(Breakdown(mesh), block)
    return table, set(times), _counted(mesh, lambda: _ddp_inside(mesh))


def _ddp_inside(mesh):
    model = DistributedDataParallel(_linears(), process_group=mesh.group("dp"))
    with CommunicationVolume(mesh) as inner:
        _backward(model)
    assert inner.of("dp", "all_reduce").bytes == PARAMETERS * 4
    assert inner.of("tp", "all_reduce") == Count()


def test_groups_are_named_by_the_axes_along_which_they_reach():
    for table, keys, outer in _run(_four_processes, 4):
        assert table == {
            "tp": {"all_reduce": Count(2, 64, 64.0)},
            "dp": {
                "all_reduce": Count(1, 32, 32.0),
                "send": Count(1, 32, 32.0),
                "recv": Count(1, 32, 0.0),
            },
            "dp_tp": {"all_reduce": Count(1, 32, 48.0), "all_to_all": Count(1, 32, 24.0)},
        }
        assert keys == {"time_data", "time_compute", "time_tp", "time_dp", "time_all"}
        assert outer["dp"]["all_reduce"].bytes == PARAMETERS * 4  # both counted what one did


def _deepspeed(world):
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "DS_ACCELERATOR": "cpu"}
    import deepspeed

    # Else it compiles C++ for a minute, or dies without a compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo")
    mesh = Mesh(world, {"dp": 2})
    tables = {}
    for stage in (1, 3):
        model = _linears()
        config = {
            "train_micro_batch_size_per_gpu": 2,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": 1.0,
            "zero_optimization": {"stage": stage},
            "zero_allow_untested_optimizer": True,
        }
        optimizer = torch.optim.AdamW(model.parameters())
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)

        def step(engine=engine):
            engine.backward(engine(torch.ones(2, WIDTH)).sum())
            engine.step()

        step()
        tables[stage] = _counted(mesh, step)
    return tables


@pytest.mark.slow
def test_deepspeed_is_counted_as_it_calls_torch():
    for tables in _run(_deepspeed, 2):
        half = PARAMETERS * 4 // 2
        assert set(tables[1]) == set(tables[3]) == {"dp"}
        assert tables[1]["dp"]["all_gather"].bytes == half  # updated parameters
        assert tables[1]["dp"]["all_reduce"].bytes >= 2 * half  # gradients, and the norm
        assert tables[3]["dp"]["reduce_scatter"].bytes == 2 * half
        assert tables[3]["dp"]["all_gather"].bytes >= half
