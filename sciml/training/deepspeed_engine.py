"""Training steps carried out by DeepSpeed: ZeRO, offload of the optimizer, and its pipeline."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sciml.core.errors import ConfigError, RunError
from sciml.distributed.axes import GRADIENTS, Role
from sciml.distributed.collectives import reduce
from sciml.domain.protocol import LossOutput, Task
from sciml.parallel.data import local
from sciml.parallel.model import ParallelModel
from sciml.training.config import OptimConfig
from sciml.training.deepspeed_setup import Ranks, Work, configuration, import_deepspeed, pipeline_module, quiet
from sciml.training.deepspeed_state import ShardedState
from sciml.training.engine import NativeEngine, StepOutput
from sciml.training.loss_scale import LossScale
from sciml.training.optimizer import build_optimizer, optimizer_spec


class DeepSpeedEngine(NativeEngine):
    """The same steps as on torch alone, with DeepSpeed reducing and clipping gradients and updating weights.

    DeepSpeed averages gradients over ranks. The mean over a global batch of unequal weights is reached by what it
    takes for a loss scale: it divides gradients by that before it clips them, and it may be set when all forward
    passes have told their weights.

    Args:
        model: on a mesh without ``shard``: DeepSpeed shards over all data-parallel ranks.
        stage: of ZeRO.
        offload: whether the optimizer is kept and run on the CPU.
        micro_batch: samples of a micro-batch.
        num_micro: micro-batches of a step.

    Raises:
        ConfigError: where DeepSpeed cannot train this model, or cannot be imported.
    """

    def __init__(
        self,
        model: ParallelModel,
        optim: OptimConfig,
        precision: str = "fp32",
        *,
        stage: int = 0,
        offload: bool = False,
        micro_batch: int = 1,
        num_micro: int = 1,
    ) -> None:
        self.model, self.mesh, self.stage = model, model.mesh, stage
        self.clip_norm = optim.clip_norm
        self.dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.scale = LossScale(enabled=precision == "fp16")
        self.num_ranks, self.micro_batch = self.mesh.size(*GRADIENTS), micro_batch
        self.outputs: list[LossOutput] = []
        self.batches: Sequence[Any] = ()
        self.result: StepOutput | None = None
        parameters = dict(model.named_parameters())
        check_precision(parameters)
        self._mark(parameters)
        self.spec = optimizer_spec(optim)
        self.optimizer = build_optimizer(parameters, model.placements, optim)
        config = configuration(
            stage=stage,
            offload=offload,
            clip_norm=self.clip_norm if stage else None,
            micro_batch=micro_batch,
            num_micro=num_micro,
        )
        self.engine = self._initialized(config)
        if stage > 0:
            self.sharded = ShardedState(self.engine.optimizer, self.optimizer, self.spec, model, stage)
            self.engine.optimizer._update_scale = self._overflowed
        # The one place that every stage of ZeRO and the pipeline pass when gradients are reduced.
        self.engine.optimizer.step = partial(self._finish, self.engine.optimizer.step)

    def _mark(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Says which parameters are cut by heads and channels, for the norm, and adds up gradients known in part."""
        group = self.mesh.group(Role.MATRIX)
        for name, parameter in parameters.items():
            if name in self.model.cut_dims:
                parameter.tensor_model_parallel = True  # type: ignore[attr-defined]
            if name in self.model.partial_sums:
                parameter.register_hook(partial(reduce, group=group))

    def _initialized(self, config: dict[str, Any]) -> Any:
        deepspeed = import_deepspeed(self.mesh)
        pipeline = self.model.pipeline
        with quiet():
            engine, *_ = deepspeed.initialize(
                model=Work(self.model.module) if pipeline is None else pipeline_module(pipeline, self.mesh),
                optimizer=self.optimizer,
                mpu=Ranks(self.mesh) if pipeline is None else None,
                config=config,
            )
        return engine

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[nn.Module]:
        self.model.module.eval()
        self._release()
        try:
            with torch.no_grad(), self.autocast():
                yield _Gathering(self.engine) if self.stage == 3 else self.model.whole
        finally:
            self._release()
            self.model.module.train()

    def _release(self) -> None:
        """Lets go of gathered weights, which do not notice when their parts are changed."""
        if self.stage == 3:
            self.engine.empty_partition_cache()

    def train_step(self, task: Task, batches: Sequence[Any], lr: float) -> StepOutput:
        """One optimizer step on this rank's micro-batches; as in the native engine.

        Raises:
            RunError: where the loss or a gradient is not finite; it names the tensor.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.outputs, self.batches, self.result = [], batches, None
        if self.model.pipeline is not None:
            self._through_pipeline(task, batches)
        else:
            self._one_by_one(task, batches)
        self.outputs, self.batches = [], ()
        assert self.result is not None
        return self.result

    def _weighted_loss(self, task: Task, model: Callable[..., Tensor], batch: Any) -> Tensor:
        output = task.loss(model, batch)  # type: ignore[arg-type]
        self.outputs.append(output)
        return output.loss * (output.weight * self.scale.value)

    def _one_by_one(self, task: Task, batches: Sequence[Any]) -> None:
        def work(model: nn.Module, batch: Any) -> Tensor:
            with self.autocast():
                return self._weighted_loss(task, model, batch)

        for number, batch in enumerate(batches):
            self.engine.set_gradient_accumulation_boundary(number == len(batches) - 1)
            self.engine.backward(self.engine(partial(work, batch=batch)))
            self.engine.step()

    def _through_pipeline(self, task: Task, batches: Sequence[Any]) -> None:
        assert self.model.pipeline is not None
        if len(batches) != self.engine.micro_batches:
            self.engine.set_train_batch_size(self.micro_batch * len(batches) * self.num_ranks)
        for stage in self.model.pipeline.stages.values():
            stage.begin(partial(self._weighted_loss, task), iter(batches), self.autocast)
        nothing = torch.zeros(1, device=self.mesh.device)  # stages have their batches already
        self.engine.train_batch(itertools.repeat((nothing, nothing)))

    def _finish(self, update: Callable[[], None]) -> None:
        """In the place of the optimizer's step: scales gradients to those of the mean over the global batch."""
        # A loss that is not finite on one rank makes the sum so on all, and all stop together.
        loss, parts, weight = self._means(self.outputs)
        if not math.isfinite(loss):
            raise RunError(f"the loss is not finite, {self._first_non_finite(self.batches)}")
        # DeepSpeed has averaged over ranks and micro-batches.
        divisor = weight * self.scale.value / self.num_ranks / self.engine.gradient_accumulation_steps()
        norm = self._plain_update(update, divisor) if self.stage == 0 else self._sharded_update(update, divisor)
        self.scale.update(math.isfinite(norm))
        self.result = StepOutput(loss, parts, norm)

    def _plain_update(self, update: Callable[[], None], divisor: float) -> float:
        """Without ZeRO DeepSpeed knows no loss scale, and would clip by a norm that it does not tell."""
        gradients = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        norm = self._norm(gradients) / divisor
        if math.isfinite(norm):
            shrink = 1.0 if self.clip_norm is None else min(1.0, self.clip_norm / (norm + 1e-6))
            torch._foreach_mul_(list(gradients.values()), shrink / divisor)
            update()
        elif not self.scale.enabled:
            raise RunError(f"the gradient is not finite: {_first_non_finite(gradients)}")
        return norm

    def _sharded_update(self, update: Callable[[], None], divisor: float) -> float:
        optimizer = self.engine.optimizer
        optimizer.override_loss_scale(divisor)
        try:
            update()
        finally:
            optimizer.override_loss_scale(1.0)  # it would multiply the next losses
        return float(optimizer._global_grad_norm)

    def _overflowed(self, overflow: bool) -> None:
        """DeepSpeed asks for a new loss scale when it knows whether gradients are finite, before it drops them."""
        if overflow and not self.scale.enabled:
            raise RunError(f"the gradient is not finite: {_first_non_finite(self.sharded.gradients())}")

    def weights(self) -> dict[str, Tensor]:
        return super().weights() if self.stage < 3 else self.sharded.weights()

    def stored(self, name: str, tensor: Tensor) -> Tensor:
        return super().stored(name, tensor) if self.stage < 3 else self.sharded.stored(name, tensor)

    def part(self, name: str, stored: Tensor) -> Tensor:
        """The way back from :meth:`stored`."""
        return local(stored) if self.stage < 3 else self.sharded.part(name, stored)

    def state(self) -> dict[str, Tensor]:
        if self.stage == 0:
            return super().state()
        state = {f"model.{name}": self.stored(name, value) for name, value in self.weights().items()}
        state |= {f"model.{name}": value for name, value in self.model.buffers().items()}
        return state | self.sharded.moments() | self.scale.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if self.stage == 0:
            super().load_state(state)
            return
        for name, value in self.weights().items():
            value.copy_(self.part(name, state[f"model.{name}"]))
        for name, value in self.model.buffers().items():
            value.copy_(state[f"model.{name}"])
        self.sharded.load_moments(state)
        self.scale.load_state(state)


class _Gathering(nn.Module):
    """The model called through DeepSpeed, which gathers weights that are used outside their own modules, too."""

    engine: Any

    def __init__(self, engine: Any) -> None:
        super().__init__()
        self.__dict__["engine"] = engine  # not as a submodule, whose mode would be set with this one's

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.engine(lambda model: model(*args, **kwargs))


def check_precision(parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuses parameters that DeepSpeed cannot hold.

    Raises:
        ConfigError: naming one.
    """
    for name, parameter in parameters.items():
        if parameter.dtype != torch.float32:
            kind = str(parameter.dtype).removeprefix("torch.")
            raise ConfigError(
                f"DeepSpeed keeps weights in float32, and {name} is {kind}", key="engine", hint="use engine=native"
            )


def _first_non_finite(gradients: Mapping[str, Tensor]) -> str:
    for name, gradient in gradients.items():
        if not torch.isfinite(gradient).all():
            return f"first in the parameter {name!r}"
    return "the global norm overflowed, perhaps on another rank"
