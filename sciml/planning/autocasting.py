"""What autocast does on an accelerator, where nothing is run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

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
here use them. Norms count most: what they hand on is twice as wide, in memory and between ranks.
"""


@contextmanager
def accelerator_autocast() -> Iterator[None]:
    """Lets autocast on the CPU do what it does on an accelerator."""
    library = torch.library.Library("aten", "IMPL")
    try:
        for name in _IN_FLOAT32:
            packet, _, overload = name.partition(".")
            operator = getattr(getattr(torch.ops.aten, packet), overload or "default")
            library.impl(name, partial(_widened, operator), "AutocastCPU")
        yield
    finally:
        library._destroy()


def _widened(operator: Any, *args: Any, **kwargs: Any) -> Any:
    args, kwargs = tree_map(_wide, (args, kwargs))
    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)):
        return operator(*args, **kwargs)


def _wide(value: Any) -> Any:
    is_half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if is_half else value
