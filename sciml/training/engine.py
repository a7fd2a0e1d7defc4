"""How a step is carried out: forward, backward, reduction over ranks, clipping, update."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sciml.core.errors import RunError
from sciml.distributed.axes import REPLICAS, Role
from sciml.distributed.collectives import add_in_buckets, add_of_ends
from sciml.domain.protocol import LossOutput, Task
from sciml.parallel.data import keep_whole, local, reshard, sync_gradients
from sciml.parallel.model import ParallelModel
from sciml.training.config import OptimConfig
from sciml.training.loss_scale import LossScale
from sciml.training.optimizer import build_optimizer, optimizer_spec, state_of


@dataclass(frozen=True)
class StepOutput:
    """What a training step tells: means over the global batch, and the gradient norm before clipping."""

    loss: float
    parts: Mapping[str, float]
    grad_norm: float


class Engine(Protocol):
    """Carries out training steps. One for torch alone, one for DeepSpeed; trainer and checkpoints see only this."""

    model: ParallelModel

    def train_step(self, task: Task, batches: Sequence[Any], lr: float) -> StepOutput:
        """One optimizer step on this rank's micro-batches."""
        ...

    def evaluation(self) -> contextlib.AbstractContextManager[nn.Module]:
        """The whole model in evaluation mode, under the training's precision, without gradients."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """This rank's parts of the parameters, by name; what is written into them is what the model computes with."""
        ...

    def stored(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor like this rank's part of a parameter, as it goes into a checkpoint."""
        ...

    def part(self, name: str, stored: Tensor) -> Tensor:
        """The way back from :meth:`stored`: this rank's part."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Weights, optimizer moments and loss scale, by name, as they go into a checkpoint."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a state of the same names and shapes."""
        ...


class NativeEngine:
    """Training on torch alone.

    Args:
        model: built and initialized.
        precision: ``fp32``, ``bf16`` or ``fp16`` (with a loss scale).
    """

    def __init__(self, model: ParallelModel, optim: OptimConfig, precision: str = "fp32") -> None:
        self.model, self.mesh = model, model.mesh
        self.spec = optimizer_spec(optim)
        self.optimizer = build_optimizer(dict(model.named_parameters()), model.placements, optim)
        self.clip_norm = optim.clip_norm
        self.dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.scale = LossScale(enabled=precision == "fp16")
        self.forward = self._replicated()

    def _replicated(self) -> nn.Module:
        """The model, with its gradients averaged over replicas while the backward pass goes on.

        A pipeline's are added behind its last backward pass instead: torch's schedules call autograd in ways that
        DistributedDataParallel does not see.
        """
        replicas = self.mesh.group(*REPLICAS)
        if self.model.pipeline is not None or self.mesh.size(Role.SHARD) > 1 or replicas is None:
            return self.model.module
        return DistributedDataParallel(self.model.module, process_group=replicas)

    def autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.mesh.device.type, dtype=self.dtype, enabled=self.dtype is not None)

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[nn.Module]:
        self.model.module.eval()
        reshard(self.model.roots)  # weights may have changed since they were last gathered
        try:
            with torch.no_grad(), self.autocast():
                yield self.model.whole
        finally:
            reshard(self.model.roots)
            self.model.module.train()

    def train_step(self, task: Task, batches: Sequence[Any], lr: float) -> StepOutput:
        """One optimizer step on this rank's micro-batches.

        The gradient is that of the mean over the whole global batch, also where micro-batches and ranks
        differ in weight.

        Raises:
            RunError: where the loss or a gradient is not finite; it names the tensor.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        outputs = self._pipelined(task, batches) if self.model.pipeline else self._in_turn(task, batches)
        # A loss that is not finite on one rank makes the sum so on all, and all stop together.
        loss, parts, weight = self._means(outputs)
        if not math.isfinite(loss):
            raise RunError(f"the loss is not finite, {self._first_non_finite(batches)}")
        gradients = {name: local(p.grad) for name, p in self.model.named_parameters() if p.grad is not None}
        factor = self._reduce(gradients) / weight / self.scale.value
        add_of_ends([gradients[name] for name in sorted(self.model.tied_names())], self.mesh.group(Role.STAGE))
        norm = self._norm(gradients) * factor
        finite = math.isfinite(norm)
        if finite:
            shrink = 1.0 if self.clip_norm is None else min(1.0, self.clip_norm / (norm + 1e-6))
            torch._foreach_mul_(list(gradients.values()), factor * shrink)
            self.optimizer.step()
            reshard(self.model.roots)
        elif not self.scale.enabled:
            raise RunError(f"the gradient is not finite: {_first_non_finite_gradient(gradients)}")
        self.scale.update(finite)
        return StepOutput(loss, parts, norm)

    def _in_turn(self, task: Task, batches: Sequence[Any]) -> list[LossOutput]:
        """Forward and backward pass of one micro-batch after the other."""
        outputs = []
        roots, twice, zero = self.model.roots, task.needs_double_backward, self.model.config.zero
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            sync_gradients(roots, last or zero > 1)
            with contextlib.nullcontext() if last else self._without_sync():
                keep_whole(roots, twice)
                with self.autocast():
                    output = task.loss(self.forward, batch)
                keep_whole(roots, zero < 3 and not last)
                (output.loss * (output.weight * self.scale.value)).backward()
            outputs.append(output)
        return outputs

    def _pipelined(self, task: Task, batches: Sequence[Any]) -> list[LossOutput]:
        """The same through the pipeline; only its last rank gets to see the outputs."""
        assert self.model.pipeline is not None
        outputs: list[LossOutput] = []

        def loss(model: Any, batch: Any) -> Tensor:
            output = task.loss(model, batch)
            outputs.append(output)
            return (output.loss * (output.weight * self.scale.value)).reshape(1)

        self.model.pipeline.step(loss, batches, self.autocast)
        return outputs

    def _without_sync(self) -> contextlib.AbstractContextManager:
        if isinstance(self.forward, DistributedDataParallel):
            return self.forward.no_sync()
        return contextlib.nullcontext()

    def _reduce(self, gradients: Mapping[str, Tensor]) -> float:
        """Adds what is still to be added over ranks.

        Returns:
            Over how many ranks gradients were averaged instead of added.
        """
        add_in_buckets(
            [g for name, g in gradients.items() if name in self.model.partial_sums], self.mesh.group(Role.MATRIX)
        )
        everything = list(gradients.values())
        if self.mesh.size(Role.SHARD) > 1:
            add_in_buckets(everything, self.mesh.group(Role.TOKEN))
            return self.mesh.num_data_ranks
        if self.model.pipeline is not None:
            add_in_buckets(everything, self.mesh.group(*REPLICAS))
            return 1
        return self.mesh.size(*REPLICAS)

    def _norm(self, gradients: Mapping[str, Tensor]) -> float:
        """Norm of all gradients of the whole model, as they are."""
        squares = torch.zeros(2, dtype=torch.float64)
        gradients = {name: g for name, g in gradients.items() if self.model.counts(name)}
        for cut in (False, True):
            chosen = [g for name, g in gradients.items() if (name in self.model.cut_dims) is cut and g.numel()]
            if chosen:
                squares[int(cut)] = torch.stack(torch._foreach_norm(chosen)).double().square().sum()
        if self.mesh.size(Role.SHARD) > 1:
            self.mesh.add([squares], Role.SHARD)
        self.mesh.add([squares[1:]], Role.MATRIX)
        total = squares.sum()
        self.mesh.add([total], Role.STAGE)
        return math.sqrt(total.item())

    def _means(self, outputs: Sequence[LossOutput]) -> tuple[float, dict[str, float], float]:
        """Loss and parts over the global batch, and its weight."""
        found: Any = None
        if outputs:
            names = list(outputs[0].parts)
            sums = torch.zeros(2 + len(names), dtype=torch.float64)
            for output in outputs:
                values = [output.loss.detach(), *(output.parts[name] for name in names)]
                row = torch.stack([torch.as_tensor(v, dtype=torch.float64, device="cpu") for v in values])
                sums += torch.cat([torch.ones(1, dtype=torch.float64), row]) * output.weight
            self.mesh.add([sums])
            weight, *means = sums.tolist()
            means = [value / weight for value in means]
            found = means[0], dict(zip(names, means[1:], strict=True)), weight
        if self.model.pipeline is not None:
            box = [found]
            dist.broadcast_object_list(box, group_src=self.mesh.size(Role.STAGE) - 1, group=self.mesh.group(Role.STAGE))
            found = box[0]
        return found

    def _first_non_finite(self, batches: Sequence[Any]) -> str:
        tensors = {f"parameter {name}": value for name, value in self.weights().items()}
        for number, batch in enumerate(batches):
            fields = vars(batch).items() if hasattr(batch, "__dict__") else ()
            tensors |= {f"{name} of micro-batch {number}": v for name, v in fields if isinstance(v, Tensor)}
        for name, value in tensors.items():
            if not torch.isfinite(value).all():
                return f"first in {name}"
        return (
            f"though parameters and batch are on rank {self.mesh.world.rank}: "
            "the forward pass overflowed there or elsewhere"
        )

    def weights(self) -> dict[str, Tensor]:
        return {name: local(p.detach()) for name, p in self.model.named_parameters()}

    def stored(self, name: str, tensor: Tensor) -> Tensor:
        return self.model.stored(name, tensor)

    def part(self, name: str, stored: Tensor) -> Tensor:
        return local(stored)

    def state(self) -> dict[str, Tensor]:
        state = {f"model.{name}": self.stored(name, value) for name, value in self.weights().items()}
        state |= {f"model.{name}": value for name, value in self.model.buffers().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self._optimizer_state(name, parameter).items():
                state[f"optim.{name}.{key}"] = self.stored(name, value)
        return state | self.scale.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        for name, value in {**self.weights(), **self.model.buffers()}.items():
            value.copy_(local(state[f"model.{name}"]))
        for name, parameter in self.model.named_parameters():
            for key, moment in self._optimizer_state(name, parameter).items():
                local(moment).copy_(local(state[f"optim.{name}.{key}"]))
        self.scale.load_state(state)

    def _optimizer_state(self, name: str, parameter: nn.Parameter) -> dict[str, Tensor]:
        return state_of(self.optimizer, parameter, self.spec.rule(self.model.placements[name]))


def _first_non_finite_gradient(gradients: Mapping[str, Tensor]) -> str:
    for name, gradient in gradients.items():
        if not torch.isfinite(gradient).all():
            return f"first in the parameter {name!r}"
    return "the global norm overflowed, perhaps on another rank"
