"""The processes of a run: one without any environment, or as many as a launcher such as torchrun started."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sciml.core.errors import ConfigError


@dataclass(frozen=True)
class World:
    """This process among its peers.

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

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Adds tensors over all processes, in place."""
        if self.size > 1:
            for tensor in tensors:
                on_wire = tensor.to(self.device)
                dist.all_reduce(on_wire)
                tensor.copy_(on_wire)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        votes = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        return bool(votes.item())

    def share(self, value: Any) -> Any:
        """What process 0 holds."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


def join(device: str = "auto", timeout_s: float = 600.0) -> World:
    """Joins the processes that a launcher announced through RANK and WORLD_SIZE, or stands alone without them.

    Args:
        device: ``auto`` (an accelerator where there is one), ``cpu``, ``cuda``, ...
        timeout_s: longest wait for another process before the run is given up.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    kind = pick_device(device)
    if kind != "cpu":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        place = torch.device(kind, local)
        torch.accelerator.set_device_index(local)
    else:
        place = torch.device("cpu")
    if size > 1 and not dist.is_initialized():
        backend = "gloo" if kind == "cpu" else dist.get_default_backend_for_device(place)
        dist.init_process_group(backend, timeout=datetime.timedelta(seconds=timeout_s))
    return World(rank, size, place)


def pick_device(device: str) -> str:
    """``auto`` resolved to the accelerator of this machine, or to ``cpu``.

    Raises:
        ConfigError: for a device that this machine does not have.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    found = accelerator.type if accelerator is not None else "cpu"
    if device not in ("auto", "cpu", found):
        raise ConfigError(f"this machine has no {device!r}", key="device", hint=f"auto takes what is there: {found}")
    return found if device == "auto" else device
