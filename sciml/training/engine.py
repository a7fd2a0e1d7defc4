"""Carries out a step: forward, backward, reduction over ranks, clipping, update."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sciml.distributed.axes import REPLICAS, Role
from sciml.distributed.collectives import all_reduce_buckets, all_reduce_ends
from sciml.domain.optional import FollowsTraining
from sciml.domain.protocol import LossOutput, Task
from sciml.parallel.data import keep_whole, local, reshard, sync_gradients
from sciml.parallel.model import ParallelModel
from sciml.training.config import OptimConfig
from sciml.training.finite_watch import EarlierStepError, FiniteWatch
from sciml.training.optimizer import build_optimizer, optimizer_spec
from sciml.training.step_math import Means, StepMath, StepOutput
from sciml.training.training_state import TrainingState


class Engine(ABC):
    """Carries out training steps. One for torch alone, one for DeepSpeed; trainer and checkpoints see only this.

    Attributes:
        model: this rank's part.
        math: the arithmetic of a step.
        tensors: weights and optimizer tensors, wherever the engine keeps them.
    """

    def __init__(self, model: ParallelModel, math: StepMath, tensors: TrainingState) -> None:
        self.model, self.mesh, self.math, self.tensors = model, model.mesh, math, tensors

    @abstractmethod
    def launch_step(self, task: Task, batches: Sequence[Any], lr: float) -> Callable[[], StepOutput]:
        """Carries out one optimizer step on this rank's micro-batches, without waiting for its end where that is
        possible.

        The gradient is that of the mean over the whole global batch, also where micro-batches and ranks
        differ in weight.

        Returns:
            What waits for the end and reads the result. It need not be called of every step: from one whose loss or
            gradient is not finite on the weights stay as they are, and the next reading says so.

        Raises:
            NotFiniteError: now or when the result is read, where the loss or a gradient is not finite; it names the
                tensor.
            EarlierStepError: when it is read, where that was so in a step whose result was not read.
        """

    def train_step(self, task: Task, batches: Sequence[Any], lr: float) -> StepOutput:
        """Carries out one optimizer step and reads its result; see :meth:`launch_step`."""
        return self.launch_step(task, batches, lr)()

    @abstractmethod
    def release(self) -> None:
        """Lets go of gathered weights, which do not notice when their parts are changed."""

    def whole(self) -> nn.Module:
        """Returns what is called as the whole model, for inference."""
        return self.model.whole

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[nn.Module]:
        """Gives the whole model in evaluation mode, under the training's precision, without gradients."""
        self.model.module.eval()
        self.release()
        try:
            with torch.no_grad(), self.math.autocast():
                yield self.whole()
        finally:
            self.release()
            self.model.module.train()

    def weights(self) -> dict[str, Tensor]:
        """Returns this rank's parts of the parameters, by name; the model computes with what is written into them."""
        return self.tensors.weights()

    def stored(self, name: str, tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Returns a tensor like this rank's part of a parameter as it goes into a checkpoint."""
        return self.tensors.stored(name, tensor)

    def part(self, name: str, stored: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Returns this rank's part of what :meth:`stored` gave."""
        return self.tensors.part(name, stored)

    def state(self) -> dict[str, Tensor]:
        """Returns weights, optimizer tensors and loss scale, by name, as they go into a checkpoint."""
        state = {f"model.{name}": self.stored(name, value) for name, value in self.weights().items()}
        state |= {f"model.{name}": value for name, value in self.model.buffers().items()}
        return state | self.tensors.moments() | self.math.scale.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a state: all weights and buffers, and of the optimizer and the loss scale what there is."""
        for name, value in self.weights().items():
            value.copy_(self.part(name, state[f"model.{name}"]))
        for name, value in self.model.buffers().items():
            value.copy_(local(state[f"model.{name}"]))
        self.tensors.load_moments(state)
        self.math.scale.load_state(state)


class NativeEngine(Engine):
    """Trains on torch alone.

    Args:
        model: built and initialized.
        precision: ``fp32``, ``bf16`` or ``fp16`` (with a loss scale).
    """

    def __init__(self, model: ParallelModel, optim: OptimConfig, precision: str = "fp32") -> None:
        self.optimizer = build_optimizer(dict(model.named_parameters()), model.placements, optim)
        spec = optimizer_spec(optim)
        super().__init__(model, StepMath(model, optim, precision), TrainingState(model, self.optimizer, spec))
        self.forward = self._replicated()
        # The host has to know where a loss scale depends on it, and where stages tell one another of the loss.
        waits = self.math.scale.enabled or model.pipeline is not None or not spec.skips_on_device
        self.watch = None if waits else FiniteWatch(self.mesh.device)

    def _replicated(self) -> nn.Module:
        """Returns the model, with its gradients averaged over replicas while the backward pass goes on.

        A pipeline's are added behind its last backward pass instead: torch's schedules call autograd in ways that
        DistributedDataParallel does not see.
        """
        replicas = self.mesh.group(*REPLICAS)
        if self.model.pipeline is not None or self.mesh.size(Role.SHARD) > 1 or replicas is None:
            return self.model.module
        return DistributedDataParallel(self.model.module, process_group=replicas)

    def release(self) -> None:
        """Lets go of gathered weights, which do not notice when their parts are changed."""
        reshard(self.model.roots)

    def launch_step(self, task: Task, batches: Sequence[Any], lr: float) -> Callable[[], StepOutput]:
        """Carries out one optimizer step on this rank's micro-batches; see :meth:`Engine.launch_step`."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        with self.math.casting_once():
            outputs = self._pipelined(task, batches) if self.model.pipeline else self._in_turn(task, batches)
        means = self.math.means(outputs)
        if self.watch is None:
            self.math.check_loss(means, batches, self.weights)
        gradients = self._gradients()
        factor = self._reduce(gradients) / means.weight / self.math.scale.value
        all_reduce_ends([gradients[name] for name in sorted(self.model.tied_names())], self.mesh.group(Role.STAGE))
        if self.watch is None:
            output = self.math.finish(means, self.math.update(gradients, factor, self.optimizer.step))
            self.release()
            return lambda: output
        norm = self.math.clip(gradients, factor)
        # As torch's gradient scalers tell fused optimizers.
        self.optimizer.found_inf = self.watch.after_step(means.loss, norm)  # type: ignore[attr-defined]
        self.optimizer.step()
        self.release()
        return partial(self._read, self.watch, means, norm, batches)

    def _gradients(self) -> dict[str, Tensor]:
        """Returns this rank's parts of the gradients, by name."""
        return {name: local(p.grad) for name, p in self.model.named_parameters() if p.grad is not None}

    def _read(self, watch: FiniteWatch, means: Means, norm: Float[Tensor, ""], batches: Sequence[Any]) -> StepOutput:
        """Waits for the end of the step that was launched last, and reads its result in one piece."""
        numbers = torch.stack([norm, watch.steps_since.to(norm.dtype)])
        *values, grad_norm, since = torch.cat([means.values, numbers]).tolist()
        if since:
            self.watch = FiniteWatch(self.mesh.device)
            if since > 1:
                raise EarlierStepError(int(since) - 1)
            self.math.check_loss(means, batches, self.weights)
            self.math.overflowed(self._gradients())
        return means.output(values, grad_norm)

    def _in_turn(self, task: Task, batches: Sequence[Any]) -> list[LossOutput]:
        """Makes the forward and backward pass of one micro-batch after the other."""
        outputs = []
        roots, twice, zero = self.model.roots, task.needs_double_backward, self.model.config.zero
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            sync_gradients(roots, last or zero > 1)
            with contextlib.nullcontext() if last else self._without_sync():
                keep_whole(roots, twice)
                with self.math.autocast():
                    output = task.loss(self.forward, batch)
                keep_whole(roots, zero < 3 and not last)
                self.math.weighted(output).backward()
            outputs.append(output)
        return outputs

    def _pipelined(self, task: Task, batches: Sequence[Any]) -> list[LossOutput]:
        """Does the same through the pipeline; only its last rank gets to see the outputs."""
        assert self.model.pipeline is not None
        outputs: list[LossOutput] = []

        def loss(model: Any, batch: Any) -> Float[Tensor, "1"]:
            output = task.loss(model, batch)
            outputs.append(output)
            return self.math.weighted(output).reshape(1)

        phase = task.phase if isinstance(task, FollowsTraining) else None
        self.model.pipeline.step(loss, batches, self.math.autocast, phase)
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
        all_reduce_buckets(
            [g for name, g in gradients.items() if name in self.model.partial_sums], self.mesh.group(Role.MATRIX)
        )
        everything = list(gradients.values())
        if self.mesh.size(Role.SHARD) > 1:
            all_reduce_buckets(everything, self.mesh.group(Role.TOKEN))
            return self.mesh.num_data_ranks
        if self.model.pipeline is not None:
            all_reduce_buckets(everything, self.mesh.group(*REPLICAS))
            return 1
        return self.mesh.size(*REPLICAS)
