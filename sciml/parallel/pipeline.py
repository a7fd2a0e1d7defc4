"""A pipeline of stages: training by torch's schedules, inference stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.errors import ConfigError, SciMLError
from sciml.distributed.axes import Role
from sciml.distributed.mesh import Mesh
from sciml.nn.staged import Activations
from sciml.parallel.config import SEVERAL_STAGES, ParallelConfig, check_micro_batches
from sciml.parallel.stage import Stage, StageEnd
from sciml.parallel.tokens import TokenLayout

SCHEDULE_CLASSES = {
    "gpipe": "ScheduleGPipe",
    "1f1b": "Schedule1F1B",
    "interleaved": "ScheduleInterleaved1F1B",
    "zero_bubble": "ScheduleInterleavedZeroBubble",
}
"""Names in :mod:`torch.distributed.pipelining.schedules`, which takes seconds to import and only pipelines need."""


class Pipeline(nn.Module):
    """Runs the stages of this rank among those of its peers.

    As a module it is the whole model, for inference: activations are handed from stage to stage, and every rank of
    the pipeline gets the output.

    Args:
        stages: this rank's stages, by index.
        layout: how tokens are spread, where they are.
    """

    def __init__(
        self, stages: dict[int, Stage], mesh: Mesh, config: ParallelConfig, layout: TokenLayout | None = None
    ) -> None:
        super().__init__()
        self.stages = stages
        self.mesh, self.config, self.layout = mesh, config, layout
        self.group = mesh.group(Role.STAGE)
        self._schedules: dict[Any, Any] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Float[Tensor, "..."]:
        """Returns the model's output, without gradients, on every rank of the pipeline."""
        activations: Activations = ()
        for index in range(self.config.num_stages):
            owner = index % self.config.pp
            output: Any = None
            if index in self.stages:
                output = self.stages[index](*activations, call=(args, kwargs))
            activations = self._broadcast(output, owner)
        return activations[0]

    def _broadcast(self, output: Activations | Float[Tensor, "..."] | None, owner: int) -> Activations:
        activations = (output,) if isinstance(output, Tensor) else output
        header = self._broadcast_object(
            [(tensor.shape, tensor.dtype) for tensor in activations] if activations else None, owner
        )
        if activations is None:
            activations = tuple(torch.empty(shape, dtype=dtype, device=self.mesh.device) for shape, dtype in header)
        activations = tuple(tensor.contiguous() for tensor in activations)
        for tensor in activations:
            dist.broadcast(tensor, group_src=owner, group=self.group)
        return activations

    def _broadcast_object(self, value: Any, owner: int) -> Any:
        """Returns one rank's value, and takes over its count of tokens, which starts at the first stage."""
        box = [(value, self.layout.count if self.layout else 0)]
        dist.broadcast_object_list(box, group_src=owner, group=self.group)
        value, count = box[0]
        if self.layout is not None:
            self.layout.count = count
        return value

    def step(
        self,
        loss: Callable[[Callable[..., Tensor], Any], Tensor],
        batches: Sequence[Any],
        context: Callable[[], AbstractContextManager],
        phase: Hashable = None,
    ) -> None:
        """Runs forward and backward passes of all micro-batches, in the order of the schedule.

        Args:
            loss: of a batch under a model; it is evaluated to its end on the last stage only.
            batches: the micro-batches, the same on every rank of the pipeline.
            context: entered around each forward pass, for autocast.
            phase: what else the shapes of activations depend on.
        """
        for stage in self.stages.values():
            stage.start_step(loss, iter(batches), context)
        schedule = self._schedule(loss, batches, context, phase)
        for stage in self.stages.values():
            stage.start_step(loss, iter(batches), context)
        try:
            schedule.step(target=torch.arange(len(batches)), return_outputs=False)
        except RuntimeError as error:
            if isinstance(error.__cause__, SciMLError):  # the schedule wraps what its stages raise
                raise error.__cause__ from None
            raise

    def _schedule(self, loss: Any, batches: Sequence[Any], context: Any, phase: Hashable) -> Any:
        """Returns the schedule for these shapes: torch's stages know what they send and receive beforehand."""
        signature = tuple(_shapes(batch) for batch in batches)
        if len(set(signature)) > 1:
            raise ConfigError(
                "micro-batches of different shapes cannot go through one pipeline",
                key="parallel.pp",
                hint="use parallel.pp=1, or samples of one shape",
            )
        key = signature, phase
        if key not in self._schedules:
            schedule = self._build(self._probe(loss, batches[0], context), len(batches))
            self._schedules[key] = schedule, self.layout.count if self.layout else 0
        schedule, count = self._schedules[key]
        if self.layout is not None:
            self.layout.count = count  # another grid may have been used in between
        return schedule

    @torch.no_grad()
    def _probe(self, loss: Any, batch: Any, context: Any) -> list[tuple[torch.Size, torch.dtype]]:
        """Returns shapes and types of the activations between stages, as the first stage computes them on a batch."""
        activations: Activations = ()
        if 0 in self.stages:

            def model(*args: Any, **kwargs: Any) -> Float[Tensor, "..."]:
                raise StageEnd(self.stages[0](call=(args, kwargs)))

            try:
                with context():
                    loss(model, batch)
            except StageEnd as end:
                activations = end.activations
        return self._broadcast_object([(tensor.shape, tensor.dtype) for tensor in activations], 0)

    def _build(self, activations: list[tuple[torch.Size, torch.dtype]], num_micro: int) -> Any:
        from torch.distributed.pipelining import schedules

        from sciml.parallel.lean_stage import LeanStage

        check_micro_batches(self.config, num_micro)
        between = tuple(torch.empty(s, dtype=t, device="meta", requires_grad=True) for s, t in activations)
        result = torch.empty(1, device="meta", requires_grad=True)
        count = self.config.num_stages
        stages = [
            LeanStage(
                stage,
                index,
                count,
                self.mesh.device,
                input_args=() if index == 0 else between,
                output_args=(result,) if index == count - 1 else between,
                group=self.group,
            )
            for index, stage in sorted(self.stages.items())
        ]
        several = self.config.schedule in SEVERAL_STAGES
        return getattr(schedules, SCHEDULE_CLASSES[self.config.schedule])(
            stages if several else stages[0], num_micro, loss_fn=lambda output, _: output.sum(), scale_grads=False
        )


def _shapes(batch: Any) -> tuple[Any, ...]:
    """Returns shapes of a batch's tensors, by name."""
    return tuple((name, tuple(value.shape)) for name, value in vars(batch).items() if isinstance(value, Tensor))
