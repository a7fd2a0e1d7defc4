"""A pipeline stage: a slice of a model's blocks, with what stands before the first or behind the last of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.errors import ConfigError
from sciml.nn.staged import Activations, ForwardPass, Staged
from sciml.parallel import plan

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments that a model is called with."""


class Absent(nn.Module):
    """Stands in the place of a module that another stage holds."""


class StageEnd(Exception):  # noqa: N818
    """Leaves a task's loss at the end of a stage that is not the last, with the activations for the next one."""

    def __init__(self, activations: Activations) -> None:
        super().__init__("a pipeline stage ends here")
        self.activations = activations


class Stage(nn.Module):
    """Runs one stage: from the activations of the stage before to its own, or to the model's output.

    In training every stage evaluates the task's whole loss on each micro-batch: the first stages leave it where the
    model is called, with their activations; the last one's model gives the output, and the loss goes on from there. So
    a task and its loss are written for one device and know nothing of stages.

    Args:
        model: the whole model, with ``Absent`` in place of what no stage of this rank holds.
        parts: its modules that belong to this stage.
        blocks: those among them that are blocks, in order.
    """

    def __init__(
        self, model: nn.Module, parts: list[nn.Module], blocks: list[nn.Module], *, is_first: bool, is_last: bool
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.blocks = blocks
        self.is_first, self.is_last = is_first, is_last
        object.__setattr__(self, "model", model)  # not as a submodule: parameters belong to one stage each
        self.loss: Callable[[Callable[..., Tensor], Any], Tensor] | None = None
        self.context: Callable[[], AbstractContextManager] = nullcontext
        self.batches: Iterator[Any] = iter(())

    def start_step(
        self,
        loss: Callable[[Callable[..., Tensor], Any], Tensor],
        batches: Iterator[Any],
        context: Callable[[], AbstractContextManager],
    ) -> None:
        """Prepares a step: the loss of a batch under a model, and the micro-batches in order."""
        self.loss, self.batches, self.context = loss, batches, context

    def forward(
        self, *activations: Float[Tensor, "..."], call: Call | None = None
    ) -> Activations | Float[Tensor, "..."]:
        """Computes this stage's part: of the next micro-batch's loss, or of a given call of the model."""
        if call is not None:
            return self._part(activations, call)
        assert self.loss is not None
        calls = 0

        def model(*args: Any, **kwargs: Any) -> Float[Tensor, "..."]:
            nonlocal calls
            calls += 1
            if calls > 1:
                raise ConfigError(
                    "a loss that applies the model several times cannot be cut into stages",
                    key="parallel.pp",
                    hint="use parallel.pp=1, or a task of one step",
                )
            part = self._part(activations, (args, kwargs))
            if isinstance(part, tuple):
                raise StageEnd(part)
            return part

        with self.context():
            try:
                return self.loss(model, next(self.batches))
            except StageEnd as end:
                return end.activations

    def _part(self, activations: Activations, call: Call) -> Activations | Float[Tensor, "..."]:
        args, kwargs = call
        staged: Staged = self.model  # type: ignore[assignment]
        forward_pass: ForwardPass = staged.forward_pass(*args, **kwargs)
        entering = forward_pass.embed() if self.is_first else activations
        leaving = forward_pass.run_blocks(self.blocks, entering)
        return forward_pass.head(*leaving) if self.is_last else leaving


def cut_stages(model: nn.Module, stages: plan.Stages, mine: list[int], num_stages: int) -> list[Stage]:
    """Returns the stages of this rank, and takes what it does not hold out of the model.

    Blocks are spread as evenly as possible; where the stages do not divide them, the first and the last stage,
    which have more to do, get none of the rest.

    Args:
        mine: indices of this rank's stages.
    """
    blocks = block_list(model, stages)
    bounds = stage_bounds(len(blocks), num_stages)
    cut = []
    for index in mine:
        is_first, is_last = index == 0, index == num_stages - 1
        own = blocks[bounds[index] : bounds[index + 1]]
        names = (stages.first if is_first else ()) + (stages.last if is_last else ())
        ends = [part for name in names if (part := _submodule(model, name)) is not None]
        cut.append(Stage(model, [*own, *ends], own, is_first=is_first, is_last=is_last))
    kept = {part for stage in cut for part in stage.parts}
    everything = [*(f"{stages.blocks}.{i}" for i in range(len(blocks))), *stages.first, *stages.last]
    for name in everything:
        if (part := _submodule(model, name)) is not None and part not in kept:
            parent, _, key = name.rpartition(".")
            setattr(model.get_submodule(parent), key, Absent())
    _check_nothing_left(model, kept)
    return cut


def block_list(model: nn.Module, stages: plan.Stages) -> list[nn.Module]:
    """Returns the blocks of a model, in order; none where its plan names none."""
    return list(model.get_submodule(stages.blocks).children()) if stages.blocks else []


def stage_bounds(num_blocks: int, num_stages: int) -> list[int]:
    """Returns the first block of every stage, and the number of blocks behind the last."""
    share, rest = divmod(num_blocks, num_stages)
    larger = sorted(range(num_stages), key=lambda index: abs(2 * index + 1 - num_stages))[:rest]
    bounds = [0]
    for index in range(num_stages):
        bounds.append(bounds[-1] + share + (index in larger))
    return bounds


def _submodule(model: nn.Module, name: str) -> nn.Module | None:
    """Returns a part of the model; None where its configuration has none."""
    parent, _, key = name.rpartition(".")
    return getattr(model.get_submodule(parent), key)


def _check_nothing_left(model: nn.Module, kept: set[nn.Module]) -> None:
    inside = {parameter for part in kept for parameter in part.parameters()}
    for name, parameter in model.named_parameters():
        if parameter not in inside:
            raise ValueError(f"sharding plan: the parameter {name} belongs to no pipeline stage")
