"""Training steps carried out by DeepSpeed: ZeRO, offload of the optimizer, and its pipeline."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.errors import ConfigError
from sciml.distributed.axes import GRADIENTS, Role
from sciml.distributed.collectives import all_reduce
from sciml.domain.protocol import LossOutput, Task
from sciml.parallel.model import ParallelModel
from sciml.training.config import OptimConfig
from sciml.training.deepspeed_setup import configuration, initialized
from sciml.training.deepspeed_state import STATES
from sciml.training.engine import Engine
from sciml.training.optimizer import build_optimizer, optimizer_spec
from sciml.training.step_math import StepMath, StepOutput
from sciml.training.training_state import TrainingState


class DeepSpeedEngine(Engine):
    """Takes the same steps as on torch alone, with DeepSpeed reducing and clipping gradients and updating weights.

    DeepSpeed averages gradients over ranks. The mean over a global batch of unequal weights is reached by what it
    takes for a loss scale: it divides gradients by that before it clips them, and it may be set when the weights of all
    forward passes are known.

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
        parameters = dict(model.named_parameters())
        check_precision(parameters)
        self.spec = optimizer_spec(optim)
        self.optimizer = build_optimizer(parameters, model.placements, optim)
        math = StepMath(model, optim, precision)
        _mark(parameters, model)
        config = configuration(
            stage=stage,
            offload=offload,
            clip_norm=math.clip_norm if stage else None,
            micro_batch=micro_batch,
            num_micro=num_micro,
        )
        self.engine = initialized(model, self.optimizer, config)
        if stage == 0:
            tensors = TrainingState(model, self.optimizer, self.spec)
        else:
            self.sharded = tensors = STATES[stage](self.engine.optimizer, model, self.optimizer, self.spec)
            self.engine.optimizer._update_scale = self._overflowed
            if model.pipeline is not None:
                optimizer, world = self.engine.optimizer, model.mesh.world
                count = int(world.greatest([float(len(optimizer.bit16_groups))])[0])
                optimizer.scaled_global_norm = partial(self._over_all_stages, optimizer.scaled_global_norm, count)
        super().__init__(model, math, tensors)
        self.stage, self.micro_batch = stage, micro_batch
        self.num_ranks = self.mesh.size(*GRADIENTS)
        self.outputs: list[LossOutput] = []
        self.batches: Sequence[Any] = ()
        self.result: StepOutput | None = None
        # The one place that every stage of ZeRO and the pipeline pass when gradients are reduced.
        self.engine.optimizer.step = partial(self._finish, self.engine.optimizer.step)

    def release(self) -> None:
        """Lets go of gathered weights, which do not notice when their parts are changed."""
        if self.stage == 3:
            self.engine.empty_partition_cache()

    def whole(self) -> nn.Module:
        """Returns what is called as the whole model, for inference."""
        return _Gathering(self.engine) if self.stage == 3 else super().whole()

    def launch_step(self, task: Task, batches: Sequence[Any], lr: float) -> Callable[[], StepOutput]:
        """Carries out one optimizer step on this rank's micro-batches and waits; see :meth:`Engine.launch_step`."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.outputs, self.batches, self.result = [], batches, None
        with self.math.casting_once():
            if self.model.pipeline is not None:
                self._through_pipeline(task, batches)
            else:
                self._one_by_one(task, batches)
        self.outputs, self.batches = [], ()
        result = self.result
        assert result is not None
        return lambda: result

    def _weighted_loss(self, task: Task, model: Callable[..., Tensor], batch: Any) -> Float[Tensor, ""]:
        output = task.loss(model, batch)  # type: ignore[arg-type]
        self.outputs.append(output)
        return self.math.weighted(output)

    def _one_by_one(self, task: Task, batches: Sequence[Any]) -> None:
        def work(model: nn.Module, batch: Any) -> Float[Tensor, ""]:
            with self.math.autocast():
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
            stage.start_step(partial(self._weighted_loss, task), iter(batches), self.math.autocast)
        nothing = torch.zeros(1, device=self.mesh.device)  # stages have their batches already
        self.engine.train_batch(itertools.repeat((nothing, nothing)))

    def _finish(self, update: Callable[[], None]) -> None:
        """Stands in for the optimizer's step: scales gradients to those of the mean over the global batch."""
        means = self.math.means(self.outputs)
        self.math.check_loss(means, self.batches, self.weights)
        # DeepSpeed has averaged over ranks and micro-batches.
        averaged_over = self.num_ranks * self.engine.gradient_accumulation_steps()
        divisor = means.weight.item() * self.math.scale.value / averaged_over
        if self.stage == 0:  # without ZeRO it knows no loss scale, and would clip by a norm that it does not tell
            gradients = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
            norm = self.math.update(gradients, 1 / divisor, update)
        else:
            norm = self._sharded_update(update, divisor)
        self.result = self.math.finish(means, norm)

    def _sharded_update(self, update: Callable[[], None], divisor: float) -> float:
        optimizer = self.engine.optimizer
        optimizer.override_loss_scale(divisor)
        try:
            update()
        finally:
            optimizer.override_loss_scale(1.0)  # it would multiply the next losses
        return float(optimizer._global_grad_norm)

    def _over_all_stages(self, norm_of_groups: Callable[[], Tensor], count: int) -> Float[Tensor, ""]:
        """Returns the norm of gradients, of which DeepSpeed adds up each group of parameters over a pipeline's stages.

        A stage without matrices outside of blocks has fewer groups than others, which would wait for it for ever.

        Args:
            norm_of_groups: of a stage's own.
            count: groups of the stage that has most.
        """
        optimizer = self.engine.optimizer
        squares = [norm_of_groups().square()]
        for _ in range(count - len(optimizer.bit16_groups)):
            squares.append(torch.zeros_like(squares[0]))
            dist.all_reduce(squares[-1], group=optimizer.model_parallel_group)
        return torch.stack(squares).sum().sqrt().nan_to_num(torch.inf, torch.inf)  # infinite in all stages or in none

    def _overflowed(self, overflow: bool) -> None:
        """Updates the loss scale for DeepSpeed, which calls this when it knows whether gradients are finite,
        before it drops them.
        """
        if overflow:
            self.math.overflowed(self.sharded.gradients())


class _Gathering(nn.Module):
    """Calls the model through DeepSpeed, and gathers weights that are used outside their own modules, too."""

    engine: Any

    def __init__(self, engine: Any) -> None:
        super().__init__()
        self.__dict__["engine"] = engine  # not as a submodule, whose mode would be set with this one's

    def forward(self, *args: Any, **kwargs: Any) -> Float[Tensor, "..."]:
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


def _mark(parameters: Mapping[str, nn.Parameter], model: ParallelModel) -> None:
    """Says which parameters are cut by heads and channels, for the norm, and adds up gradients known in part."""
    group = model.mesh.group(Role.MATRIX)
    for name, parameter in parameters.items():
        if name in model.cut_dims:
            parameter.tensor_model_parallel = True  # type: ignore[attr-defined]
        if name in model.partial_sums:
            parameter.register_hook(partial(all_reduce, group=group))
