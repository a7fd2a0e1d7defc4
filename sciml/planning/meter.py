"""The work of operations, and the memory that they leave alive, by what is at work."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

FIRST, LAST = "first", "last"
Place = tuple[str, str]
"""A phase (``forward``, ``backward``) and a part of the model."""


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape)


_FLOPS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    # The kernel that attention takes on the CPU; torch's registry knows those of accelerators only.
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
_NO_KERNELS = {torch.ops.aten._unsafe_view, torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.new_empty}


@dataclass
class Done:
    """Work of a part: as :class:`sciml.planning.facts.Effort`, of one micro-batch."""

    flops: float = 0.0
    operands: float = 0.0
    moved: float = 0.0
    kernels: int = 0


class Meter(TorchDispatchMode):
    """Counts the work of all operations while it is open, and the memory that they leave alive.

    A tensor's memory counts once, however many views it has, and for as long as it is alive. That holds for what
    autograd saves, for what selective checkpointing keeps aside and for what autocast has cast alike; saved-tensor
    hooks see the first of these only.

    Args:
        known: tensors that are there before, and count for nothing.
        least_width: bytes for which a number counts at least in the work. A CPU, which computes in float32 whatever the
            type, takes as long for a number of half the width: there it is 4.

    Attributes:
        place: what is at work now.
        done: work by place.
        attention: operations in which tokens are mixed.
        alive: bytes by the part that made them.
        peaks: by part, the most bytes that were alive in all while it was at work.
    """

    def __init__(self, known: Iterable[Tensor] = (), least_width: int = 1) -> None:
        super().__init__()
        self.least_width = least_width
        self.place: Place = ("forward", FIRST)
        self.done: dict[Place, Done] = defaultdict(Done)
        self.attention = 0.0
        self.alive: dict[str, int] = defaultdict(int)
        self.peaks: dict[str, int] = defaultdict(int)
        self.total = 0
        self._seen: dict[int, Any] = {}
        for tensor in known:
            self._remember(tensor, counted=False)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        outputs = [made] if isinstance(made, Tensor) else [t for t in tree_leaves(made) if isinstance(t, Tensor)]
        for tensor in outputs:
            self._remember(tensor, counted=True)
        if func.namespace == "aten" and not func.is_view and func.overloadpacket not in _NO_KERNELS:
            self._work(func.overloadpacket, args, kwargs, made, outputs)
        return made

    def _work(self, operator: Any, args: Any, kwargs: Any, made: Any, outputs: list[Tensor]) -> None:
        touched = [*outputs, *(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))]
        size = sum(tensor.numel() * max(tensor.element_size(), self.least_width) for tensor in touched)
        done = self.done[self.place]
        done.kernels += 1
        if operator not in _FLOPS:
            done.moved += size
            return
        flops = _FLOPS[operator](*args, **kwargs, out_val=made)
        done.flops += flops
        done.operands += size
        if "attention" in str(operator):
            self.attention += flops

    def _remember(self, tensor: Tensor, *, counted: bool) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._seen:
            return
        part, size = self.place[1], storage.nbytes() if counted else 0

        def gone(_: Any) -> None:
            if self._seen.pop(key, None) is not None:
                self._count(part, -size)

        self._seen[key] = weakref.ref(storage, gone), part, size
        self._count(part, size)

    def _count(self, part: str, size: int) -> None:
        self.alive[part] += size
        self.total += size
        self.peaks[self.place[1]] = max(self.peaks[self.place[1]], self.total)

    def forget(self, tensor: Tensor) -> None:
        """No longer counts a tensor: it belongs to the state."""
        found = self._seen.get(id(tensor.untyped_storage()))
        if found is not None:
            reference, part, size = found
            self._count(part, -size)
            self._seen[id(tensor.untyped_storage())] = reference, part, 0
