"""One forward and backward pass, fake or real: operations, messages and memory of each stage of the model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.rounds import counted_rounds
from sciml.distributed.communication import CommunicationVolume, Count
from sciml.distributed.mesh import Mesh
from sciml.domain.protocol import LossOutput
from sciml.planning.costs import FLOAT32
from sciml.planning.fake_mesh import accelerator_autocast
from sciml.planning.fake_tensor import without_values
from sciml.planning.op_meter import CAST, EMBED, HEAD, Meter, OpCount, Scope

Loss = Callable[[nn.Module, Any], LossOutput]


class _StageTracker:
    """Tells which stage of the model is at work: ``embed``, each block by its number, or ``head``.

    What a task does before it calls the model counts as ``embed``, what it does behind as ``head``.

    Args:
        blocks: those of the model's modules that are blocks, in order.
        enter: is called with the stage at each change.

    Attributes:
        stage_activations: tensors that went into the first block: the tokens, and whatever depends on parameters.
        calls: how often the model was called.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[nn.Module], enter: Callable[[str], None]) -> None:
        self.enter, self.is_forward = enter, True
        self.stage_activations: tuple[Tensor, ...] = ()
        self.calls = 0
        self.handles = [model.register_forward_pre_hook(self._count_call)]
        for number, block in enumerate(blocks):
            self.handles.append(block.register_forward_pre_hook(self._before(number)))
            self.handles.append(block.register_forward_hook(self._behind(number)))

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _count_call(self, *_: Any) -> None:
        self.calls += 1
        self.enter(EMBED)

    def _before(self, number: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            if not self.is_forward:  # recomputed
                return
            self.enter(str(number))
            if number == 0 and args[0].requires_grad:
                self.stage_activations = tuple(t for t in args if isinstance(t, Tensor) and t.requires_grad)
                # In the backward pass its gradient is the last that the blocks compute.
                args[0].register_hook(lambda _: self.enter(EMBED))

        return hook

    def _behind(self, number: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, output: Float[Tensor, "..."]) -> None:
            if self.is_forward:
                if output.requires_grad:
                    output.register_hook(lambda _: self.enter(str(number)))
                self.enter(HEAD)

        return hook


@dataclass(frozen=True)
class PassProfile:
    """Holds the costs of a forward and backward pass of one micro-batch.

    Attributes:
        operations: by phase and stage.
        messages: communication volume by phase and stage.
        saved_activations: bytes by stage that the forward pass left.
        cast_weights: by stage, the most bytes of weights that autocast had cast.
        backward_workspace: by stage, the most bytes in the backward pass beyond those saved up to this stage.
        attention: FLOPs of the forward pass in attention.
        stage_activations, calls: see the tracker of stages.
        loss_parts: number of named parts of the loss.
    """

    operations: Mapping[Scope, OpCount]
    messages: Mapping[Scope, Mapping[tuple[str, str], Count]]
    saved_activations: Mapping[str, int]
    cast_weights: Mapping[str, int]
    backward_workspace: Mapping[str, int]
    attention: float
    stage_activations: tuple[Tensor, ...]
    calls: int
    loss_parts: int


class _MessageLog:
    """Assigns communication volume to phases and stages."""

    def __init__(self, mesh: Mesh) -> None:
        self.volume = CommunicationVolume(mesh)
        self.messages: dict[Scope, dict[tuple[str, str], Count]] = defaultdict(dict)
        self._assigned: dict[tuple[str, str], Count] = {}

    def assign(self, scope: Scope) -> None:
        """Assigns what was sent since the last call to a scope."""
        table = {(axes, kind): c for axes, kinds in self.volume.table().items() for kind, c in kinds.items()}
        for key, count in table.items():
            old = self._assigned.get(key, Count())
            if count.calls > old.calls:
                new = Count(count.calls - old.calls, count.bytes - old.bytes, count.wire_bytes - old.wire_bytes)
                self.messages[scope][key] = self.messages[scope].get(key, Count()) + new
        self._assigned = table


def profile_pass(
    loss: Loss,
    model: nn.Module,
    blocks: Sequence[nn.Module],
    batch: Any,
    mesh: Mesh,
    dtype: torch.dtype | None,
    *,
    as_accelerator: bool,
    reads_values: bool = True,
) -> PassProfile:
    """Profiles a forward and a backward pass, without the memory of parameters, their gradients and the batch.

    Args:
        model: whole, or cut over ``mesh``; its parameters may be fake.
        blocks: those of its modules that are blocks, in order.
        dtype: of autocast; None does without.
        as_accelerator: whether autocast is that of an accelerator.
        reads_values: whether all that is real is computed; else what is large is not.
    """
    existing, own = [*model.parameters(), *tensors_of(batch)], {} if reads_values else {"run": without_values}
    meter, log = Meter(existing, 1 if as_accelerator else FLOAT32, model.parameters(), **own), _MessageLog(mesh)

    def enter(stage: str, phase: str | None = None) -> None:
        log.assign(meter.scope)
        meter.scope = phase or meter.scope[0], stage

    tracker = _StageTracker(model, blocks, enter)
    with ExitStack() as stack:
        stack.callback(tracker.close)
        for parameter in model.parameters():
            if parameter.requires_grad:
                hook = parameter.register_post_accumulate_grad_hook(lambda p: meter.forget(p.grad))
                stack.callback(hook.remove)
        stack.enter_context(log.volume)
        stack.enter_context(meter)
        if as_accelerator:
            stack.enter_context(accelerator_autocast())
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None), counted_rounds(meter.weigh):
            output = loss(model, batch)
        saved, attention = dict(meter.alive), meter.attention
        enter(HEAD, "backward")
        tracker.is_forward = False
        casts = {stage: size for stage, size in meter.peaks.items() if stage.endswith(CAST)}
        meter.peaks.clear()
        with counted_rounds(meter.weigh):
            output.loss.backward()
        enter(EMBED)
    for stage, size in meter.peaks.items():
        if stage.endswith(CAST):
            casts[stage] = max(size, casts.get(stage, 0))
    casts = {stage.removesuffix(CAST): size for stage, size in casts.items()}
    workspace, so_far = {}, 0
    for stage in (EMBED, *map(str, range(len(blocks))), HEAD):
        so_far += saved.get(stage, 0)
        workspace[stage] = max(0, meter.peaks.get(stage, 0) - so_far)
    costs = meter.counts, log.messages, saved, casts, workspace, attention
    return PassProfile(*costs, tracker.stage_activations, tracker.calls, len(output.parts))


def tensors_of(batch: Any) -> Iterator[Tensor]:
    """Yields all tensors of a batch, whatever records and mappings it consists of."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors_of(value)
    elif is_dataclass(batch):
        for field in fields(batch):
            yield from tensors_of(getattr(batch, field.name))
