"""Finds what makes the host wait for an accelerator, on machines that have none."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

READS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
"""Marks operators whose result, or its shape, the host has to wait for."""


INDEXING = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default}
"""Lists operators of which only masks are counted first."""


class HostRead(NamedTuple):
    """Says what read values of a tensor, and in which function of this project."""

    operator: str
    function: str

    @classmethod
    def here(cls, operator: str) -> HostRead:
        frames = [frame for frame in traceback.extract_stack() if {"sciml", "domains"} & {*Path(frame.filename).parts}]
        names = [frame.name for frame in frames if frame.filename != __file__]
        return cls(operator, names[-1] if names else "")


def _is_mask(index: Shaped[Tensor, "..."] | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


class _Reads(TorchDispatchMode):
    def __init__(self, reads: list[HostRead]) -> None:
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if READS & {*func.tags} and (func not in INDEXING or any(map(_is_mask, args[1]))):
            self.reads.append(HostRead.here(str(func)))
        return func(*args, **(kwargs or {}))


@contextmanager
def host_reads() -> Iterator[list[HostRead]]:
    """Lists the operators that read values of tensors (``item``, ``float``, ``bool``, ``tolist``, ``nonzero``, masks as
    indices, ...) inside the ``with`` block, also in backward passes.
    """
    reads: list[HostRead] = []
    tolist = Tensor.tolist

    def listed(tensor: Shaped[Tensor, "..."]) -> Any:
        reads.append(HostRead.here("tolist"))
        return tolist(tensor)

    with _Reads(reads), torch.autograd.set_multithreading_enabled(False):
        Tensor.tolist = listed  # type: ignore
        try:
            yield reads
        finally:
            Tensor.tolist = tolist  # type: ignore
