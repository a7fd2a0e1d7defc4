"""How a step is carried out: forward, backward, reduction over ranks, clipping, update."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sciml.core.errors import ConfigError, RunError
from sciml.dist.world import World
from sciml.domain.protocol import LossOutput, Task
from sciml.training.config import OptimConfig
from sciml.training.optimizer import build_optimizer


@dataclass(frozen=True)
class StepOutput:
    """What a training step tells: means over the global batch, and the gradient norm before clipping."""

    loss: float
    parts: Mapping[str, float]
    grad_norm: float


class Engine(Protocol):
    """Carries out training steps. One for torch alone, one for DeepSpeed; trainer and checkpoints see only this."""

    module: nn.Module

    def train_step(self, task: Task, batches: Sequence[Any], lr: float) -> StepOutput: ...

    def evaluation(self) -> contextlib.AbstractContextManager[nn.Module]: ...

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, state: Mapping[str, Tensor]) -> None: ...


class NativeEngine:
    """Training on torch alone: one process, or data parallel over all of them.

    Args:
        model: built and initialized, on the world's device.
        precision: ``fp32``, ``bf16`` or ``fp16``.
    """

    def __init__(self, model: nn.Module, optim: OptimConfig, world: World, precision: str = "fp32") -> None:
        self.module = model
        self.world = world
        self.optimizer = build_optimizer(model, optim)
        self.clip_norm = optim.clip_norm
        self.forward = DistributedDataParallel(model) if world.size > 1 else model
        self.dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        if precision == "fp16" and world.device.type == "cpu":
            raise ConfigError("fp16 needs an accelerator", key="trainer.precision", hint="use bf16 or fp32 on a CPU")
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=precision == "fp16")

    def autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.world.device.type, dtype=self.dtype, enabled=self.dtype is not None)

    @contextlib.contextmanager
    def evaluation(self):
        """The bare model in evaluation mode, under the training's precision."""
        self.module.eval()
        try:
            with torch.no_grad(), self.autocast():
                yield self.module
        finally:
            self.module.train()

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
        outputs = []
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            sync = contextlib.nullcontext() if last else self._without_sync()
            with sync:
                with self.autocast():
                    output = task.loss(self.forward, batch)
                self.scaler.scale(output.loss * output.weight).backward()
            outputs.append(output)
        # A loss that is not finite on one rank makes the sum so on all, and all stop together.
        loss, parts, weight = self._means(outputs)
        if not math.isfinite(loss):
            raise RunError(f"the loss is not finite, {self._first_non_finite(batches)}")
        self.scaler.unscale_(self.optimizer)
        # DDP has averaged the ranks' gradients; the sum over ranks, divided by the whole weight, is the mean.
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, self.world.size / weight)
        norm = nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm) and not self.scaler.is_enabled():
            raise RunError(f"the gradient is not finite: {self._first_non_finite_gradient()}")
        if self.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.module.parameters(), self.clip_norm, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return StepOutput(loss, parts, norm.item())

    def _without_sync(self) -> contextlib.AbstractContextManager:
        if isinstance(self.forward, DistributedDataParallel):
            return self.forward.no_sync()
        return contextlib.nullcontext()

    def _means(self, outputs: Sequence[LossOutput]) -> tuple[float, dict[str, float], float]:
        names = list(outputs[0].parts)
        sums = torch.zeros(2 + len(names), dtype=torch.float64)
        for output in outputs:
            values = [output.loss.detach(), *(output.parts[name] for name in names)]
            row = torch.stack([torch.as_tensor(v, dtype=torch.float64, device="cpu") for v in values])
            sums += torch.cat([torch.ones(1, dtype=torch.float64), row]) * output.weight
        self.world.add([sums])
        weight, *means = sums.tolist()
        means = [value / weight for value in means]
        return means[0], dict(zip(names, means[1:], strict=True)), weight

    def _first_non_finite(self, batches: Sequence[Any]) -> str:
        tensors = {f"parameter {name}": value.detach() for name, value in self.module.named_parameters()}
        for number, batch in enumerate(batches):
            fields = vars(batch).items() if hasattr(batch, "__dict__") else ()
            tensors |= {f"{name} of micro-batch {number}": v for name, v in fields if isinstance(v, Tensor)}
        for name, value in tensors.items():
            if not torch.isfinite(value).all():
                return f"first in {name}"
        return (
            f"though parameters and batch are on rank {self.world.rank}: the forward pass overflowed there or elsewhere"
        )

    def _first_non_finite_gradient(self) -> str:
        for name, parameter in self.module.named_parameters():
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                return f"first in the parameter {name!r}"
        return "the global norm overflowed"

    def state(self) -> dict[str, Tensor]:
        """Weights, optimizer moments and loss scale, by name."""
        state = {f"model.{name}": value for name, value in self.module.state_dict().items()}
        for name, parameter in self.module.named_parameters():
            for key, value in self._moments(parameter).items():
                state[f"optim.{name}.{key}"] = value
        if self.scaler.is_enabled():
            state["scaler.scale"] = torch.tensor(self.scaler.get_scale())
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a state of the same names and shapes."""
        model = {name.removeprefix("model."): v for name, v in state.items() if name.startswith("model.")}
        self.module.load_state_dict(model)
        for name, parameter in self.module.named_parameters():
            for key, moment in self._moments(parameter).items():
                moment.copy_(state[f"optim.{name}.{key}"])
        if self.scaler.is_enabled():
            self.scaler.update(float(state["scaler.scale"]))

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Optimizer tensors of a parameter; made as the optimizer's first step would make them."""
        moments = self.optimizer.state[parameter]
        if not moments and isinstance(self.optimizer, torch.optim.AdamW):
            zeros = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            moments.update(step=torch.tensor(0.0), exp_avg=zeros, exp_avg_sq=zeros.clone())
        elif not moments and isinstance(self.optimizer, torch.optim.SGD):
            moments.update(momentum_buffer=torch.zeros_like(parameter))
        return {key: value for key, value in moments.items() if isinstance(value, Tensor)}
