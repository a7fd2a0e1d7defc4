"""Runs the four processes of test_checkpoint_meshes: checkpoint_ranks.py FOLDER imports once, and forks them."""

import errno
import os
import sys
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from sciml.core.errors import ConfigError, DataError, RunError
from sciml.distributed.launcher import leave
from sciml.distributed.world import World
from sciml.training import checkpoint_storage
from sciml.training.checkpoint import CheckpointStore, read_manifest, read_tensors
from sciml.training.node_checkpoints import NodeCheckpoints

SIZE = 4
# Sizes along each mesh dim and the tensor dim that it cuts; None: replicas.
MESHES = {
    "shard4": [(4, 0)],
    "tp2_shard2": [(2, 0), (2, 0)],
    "dp2_shard2": [(2, None), (2, 0)],
    "rows2_columns2": [(2, 0), (2, 1)],
}
LAYOUTS = (*MESHES, "stages", "replicated")
SHAPES = {"even": (8, 6), "uneven": (7, 5), "one_row": (1, 3), "two_rows": (2, 2), "vector": (9,), "nothing": (0, 3)}


def whole() -> dict[str, torch.Tensor]:
    """The tensors, uncut, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    tensors["half"] = torch.randn(6, 3, generator=generator).bfloat16()
    tensors["transposed"] = torch.randn(5, 8, generator=generator).T
    return {**tensors, "step": torch.tensor(7.0), "count": torch.arange(5), "flag": torch.tensor([True, False])}


def part(tensor: torch.Tensor, layout: list, rank: int) -> torch.Tensor:
    """A rank's part of a tensor, by torch.chunk along one mesh dim after the other, the last one fastest."""
    for position, (size, dim) in enumerate(layout):
        later = 1
        for size_later, _ in layout[position + 1 :]:
            later *= size_later
        if dim is not None and dim < tensor.ndim:
            chunks, mine = tensor.chunk(size, dim), rank // later % size
            tensor = chunks[mine] if mine < len(chunks) else tensor.narrow(dim, 0, 0)
    return tensor


def placed(tensors: dict, layout: str, meshes: dict, rank: int) -> dict:
    """Tensors as a rank holds them."""
    if layout == "replicated":
        return {name: tensor.clone() for name, tensor in tensors.items()}
    if layout == "stages":  # every name on one rank, `step` on all, nothing else on the last
        return {n: t.clone() for i, (n, t) in enumerate(tensors.items()) if n == "step" or i % 3 == rank}
    cut = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 0:
            cut[name] = tensor.clone()
            continue
        dims = [dim if dim is not None and dim < tensor.ndim else None for _, dim in MESHES[layout]]
        placements = [Replicate() if dim is None else Shard(dim) for dim in dims]
        local = part(tensor, MESHES[layout], rank).clone()
        contiguous = torch.empty(tensor.shape, device="meta").stride()
        cut[name] = DTensor.from_local(local, meshes[layout], placements, shape=tensor.shape, stride=contiguous)
    return cut


def local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def expect(found: dict, wanted: dict) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        one, other = local(found[name]), local(wanted[name])
        assert one.dtype == other.dtype, name
        assert one.shape == other.shape, (name, one.shape, other.shape)
        assert torch.equal(one, other), name


def message(kind: type[Exception], work) -> str:
    """Returns the message of an error that must come in this process."""
    try:
        work()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def every_layout_opens_in_every_other(world: World, folder: Path, meshes: dict) -> None:
    for layout in LAYOUTS:
        store = CheckpointStore(folder / layout, world, asynchronous=layout != "shard4")
        path = store.save(1, placed(whole(), layout, meshes, world.rank))
        store.finish()
        assert read_manifest(path, store.group)["step"] == 1
        for other in LAYOUTS:
            wanted = placed(whole(), other, meshes, world.rank)
            empty = {name: torch.zeros_like(tensor) for name, tensor in wanted.items()}
            expect(read_tensors(path, empty, store.group), wanted)


def training_goes_on_while_a_checkpoint_is_written(world: World, folder: Path, meshes: dict) -> None:
    store = CheckpointStore(folder / "asynchronous", world, keep_last=1, asynchronous=True)
    slowly = checkpoint_storage.write_safetensors
    turn = torch.zeros(())

    def slow(*args):
        import time

        time.sleep(0.5)
        return slowly(*args)

    checkpoint_storage.write_safetensors = slow
    for step in (1, 2, 3):
        tensors = placed(whole(), "shard4", meshes, world.rank)
        store.save(step, tensors)
        for tensor in tensors.values():
            local(tensor).fill_(0)
        for _ in range(20):
            dist.all_reduce(turn)
        if step == 2:
            assert not (store.path(2) / "checkpoint.json").exists(), "it was not written in the background"
            store.mark_best(2, 0.5)
            assert store.best_loss() == 0.5
            assert store.latest() == store.path(1)
    store.finish()
    checkpoint_storage.write_safetensors = slowly
    assert store.steps() == [2, 3]
    assert store.best() == store.path(2)
    wanted = placed(whole(), "shard4", meshes, world.rank)
    expect(read_tensors(store.path(2), wanted, store.group), wanted)


