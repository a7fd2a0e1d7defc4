"""One forward and backward pass that is pretended, and what each part of the model does and keeps in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sciml.distributed.communication import CommunicationVolume, Count
from sciml.distributed.mesh import Mesh
from sciml.domain.protocol import LossOutput
from sciml.planning.autocasting import accelerator_autocast
from sciml.planning.facts import FLOAT32
from sciml.planning.meter import FIRST, LAST, Done, Meter, Place

Loss = Callable[[nn.Module, Any], LossOutput]


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
        self.traffic = CommunicationVolume(mesh)
        self.messages: dict[Place, dict[tuple[str, str], Count]] = defaultdict(dict)
        self._booked: dict[tuple[str, str], Count] = {}

    def book(self, place: Place) -> None:
        table = {(axes, kind): c for axes, kinds in self.traffic.table().items() for kind, c in kinds.items()}
        for key, count in table.items():
            old = self._booked.get(key, Count())
            if count.calls > old.calls:
                new = Count(count.calls - old.calls, count.bytes - old.bytes, count.wire_bytes - old.wire_bytes)
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
