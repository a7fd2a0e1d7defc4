"""The arithmetic of a step over all ranks, which is the same whoever carries out its passes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from sciml.core.errors import RunError
from sciml.distributed.axes import Role
from sciml.domain.protocol import LossOutput
from sciml.parallel.model import ParallelModel
from sciml.training.config import OptimConfig
from sciml.training.loss_scale import MOST_SKIPPED, LossScale

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class NotFiniteError(RunError):
    """Says that a loss or a gradient is not finite: the training diverged."""


@dataclass(frozen=True)
class StepOutput:
    """Holds the result of a training step: means over the global batch, and the gradient norm before clipping."""

    loss: float
    parts: Mapping[str, float]
    grad_norm: float


@dataclass(frozen=True)
class Means:
    """Holds means over the global batch, on the device: nobody has waited for them.

    Attributes:
        names: of the parts of the loss.
        values: the loss, and its parts.
        weight: of the batch.
    """

    names: tuple[str, ...]
    values: Float[Tensor, "names"]
    weight: Float[Tensor, ""]

    @property
    def loss(self) -> Float[Tensor, ""]:
        return self.values[0]

    def output(self, values: Sequence[float], norm: float) -> StepOutput:
        """Returns the result of the step, given the values that were read off the device."""
        return StepOutput(values[0], dict(zip(self.names, values[1:], strict=True)), norm)


class StepMath:
    """Computes means over the global batch and the norm of all gradients, clips, and scales the loss.

    Args:
        model: this rank's part.
        precision: ``fp32``, ``bf16`` or ``fp16`` (with a loss scale).
    """

    def __init__(self, model: ParallelModel, optim: OptimConfig, precision: str) -> None:
        self.model, self.mesh = model, model.mesh
        self.clip_norm = optim.clip_norm
        self.dtype = DTYPES[precision]
        self.scale = LossScale(enabled=precision == "fp16")

    def autocast(self) -> contextlib.AbstractContextManager:
        """Returns the context of a forward pass."""
        return torch.autocast(self.mesh.device.type, dtype=self.dtype, enabled=self.dtype is not None)

    @contextlib.contextmanager
    def casting_once(self) -> Iterator[None]:
        """Lets autocast cast each weight once for all micro-batches within, and keep it until the last has gone back.

        Otherwise each micro-batch that is between its passes would have a copy of its own. Autocast forgets its copies
        when the outermost context of a thread ends; so all passes are made in one thread, within one.
        """
        if self.dtype is None:
            yield
            return
        with torch.autocast(self.mesh.device.type, enabled=False), torch.autograd.set_multithreading_enabled(False):
            yield

    def weighted(self, output: LossOutput) -> Float[Tensor, ""]:
        """Returns what a micro-batch's backward pass starts from."""
        return output.loss * (output.weight * self.scale.value)

    def means(self, outputs: Sequence[LossOutput]) -> Means:
        """Returns the means over the global batch.

        Args:
            outputs: of this rank's micro-batches; none where a later pipeline stage has them.
        """
        means = self._global_means(outputs) if outputs else None
        if self.model.pipeline is None:
            assert means is not None
            return means
        box = [None if means is None else (means.names, means.values.tolist(), means.weight.item())]
        dist.broadcast_object_list(box, group_src=self.mesh.size(Role.STAGE) - 1, group=self.mesh.group(Role.STAGE))
        assert box[0] is not None
        names, *numbers = box[0]
        options: dict[str, Any] = {"dtype": self.mesh.world.wide, "device": self.mesh.device}
        return Means(names, *(torch.tensor(number, **options) for number in numbers))

    def _global_means(self, outputs: Sequence[LossOutput]) -> Means:
        names = tuple(outputs[0].parts)
        wide, device = self.mesh.world.wide, self.mesh.device
        sums = torch.zeros(2 + len(names), dtype=wide, device=device)
        for output in outputs:
            values = [output.loss.detach(), *(output.parts[name] for name in names)]
            row = [torch.as_tensor(value).to(device, wide, non_blocking=True) for value in values]
            sums += torch.stack([torch.ones_like(row[0]), *row]) * output.weight
        self.mesh.add([sums])
        return Means(names, sums[1:] / sums[0], sums[0])

    def check_loss(self, means: Means, batches: Sequence[Any], weights: Callable[[], Mapping[str, Tensor]]) -> None:
        """Refuses a loss that is not finite.

        Args:
            batches, weights: where to look for its origin; the second returns this rank's.

        Raises:
            NotFiniteError: on all ranks, where the loss of one is not finite; it names the tensor.
        """
        if not math.isfinite(means.loss.item()):
            raise NotFiniteError(f"the loss is not finite, {self._first_in(batches, weights())}")

    def _first_in(self, batches: Sequence[Any], weights: Mapping[str, Tensor]) -> str:
        tensors = {f"parameter {name}": value for name, value in weights.items()}
        for number, batch in enumerate(batches):
            fields = vars(batch).items() if hasattr(batch, "__dict__") else ()
            tensors |= {f"{name} of micro-batch {number}": v for name, v in fields if isinstance(v, Tensor)}
        name = first_non_finite(tensors)
        if name is not None:
            return f"first in {name}"
        return (
            f"though parameters and batch are on rank {self.mesh.world.rank}: "
            "the forward pass overflowed there or elsewhere"
        )

    def norm(self, gradients: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Returns the norm of all gradients of the whole model, given this rank's parts of them."""
        wide, device = self.mesh.world.wide, self.mesh.device
        squares = torch.zeros(2, dtype=wide, device=device)
        gradients = {name: g for name, g in gradients.items() if self.model.counts(name)}
        for cut in (False, True):
            chosen = [g for name, g in gradients.items() if (name in self.model.cut_dims) is cut and g.numel()]
            if chosen:
                squares[int(cut)] = torch.stack(torch._foreach_norm(chosen)).to(wide).square().sum()
        if self.mesh.size(Role.SHARD) > 1:
            self.mesh.add([squares], Role.SHARD)
        self.mesh.add([squares[1:]], Role.MATRIX)
        total = squares.sum()
        self.mesh.add([total], Role.STAGE)
        return total.sqrt()

    def clip(self, gradients: Mapping[str, Tensor], factor: float | Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Scales and clips gradients; those of which any is not finite stay as they are, to be looked at.

        Args:
            factor: to make them those of the mean over the global batch.

        Returns:
            Their norm before clipping.
        """
        factor = torch.as_tensor(factor, dtype=self.mesh.world.wide, device=self.mesh.device)
        norm = self.norm(gradients) * factor
        if self.clip_norm is not None:
            factor = factor * (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        scale = torch.where(norm.isfinite(), factor, 1.0)
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for gradient in gradients.values():
            by_type.setdefault(gradient.dtype, []).append(gradient)
        for dtype, tensors in by_type.items():
            torch._foreach_mul_(tensors, scale.to(dtype))
        return norm

    def update(
        self, gradients: Mapping[str, Tensor], factor: float | Float[Tensor, ""], update: Callable[[], Any]
    ) -> float:
        """Scales and clips gradients and updates the weights with them, unless a half-precision pass overflowed.

        Args:
            factor: as of :meth:`clip`.
            update: the optimizer's step.

        Returns:
            Their norm before clipping.

        Raises:
            NotFiniteError: where a gradient is not finite, and no loss scale may be to blame.
        """
        norm = self.clip(gradients, factor).item()
        if math.isfinite(norm):
            update()
        else:
            self.overflowed(gradients)
        return norm

    def overflowed(self, gradients: Mapping[str, Tensor]) -> None:
        """Refuses gradients that are not finite, unless a smaller loss scale may help.

        Raises:
            NotFiniteError: naming the first parameter.
        """
        if self.scale.may_help:
            return
        name = first_non_finite(gradients)
        where = (
            "the global norm overflowed, perhaps on another rank"
            if name is None
            else f"first in the parameter {name!r}"
        )
        often = f", {MOST_SKIPPED + 1} steps in a row and at a loss scale of {self.scale.value:g}"
        raise NotFiniteError(f"the gradient is not finite{often * self.scale.enabled}: {where}")

    def finish(self, means: Means, norm: float) -> StepOutput:
        """Returns the result of a step whose gradients had some norm, and adapts the loss scale to it."""
        self.scale.update(math.isfinite(norm))
        return means.output(means.values.tolist(), norm)


def first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Returns the name of the first tensor that is not finite."""
    return next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), None)