def one_failure_is_everyones(world: World, folder: Path, meshes: dict) -> None:
    tensors = placed(whole(), "shard4", meshes, world.rank)
    write = checkpoint_storage.write_safetensors

    def full(file, *args):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    for asynchronous in (False, True):
        place = folder / f"failing_{asynchronous}"
        store = CheckpointStore(place, world, asynchronous=asynchronous)
        store.save(1, tensors)
        store.finish()
        if world.rank == 2:
            checkpoint_storage.write_safetensors = full
        said = message(RunError, lambda store=store: (store.save(2, tensors), store.finish()))
        checkpoint_storage.write_safetensors = write
        assert "the disk is full" in said
        assert "step-00000002" in said
        dist.barrier(store.group)
        assert [p.name for p in place.iterdir()] == ["step-00000001"]
        dist.barrier(store.group)  # the next save must not begin while a rank still looks
        sum_of_parts = DTensor.from_local(torch.ones(2), meshes["shard4"], [Partial()])
        broken = {**tensors, "partial": sum_of_parts} if world.rank == 3 else tensors
        assert "only Shard and Replicate" in message(
            ValueError, lambda store=store, broken=broken: (store.save(2, broken), store.finish())
        )
        store.save(3, tensors)
        store.finish()
        assert store.steps() == [1, 3]
        unknown = {"other": torch.zeros(1)} if world.rank == 1 else tensors
        path = store.path(3)
        said = message(ConfigError, lambda path=path, store=store, t=unknown: read_tensors(path, t, store.group))
        assert "no tensor 'other'" in said


def a_corrupted_file_is_named_and_the_checkpoint_before_it_used(world: World, folder: Path, meshes: dict) -> None:
    store = CheckpointStore(folder / "corrupted", world)
    tensors = placed(whole(), "tp2_shard2", meshes, world.rank)
    for step in (1, 2):
        store.save(step, tensors)
    file = store.path(2) / "shard-00002.safetensors"
    if world.is_main:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    world.barrier()
    assert f"{file} is missing or corrupted" in message(DataError, lambda: read_manifest(store.path(2), store.group))
    assert store.newest_intact() == store.path(1)
    world.barrier()
    if world.is_main:
        file.unlink()
    world.barrier()
    assert str(file) in message(DataError, lambda: read_tensors(store.path(2), tensors, store.group))
    assert store.newest_intact() == store.path(1)


def each_node_keeps_what_its_processes_hold(world: World, folder: Path, meshes: dict) -> None:
    """Two nodes of two processes."""
    os.environ |= {"RANK": str(world.rank), "WORLD_SIZE": str(SIZE), "LOCAL_RANK": str(world.rank % 2)}
    everyone = dist.new_group(backend="gloo")
    for mesh in (*MESHES, "stages"):
        disk = folder / "disks" / mesh
        nodes = NodeCheckpoints(disk, world, mesh, everyone, timeout_s=60)
        tensors = placed(whole(), mesh, meshes, world.rank)
        for step in (1, 2):
            nodes.save(step, tensors)
        nodes.finish()
        assert nodes.newest(2) is None
        path = nodes.newest(1)
        assert path == disk / f"from-rank-0000{world.rank // 2 * 2}" / "step-00000002"
        empty = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        expect(read_tensors(path, empty, nodes.group), tensors)
        dist.barrier(everyone)
        if world.rank == 3:  # on one node alone a file is damaged
            next(path.glob("*.safetensors")).write_bytes(b"nothing")
        dist.barrier(everyone)
        assert nodes.newest(0).name == "step-00000001"
        other = NodeCheckpoints(disk, world, "another layout", everyone, timeout_s=60)
        assert other.newest(0) is None
        dist.barrier(everyone)
        nodes.remove()
        dist.barrier(everyone)
        assert not disk.exists()
        dist.barrier(everyone)


def a_process_dies_while_it_writes(world: World, folder: Path, meshes: dict) -> None:
    store = CheckpointStore(folder / "dying", world, asynchronous=True, timeout_s=60)
    tensors = placed(whole(), "shard4", meshes, world.rank)
    store.save(1, tensors)
    store.finish()

    def die(file, *args):
        file.write_bytes(b"half")
        os._exit(0)

    if world.rank == 3:
        checkpoint_storage.write_safetensors = die
    store.save(2, tensors)
    assert "lost contact with another process" in message(RunError, store.finish)


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=SIZE)
    world = World(rank, SIZE, torch.device("cpu"))
    meshes = {name: init_device_mesh("cpu", tuple(size for size, _ in layout)) for name, layout in MESHES.items()}
    for act in (
        every_layout_opens_in_every_other,
        training_goes_on_while_a_checkpoint_is_written,
        one_failure_is_everyones,
        a_corrupted_file_is_named_and_the_checkpoint_before_it_used,
        each_node_keeps_what_its_processes_hold,
        a_process_dies_while_it_writes,
    ):
        act(world, folder, meshes)
        if rank == 0:
            print(act.__name__, flush=True)


def start(rank: int, folder: Path) -> int:
    """Forks a rank; returns the process's id."""
    pid = os.fork()
    if pid == 0:
        try:
            main(rank, folder)
        except BaseException:
            traceback.print_exc()
            leave(1)
        leave(0)
    return pid


if __name__ == "__main__":
    ranks = [start(rank, Path(sys.argv[1])) for rank in range(SIZE)]
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in ranks))
