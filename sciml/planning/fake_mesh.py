"""A mesh of ranks that do not exist, and an accelerator's autocast on the CPU."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map

from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.nn import norm
from sciml.parallel.config import ParallelConfig

_IN_FLOAT32 = (
    "layer_norm",
    "group_norm",
    "softmax.int",
    "log_softmax.int",
    "sum",
    "sum.dim_IntList",
    "cumsum",
    "exp",
    "pow.Tensor_Scalar",
    "pow.Tensor_Tensor",
)
"""Operators that autocast keeps in float32 on an accelerator and not on the CPU.

Source: the documentation of torch (Automatic Mixed Precision, CUDA Ops that can autocast to float32), as far as models
here use them. Norms count most: their outputs are twice as wide, in memory and between ranks.
"""


@contextmanager
def fake_mesh(degrees: dict[str, int], rank: int = 0) -> Iterator[Mesh]:
    """Opens the mesh of one rank among others that do not exist: collectives return at once, without data.

    Raises:
        RuntimeError: where this process belongs to a process group already.
    """
    config = ParallelConfig(**degrees)  # type: ignore[arg-type]
    size = math.prod(config.given.values())
    if size == 1:
        yield Mesh.alone()
        return
    if dist.is_initialized():
        raise RuntimeError("this process belongs to a process group; a fake mesh needs one that does not")
    # The backend of torch's own tests: registered by this import.
    from torch.testing._internal.distributed.fake_pg import FakeStore

    hook = sys.excepthook
    dist.init_process_group("fake", rank=rank, world_size=size, store=FakeStore())
    sys.excepthook = hook  # torch would put the rank before each line of an error, once for each mesh
    try:
        yield Mesh(World(rank, size, torch.device("cpu")), config.degrees(size))
    finally:
        dist.destroy_process_group()


@contextmanager
def accelerator_autocast() -> Iterator[None]:
    """Makes autocast on the CPU cast as it does on an accelerator, and composed norms cost what fused ones do."""
    library = torch.library.Library("aten", "IMPL")
    kernel, norm.rms_kernel = norm.rms_kernel, _fused_rms_norm
    try:
        for name in _IN_FLOAT32:
            packet, _, overload = name.partition(".")
            operator = getattr(getattr(torch.ops.aten, packet), overload or "default")
            library.impl(name, partial(_in_float32, operator), "AutocastCPU")
        yield
    finally:
        library._destroy()
        norm.rms_kernel = kernel


def _fused_rms_norm(x: Any, shape: Any, weight: Any, eps: float | None) -> Any:
    """Stands in for the kernel of accelerators: it reads, writes and keeps what that of a layer norm does."""
    return F.layer_norm(x, shape, weight, None, 1e-5 if eps is None else eps)


def _in_float32(operator: Any, *args: Any, **kwargs: Any) -> Any:
    args, kwargs = tree_map(_widened, (args, kwargs))
    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)):
        return operator(*args, **kwargs)


def _widened(value: Any) -> Any:
    is_half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if is_half else value
