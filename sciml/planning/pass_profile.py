"""One forward and backward pass, fake or real: operations, messages and memory of each stage of the model."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sciml.distributed.communication import CommunicationVolume, Count
from sciml.distributed.mesh import Mesh
from sciml.domain.protocol import LossOutput
from sciml.planning.costs import FLOAT32
from sciml.planning.fake_mesh import accelerator_autocast
from sciml.planning.fake_tensor import storage_of

EMBED, HEAD = "embed", "head"
CAST = ":cast"
"""Behind the name of a stage: the memory of weights that autocast has cast there."""
Scope = tuple[str, str]
"""A phase (``forward``, ``backward``) and a stage of the model: ``embed``, a block by its number, or ``head``."""
Loss = Callable[[nn.Module, Any], LossOutput]


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

    Attributes:
        scope: the phase and stage that operations are counted for now.
        counts: operations by scope.
        attention: FLOPs of attention.
        alive: bytes by the stage that allocated them.
        peaks: by stage, the most bytes that were alive in all during it.
    """

    def __init__(self, existing: Iterable[Tensor] = (), least_width: int = 1, weights: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.least_width = least_width
        self.scope: Scope = ("forward", EMBED)
        self.counts: dict[Scope, OpCount] = defaultdict(OpCount)
        self.attention = 0.0
        self.alive: dict[str, int] = defaultdict(int)
        self.peaks: dict[str, int] = defaultdict(int)
        self.total = 0
        self._storages: dict[int, Any] = {}
        self._weights = {id(storage_of(weight)) for weight in weights}
        for tensor in existing:
            self._remember(tensor, counted=False)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        outputs = [result] if isinstance(result, Tensor) else list(_tensors_in(result))
        casts = func.overloadpacket is torch.ops.aten._to_copy and id(storage_of(args[0])) in self._weights
        for tensor in outputs:
            self._remember(tensor, counted=True, suffix=CAST if casts else "")
        if casts:
            self.counts[self.scope].cast_bytes += sum(tensor.nbytes for tensor in (args[0], *outputs))
        elif func.namespace == "aten" and not func.is_view and func.overloadpacket not in _NO_KERNELS:
            self._count(func.overloadpacket, args, kwargs, result, outputs)
        return result

    def _count(self, operator: Any, args: Any, kwargs: Any, result: Any, outputs: list[Tensor]) -> None:
        inputs = () if operator in _LOOK_UPS else _tensors_in((*args, *kwargs.values()))
        tensors = [*outputs, *inputs]
        size = sum(tensor.numel() * max(tensor.element_size(), self.least_width) for tensor in tensors)
        count = self.counts[self.scope]
        count.kernels += 1
        if operator not in _FLOPS:
            count.other_bytes += size
            return
        flops = _FLOPS[operator](*args, **kwargs, out_val=result)
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


def _tensors_in(values: Any) -> Iterator[Tensor]:
    """Yields the tensors among the arguments or the results of an operator, which nest in lists and tuples alone."""
    for value in values if isinstance(values, list | tuple) else (values,):
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors_in(value)


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
) -> PassProfile:
    """Profiles a forward and a backward pass, without the memory of parameters, their gradients and the batch.

    Args:
        model: whole, or cut over ``mesh``; its parameters may be fake.
        blocks: those of its modules that are blocks, in order.
        dtype: of autocast; None does without.
        as_accelerator: whether autocast is that of an accelerator.
    """
    existing = [*model.parameters(), *tensors_of(batch)]
    meter, log = Meter(existing, 1 if as_accelerator else FLOAT32, model.parameters()), _MessageLog(mesh)

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
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            output = loss(model, batch)
        saved, attention = dict(meter.alive), meter.attention
        enter(HEAD, "backward")
        tracker.is_forward = False
        casts = {stage: size for stage, size in meter.peaks.items() if stage.endswith(CAST)}
        meter.peaks.clear()
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
