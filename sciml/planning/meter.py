"""One forward and backward pass that is pretended, and what each part of the model does and keeps in it."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from sciml.dist.mesh import Mesh
from sciml.dist.traffic import Count, Traffic
from sciml.domain.protocol import LossOutput
from sciml.planning.autocasting import accelerator_autocast
from sciml.planning.facts import FLOAT32

FIRST, LAST = "first", "last"
Loss = Callable[[nn.Module, Any], LossOutput]
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


class Parts:
    """Says which part of a model is at work: ``first``, each block by its number, or ``last``.

    What a task does before it calls the model counts as ``first``, what it does behind as ``last``.

    Args:
        blocks: those of the model's modules that are blocks, in order.
        enter: is told of each change.

    Attributes:
        flow: tensors that went into the first block: the tokens, and whatever depends on parameters.
        calls: how often the model was called.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[nn.Module], enter: Callable[[str], None]) -> None:
        self.enter, self.is_forward = enter, True
        self.flow: tuple[Tensor, ...] = ()
        self.calls = 0
        self.handles = [model.register_forward_pre_hook(self._model_is_called)]
        for number, block in enumerate(blocks):
            self.handles.append(block.register_forward_pre_hook(self._before(number)))
            self.handles.append(block.register_forward_hook(self._behind(number)))

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _model_is_called(self, *_: Any) -> None:
        self.calls += 1
        self.enter(FIRST)

    def _before(self, number: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            if not self.is_forward:  # computed again
                return
            self.enter(str(number))
            if number == 0 and args[0].requires_grad:
                self.flow = tuple(value for value in args if isinstance(value, Tensor) and value.requires_grad)
                # In the backward pass its gradient is the last that the blocks compute.
                args[0].register_hook(lambda _: self.enter(FIRST))

        return hook

    def _behind(self, number: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, output: Tensor) -> None:
            if self.is_forward:
                if output.requires_grad:
                    output.register_hook(lambda _: self.enter(str(number)))
                self.enter(LAST)

        return hook


@dataclass(frozen=True)
class Measured:
    """A pass of one micro-batch.

    Attributes:
        done: work by phase and part.
        messages: what crossed ranks, by phase and part.
        kept: bytes by part that the forward pass left.
        at_end: the same before autocast let go of what it had cast.
        more: by part, the most bytes that there were in the backward pass beyond what had been kept up to this part.
        attention: operations of the forward pass in which tokens are mixed.
        flow, calls: as :class:`Parts` found them.
        loss_parts: named parts of the loss.
    """

    done: Mapping[Place, Done]
    messages: Mapping[Place, Mapping[tuple[str, str], Count]]
    kept: Mapping[str, int]
    at_end: Mapping[str, int]
    more: Mapping[str, int]
    attention: float
    flow: tuple[Tensor, ...]
    calls: int
    loss_parts: int


class _Letters:
    """Books what crosses ranks on the part at work."""

    def __init__(self, mesh: Mesh) -> None:
        self.traffic = Traffic(mesh)
        self.messages: dict[Place, dict[tuple[str, str], Count]] = defaultdict(dict)
        self._booked: dict[tuple[str, str], Count] = {}

    def book(self, place: Place) -> None:
        table = {(axes, kind): c for axes, kinds in self.traffic.table().items() for kind, c in kinds.items()}
        for key, count in table.items():
            old = self._booked.get(key, Count())
            if count.calls > old.calls:
                new = Count(count.calls - old.calls, count.bytes - old.bytes, count.sent - old.sent)
                self.messages[place][key] = self.messages[place].get(key, Count()) + new
        self._booked = table


def measure(
    loss: Loss,
    model: nn.Module,
    blocks: Sequence[nn.Module],
    batch: Any,
    mesh: Mesh,
    dtype: torch.dtype | None,
    *,
    as_accelerator: bool,
) -> Measured:
    """A forward and a backward pass of a micro-batch, without the memory of parameters, their gradients and the batch.

    Args:
        model: whole, or cut over ``mesh``; its parameters have no numbers.
        blocks: those of its modules that are blocks, in order.
        dtype: of autocast; None does without.
        as_accelerator: whether autocast is that of an accelerator.
    """
    known = [*model.parameters(), *tensors_of(batch)]
    meter, letters = Meter(known, 1 if as_accelerator else FLOAT32), _Letters(mesh)

    def enter(part: str, phase: str | None = None) -> None:
        letters.book(meter.place)
        meter.place = phase or meter.place[0], part

    parts = Parts(model, blocks, enter)
    with ExitStack() as stack:
        stack.callback(parts.close)
        for parameter in model.parameters():
            if parameter.requires_grad:
                hook = parameter.register_post_accumulate_grad_hook(lambda p: meter.forget(p.grad))
                stack.callback(hook.remove)
        stack.enter_context(letters.traffic)
        stack.enter_context(meter)
        if as_accelerator:
            stack.enter_context(accelerator_autocast())
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            output = loss(model, batch)
            at_end = dict(meter.alive)
        kept, attention = dict(meter.alive), meter.attention
        enter(LAST, "backward")
        parts.is_forward = False
        meter.peaks.clear()
        output.loss.backward()
        enter(FIRST)
    more, so_far = {}, 0
    for part in (FIRST, *map(str, range(len(blocks))), LAST):
        so_far += kept.get(part, 0)
        more[part] = max(0, meter.peaks.get(part, 0) - so_far)
    found = meter.done, letters.messages, kept, at_end, more, attention
    return Measured(*found, parts.flow, parts.calls, len(output.parts))


def tensors_of(batch: Any) -> Iterator[Tensor]:
    """All tensors in a batch, whatever records and mappings it is made of."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors_of(value)
    elif is_dataclass(batch):
        for field in fields(batch):
            yield from tensors_of(getattr(batch, field.name))
