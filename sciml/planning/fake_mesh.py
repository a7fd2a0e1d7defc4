"""A mesh of ranks that are not there, and a model on it whose parameters have shapes only."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.parallel.config import ParallelConfig


@contextmanager
def pretended_mesh(degrees: dict[str, int], rank: int = 0) -> Iterator[Mesh]:
    """The mesh of one rank among others that answer at once and with nothing, in this process alone.

    Raises:
        RuntimeError: where this process has met others already.
    """
    config = ParallelConfig(**degrees)  # type: ignore[arg-type]
    size = math.prod(config.given.values())
    if size == 1:
        yield Mesh.alone()
        return
    if dist.is_initialized():
        raise RuntimeError("this process has met others; a plan needs one that has not")
    # The backend of torch's own tests: registered by this import.
    from torch.testing._internal.distributed.fake_pg import FakeStore

    hook = sys.excepthook
    dist.init_process_group("fake", rank=rank, world_size=size, store=FakeStore())
    sys.excepthook = hook  # torch would put the rank before each line of an error, once for each mesh
    try:
        yield Mesh(World(rank, size, torch.device("cpu")), config.degrees(size))
    finally:
        dist.destroy_process_group()


def without_numbers(model: nn.Module) -> None:
    """Turns parameters of the meta device into such that say they are on the CPU, and have no memory either.

    Autocast and the choice of attention kernels depend on where tensors are, and the meta device has neither. What
    never meets a parameter (positions, neighbor lists, refinement) is computed as always, so that shapes which depend
    on data are those of the data.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)

    def pretended(tensor: torch.Tensor) -> torch.Tensor:
        with fake:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")

    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(pretended(parameter), parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_meta:
                setattr(module, name, pretended(buffer))
