"""Counts operations, and the memory that they leave alive, by phase and stage of a pass."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sciml.planning.fake_tensor import storage_of, tensors_among

EMBED, HEAD = "embed", "head"
CAST = ":cast"
"""Behind the name of a stage: the memory of weights that autocast has cast there."""
Scope = tuple[str, str]
"""A phase (``forward``, ``backward``) and a stage of the model: ``embed``, a block by its number, or ``head``."""


def _attention(query: Any, key: Any, *_: Any, **__: Any) -> int:
    batch, heads, queries, channels = query.shape
    return 4 * batch * heads * queries * key.shape[2] * channels


def _attention_backward(_: Any, query: Any, key: Any, *__: Any, **___: Any) -> int:
    # Scores and the gradients of all four factors: five products, where the forward pass has two.
    return _attention(query, key) * 5 // 2


_FLOPS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    # The kernel that attention takes on the CPU; torch's registry knows those of accelerators only.
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
_CAUSAL = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: 4,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: 7,
}
"""Position of the argument that says that a token sees those before it only, so that half of the work is left out."""
_LOOK_UPS = {
    torch.ops.aten.embedding,
    torch.ops.aten.gather,
    torch.ops.aten.index_select,
    torch.ops.aten.nll_loss_forward,
    torch.ops.aten.nll_loss_backward,
}
"""Operators that read of their first input only what they write."""
_NO_KERNELS = {torch.ops.aten._unsafe_view, torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.new_empty}


@dataclass
class OpCount:
    """Counts the operations of one micro-batch; :class:`sciml.planning.costs.OpCost` has them for any micro-batch."""

    flops: float = 0.0
    products: float = 0.0
    attention: float = 0.0
    operand_bytes: float = 0.0
    other_bytes: float = 0.0
    cast_bytes: float = 0.0
    kernels: int = 0


class Meter(TorchDispatchMode):
    """Counts all operations while it is open, and the memory that they leave alive.

    A tensor's memory counts once, however many views it has, and for as long as it is alive. That holds for what
    autograd saves, for what selective checkpointing keeps and for what autocast has cast alike; saved-tensor hooks see
    the first of these only.

    Args:
        existing: tensors that exist before, and count for nothing.
        least_width: the least bytes that an element counts for in operations. A CPU, which computes in float32 whatever
            the type, takes as long for an element of half the width: there it is 4.
        weights: parameters, whose casts to another precision are counted apart.
        run: carries out an operator, given its arguments.

    Attributes:
        scope: the phase and stage that operations are counted for now.
        counts: operations by scope.
        attention: FLOPs of attention.
        alive: bytes by the stage that allocated them.
        peaks: by stage, the most bytes that were alive in all during it.
        weight: how often each operation counts now, see :mod:`sciml.core.rounds`.
    """

    def __init__(
        self,
        existing: Iterable[Tensor] = (),
        least_width: int = 1,
        weights: Iterable[Tensor] = (),
        run: Callable[[Any, Any, Any], Any] = lambda func, args, kwargs: func(*args, **kwargs),
    ) -> None:
        super().__init__()
        self.least_width, self.run = least_width, run
        self.scope: Scope = ("forward", EMBED)
        self.counts: dict[Scope, OpCount] = defaultdict(OpCount)
        self.attention = 0.0
        self.alive: dict[str, int] = defaultdict(int)
        self.peaks: dict[str, int] = defaultdict(int)
        self.total = 0
        self.weight = 1
        self._storages: dict[int, Any] = {}
        self._weights = {id(storage_of(weight)) for weight in weights}
        for tensor in existing:
            self._remember(tensor, counted=False)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = self.run(func, args, kwargs)
        outputs = list(tensors_among([result]))
        casts = func.overloadpacket is torch.ops.aten._to_copy and id(storage_of(args[0])) in self._weights
        for tensor in outputs:
            self._remember(tensor, counted=True, suffix=CAST if casts else "")
        if casts:
            self.counts[self.scope].cast_bytes += sum(tensor.nbytes for tensor in (args[0], *outputs))
        elif func.namespace == "aten" and not func.is_view and func.overloadpacket not in _NO_KERNELS:
            self._count(func.overloadpacket, args, kwargs, result, outputs)
        return result

    def weigh(self, times: int) -> None:
        """Counts each operation so often from now on."""
        self.weight = times

    def _count(self, operator: Any, args: Any, kwargs: Any, result: Any, outputs: list[Tensor]) -> None:
        inputs = () if operator in _LOOK_UPS else tensors_among((*args, *kwargs.values()))
        tensors = [*outputs, *inputs]
        size = sum(tensor.numel() * max(tensor.element_size(), self.least_width) for tensor in tensors)
        size *= self.weight
        count = self.counts[self.scope]
        count.kernels += self.weight
        if operator not in _FLOPS:
            count.other_bytes += size
            return
        flops = self.weight * _FLOPS[operator](*args, **kwargs, out_val=result)
        count.flops += flops
        if "attention" in str(operator):
            self.attention += flops
            count.attention += flops / 2 if operator in _CAUSAL and args[_CAUSAL[operator] :][:1] == (True,) else flops
            count.other_bytes += size
        else:
            count.products += flops
            count.operand_bytes += size

    def _remember(self, tensor: Shaped[Tensor, "..."], *, counted: bool, suffix: str = "") -> None:
        storage = storage_of(tensor)
        key = id(storage)
        if key in self._storages:
            return
        stage, size = self.scope[1] + suffix, storage.nbytes() if counted else 0

        def freed(_: Any) -> None:
            if self._storages.pop(key, None) is not None:
                self._allocate(stage, -size)

        self._storages[key] = weakref.ref(storage, freed), stage, size
        self._allocate(stage, size)

    def _allocate(self, stage: str, size: int) -> None:
        self.alive[stage] += size
        if stage.endswith(CAST):
            self.peaks[stage] = max(self.peaks[stage], self.alive[stage])
            return
        self.total += size
        self.peaks[self.scope[1]] = max(self.peaks[self.scope[1]], self.total)

    def forget(self, tensor: Shaped[Tensor, "..."]) -> None:
        """Stops counting the memory of a tensor that belongs to the state."""
        key = id(storage_of(tensor))
        if key in self._storages:
            reference, stage, size = self._storages[key]
            self._allocate(stage, -size)
            self._storages[key] = reference, stage, 0
