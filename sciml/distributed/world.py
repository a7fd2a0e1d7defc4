"""The processes of a run: one without any environment, or as many as a launcher such as torchrun started."""

from __future__ import annotations

import datetime
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sciml.core.config import flat
from sciml.core.devices import widest_float
from sciml.core.errors import ConfigError
from sciml.distributed.launcher import Launch, launched
from sciml.distributed.rendezvous import rendezvous


@dataclass(frozen=True)
class World:
    """Describes this process among its peers.

    Attributes:
        rank: number of this process, 0 to ``size - 1``.
        size: how many processes there are.
        device: where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def wide(self) -> torch.dtype:
        """Returns the type of sums over processes: float64, or float32 on devices that have no wider one."""
        return widest_float(self.device)

    def add(self, tensors: Sequence[Tensor], group: dist.ProcessGroup | None = None) -> None:
        """Sums tensors over all processes, or over a group of them, in place."""
        if self.size > 1:
            for tensor in tensors:
                dtype = self.wide if tensor.dtype == torch.float64 else tensor.dtype
                on_wire = tensor.to(self.device, dtype)
                dist.all_reduce(on_wire, group=group)
                if on_wire is not tensor:
                    tensor.copy_(on_wire)

    def any(self, flag: bool) -> bool:
        """Returns whether the flag is set in any process."""
        return bool(self.greatest([float(flag)])[0])

    def greatest(self, values: Sequence[float]) -> list[float]:
        """Returns the greatest of each value over all processes, in single precision."""
        if self.size == 1:
            return list(values)
        on_wire = torch.tensor(values, dtype=torch.float32, device=self.device)
        dist.all_reduce(on_wire, op=dist.ReduceOp.MAX)
        return on_wire.tolist()

    def share(self, value: Any) -> Any:
        """Returns the value that process 0 holds."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def agree(self, what: str, value: Any) -> None:
        """Refuses to go on where processes hold different values, such as configurations.

        Args:
            what: the value's name, for the message.
            value: nested mappings of whatever can be written as JSON, or as text.

        Raises:
            ConfigError: on all processes; it names the first rank and the first key that differ.
        """
        if self.size == 1:
            return
        mine = _leaves(value)
        first = self.share(mine)
        key = next((key for key in sorted({*mine, *first}) if mine.get(key) != first.get(key)), None)
        if not self.any(key is not None):
            return
        differences: list[Any] = [None] * self.size
        own = None if key is None else (key, mine.get(key), first.get(key), socket.gethostname())
        dist.all_gather_object(differences, own)
        rank = next(rank for rank, difference in enumerate(differences) if difference is not None)
        key, here, there, host = differences[rank]
        raise ConfigError(
            f"{what} is {here} on rank {rank} ({host}) and {there} on rank 0",
            key=key or None,
            hint="start all ranks with the same command and files",
        )


def join(device: str = "auto", timeout_s: float = 600.0, *, key: str = "device") -> World:
    """Joins the processes that a launcher announced, or stands alone without them.

    Args:
        device: ``auto`` (an accelerator where there is one), ``cpu``, ``cuda``, ...
        timeout_s: longest wait for another process, now and in all communication later.
        key: what the user calls the device.

    Raises:
        RunError: where a process did not join in time; it names the missing ranks.
        ConfigError: where a process runs another version, or has no device of its own.
    """
    launch = launched()
    kind = pick_device(device, key)
    own = torch.device("cpu") if kind == "cpu" else torch.device(kind, _own_device(launch))
    if kind != "cpu":
        torch.accelerator.set_device_index(own.index)
    if launch.size > 1 and not dist.is_initialized():
        _same_interface()
        store = rendezvous(launch, timeout_s)
        backend = "gloo" if kind == "cpu" else dist.get_default_backend_for_device(own)
        limit = datetime.timedelta(seconds=timeout_s)
        # Groups that know their device connect at once, here, and barriers need not guess it.
        bound = None if kind == "cpu" else own
        dist.init_process_group(
            backend, store=store, rank=launch.rank, world_size=launch.size, timeout=limit, device_id=bound
        )
    return World(launch.rank, launch.size, own)


def _same_interface() -> None:
    """Lets gloo, by which checkpoints are agreed on, take the network that NCCL was told to take.

    Left alone it takes the one by which a node finds its own name, which may reach no other node.
    """
    wanted = os.environ.get("NCCL_SOCKET_IFNAME", "")
    if wanted and not wanted.startswith("^") and "GLOO_SOCKET_IFNAME" not in os.environ:
        names = [name for _, name in socket.if_nameindex()]
        exact, prefixes = wanted.startswith("="), wanted.removeprefix("=").split(",")
        found = [n for prefix in prefixes for n in names if n == prefix or (not exact and n.startswith(prefix))]
        if found:
            os.environ["GLOO_SOCKET_IFNAME"] = found[0]


def _own_device(launch: Launch) -> int:
    """Returns which of the visible accelerators is this process's."""
    count = torch.accelerator.device_count()
    if launch.local_rank < count:
        return launch.local_rank
    if count == 1 and not launch.agent:
        return 0  # srun --gpus-per-task=1, say, shows each process its own device only
    raise ConfigError(
        f"rank {launch.rank} on {launch.host} has no device of its own: its node has {count}, and it is process "
        f"{launch.local_rank + 1} there",
        key="trainer.device",
        hint=f"start {count} a node, e.g. torchrun --nproc-per-node {count}, or use trainer.device=cpu",
    )


def use_threads(count: int | None, key: str) -> None:
    """Lets torch compute on a number of threads; None leaves its choice.

    Raises:
        ConfigError: for many more than the machine has cores, which would end the process.
    """
    if count is None:
        return
    most = max(64, 4 * (os.cpu_count() or 1))
    if count > most:
        raise ConfigError(f"must be at most {most} on this machine, got {count}", key=key, hint=f"try {key}=1")
    torch.set_num_threads(count)


def pick_device(device: str, key: str = "device") -> str:
    """Returns the accelerator of this machine for ``auto``, or ``cpu`` where there is none that has float64, in which
    energies and positions are kept.

    Raises:
        ConfigError: for a device that this machine does not have.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    available = accelerator.type if accelerator is not None else "cpu"
    if device not in ("auto", "cpu", available):
        raise ConfigError(f"must be a device of this machine, got {device!r}", key=key, hint=f"try {available}")
    if device == "auto":
        return available if widest_float(available) == torch.float64 else "cpu"
    return device


def _leaves(value: Any) -> dict[str, str]:
    """Returns leaves of nested mappings as text, by dotted key."""
    return {key: json.dumps(leaf, default=str, sort_keys=True) for key, leaf in flat(value).items()}
