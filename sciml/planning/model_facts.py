"""Facts of a model from its own build on the meta device, its sharding plan and its task's loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import nn

from sciml.core.errors import ConfigError
from sciml.distributed.mesh import Mesh
from sciml.domain.protocol import LossOutput
from sciml.nn.recompute import RECOMPUTES
from sciml.parallel.config import ParallelConfig
from sciml.parallel.model import cut
from sciml.parallel.plan import ShardingPlan, Stages, cut_dim, owners
from sciml.parallel.stage import block_list
from sciml.planning.facts import Accounting, Effort, Layout, Line, Parameters, Part, Rank
from sciml.planning.fake_mesh import pretended_mesh, without_numbers
from sciml.planning.meter import FIRST, LAST, Done
from sciml.planning.pass_profile import Measured, measure, tensors_of
from sciml.planning.scaling import Corners

MEASURED_BLOCKS = 2
"""Blocks of a pass that is pretended."""
TYPICAL, NEXT = "0", "1"
"""Those whose memory and whose work stand for all: what a block leaves for the next one is counted with it."""
TIED = "tied"
_DTYPES = {"fp32": None, "bf16": torch.bfloat16}


class ModelFacts:
    """A model as a plan sees it.

    Nothing is trained and no parameter has memory. For each way of cutting matrices and tokens a model of two blocks
    is cut as a training would cut it, over ranks that are pretended, and a micro-batch goes through its task's loss
    forward and backward; operations, memory and messages are counted on the way.

    Args:
        name: for people.
        build: makes the model for one device.
        loss: of a batch under a model: ``task.loss``.
        batch: makes a micro-batch of so many samples, typical ones.
        needs_double_backward: whether the loss is made of gradients.
        as_accelerator: whether autocast is to be that of an accelerator.
        accounting: of the bytes of a parameter, where another program than this suite is to be planned.

    Attributes:
        parameters: of the whole model.
        depth: blocks that can be spread over pipeline stages; 0 where there are none.
        recomputes: ways in which its blocks can compute activations again.
        batch_bytes: of a sample on the device.
    """

    def __init__(
        self,
        name: str,
        build: Callable[[], nn.Module],
        loss: Callable[[nn.Module, Any], LossOutput],
        batch: Callable[[int], Any],
        *,
        needs_double_backward: bool = False,
        as_accelerator: bool = True,
        accounting: Accounting | None = None,
    ) -> None:
        self.name, self._make, self._loss, self._batch = name, build, loss, batch
        self.needs_double_backward, self.as_accelerator = needs_double_backward, as_accelerator
        self.accounting = accounting
        self.whole = self.build()
        self.plan: ShardingPlan = getattr(type(self.whole), "plan", None) or ShardingPlan({})
        self.parameters = sum(parameter.numel() for parameter in self.whole.parameters())
        self.depth = len(block_list(self.whole, self.plan.stages))
        recomputes = any(isinstance(getattr(module, "recompute", None), str) for module in self.whole.modules())
        self.recomputes: tuple[str, ...] = RECOMPUTES if recomputes else RECOMPUTES[:1]
        self.batch_bytes = float(sum(tensor.nbytes for tensor in tensors_of(batch(1))))
        # Passes that are pretended take long; each is made once.
        self._refusal = cache(self._check)
        self.layout = cache(self._layout)
        self.sample_flops = cache(self._sample_flops)
        self.rank = cache(self._rank)
        self._there = cache(self._rank_there)
        self._measured = cache(self._measure)

    def build(self) -> nn.Module:
        """The model for one device, on the meta device."""
        with torch.device("meta"):
            return self._make()

    def check(self, *, tp: int, sp: int, stages: int) -> None:
        """Refuses degrees that cannot cut the model, naming some that can."""
        for degrees in ((tp, sp, 1), (1, 1, stages)):
            why = self._refusal(*degrees)
            if why is not None:
                raise ConfigError(why.message, key=why.key, hint=why.hint)

    def _check(self, tp: int, sp: int, stages: int) -> ConfigError | None:
        try:
            self.plan.check(self.whole, matrices=tp, tokens=sp, stages=stages)
        except ConfigError as error:
            return error
        return None

    @property
    def tokens(self) -> int | None:
        """Of a sample; None where it has no such."""
        flow = self._about.flow
        return flow[0].shape[1] if flow and flow[0].ndim == 3 else None

    @property
    def calls(self) -> int:
        """How often a loss applies the model."""
        return self._about.calls

    @property
    def loss_parts(self) -> int:
        """Named parts of the loss, which are averaged over ranks."""
        return self._about.loss_parts

    @property
    def _about(self) -> Measured:
        """A pass for what is the same in all."""
        return self._measured(1, 1, "bf16", "none", 1)

    def _sample_flops(self, recompute: str = "none") -> tuple[float, float]:
        """Of a forward and a backward pass of the whole model over a sample."""
        rank = self._there(1, 1, "bf16", recompute)
        parts = ((rank.first, 1), (rank.block, self.depth), (rank.last, 1))
        forward = sum(part.forward.flops(1) * times for part, times in parts)
        return forward, sum(part.backward.flops(1) * times for part, times in parts)

    def attention_flops(self) -> float:
        """Those of the forward pass over a sample in which tokens are mixed."""
        found, measured = self._about.attention, min(self.depth, MEASURED_BLOCKS)
        return found * self.depth / measured if measured else found

    def cut_parameters(self) -> int:
        """Parameters that are cut over ``tp``."""
        styles = self.plan.styles(self.whole) if self.plan.rules else {}
        cut = {
            parameter
            for name, module in owners(self.whole)
            for key, parameter in module.named_parameters(recurse=False)
            if name in styles and cut_dim(styles[name], key) is not None
        }
        return sum(parameter.numel() for parameter in cut)

    def _rank(self, tp: int, sp: int, precision: str, recompute: str) -> Rank:
        """What a rank does and keeps with a micro-batch."""
        half = "bf16" if precision == "fp16" else precision  # both are held and moved alike
        corners = self._corners(tp, sp)
        if corners is None:
            return self._there(tp, sp, half, recompute)
        return corners.rank(lambda a, b: self._there(a, b, half, recompute))

    def _rank_there(self, tp: int, sp: int, precision: str, recompute: str) -> Rank:
        one, two = (self._measured(tp, sp, precision, recompute, samples) for samples in (1, 2))
        first, block, last = _part(one, two, FIRST), _part(one, two, TYPICAL), _part(one, two, LAST)
        if self.depth > 1:
            # A backward pass comes to what the first stage computes besides tokens before it is through with block 0.
            work = _part(one, two, NEXT)
            early = block.backward + work.backward * -1
            first = replace(first, backward=first.backward + early)
            memory = {name: getattr(block, name) for name in ("kept", "at_end", "more")}
            block = replace(work, **memory)
        return Rank(first, block, last, tuple(float(tensor.nbytes) for tensor in one.flow))

    def _layout(self, tp: int) -> Layout:
        with pretended_mesh({"tp": tp}) as mesh:
            part = cut(self.build(), mesh, ParallelConfig(tp=tp))
            rows: dict[str, list[tuple[tuple[int, ...], bool]]] = {}
            for name, parameter in part.named_parameters():
                row = tuple(parameter.shape), name in part.partial_sums
                rows.setdefault(_place(name, self.plan.stages), []).append(row)
                if name in part.tied.values():
                    rows.setdefault(TIED, []).append(row)
        groups = {place: Parameters(*zip(*found, strict=True)) for place, found in rows.items()}
        same = {group: group for group in groups.values()}  # equal blocks are one, so that sums are made once
        groups = {place: same[group] for place, group in groups.items()}
        blocks = tuple(groups[str(number)] for number in range(self.depth))
        first, last, tied = (groups.get(place, Parameters()) for place in (FIRST, LAST, TIED))
        return Layout(first, blocks, last, tied)

    def _corners(self, tp: int, sp: int) -> Corners | None:
        """Small degrees to pass at in place of these; None where these themselves are to be passed at."""
        least = [min(d for d in range(2, degree + 1) if degree % d == 0) if degree > 1 else 2 for degree in (tp, sp)]
        try:
            self.check(tp=least[0] if tp > 1 else 1, sp=least[1] if sp > 1 else 1, stages=1)
        except ConfigError:
            return None
        return Corners(tp, sp, (least[0], least[1]))

    def _measure(self, tp: int, sp: int, precision: str, recompute: str, samples: int) -> Measured:
        with self._few_blocks(tp, sp, recompute) as (model, blocks, mesh):
            batch, dtype = self._batch(samples), _DTYPES[precision]
            return measure(self._loss, model, blocks, batch, mesh, dtype, as_accelerator=self.as_accelerator)

    @contextmanager
    def _few_blocks(self, tp: int, sp: int, recompute: str) -> Iterator[tuple[nn.Module, Sequence[nn.Module], Mesh]]:
        """A model of its last blocks alone, cut as a training would cut it, with its blocks and its mesh."""
        model, name = self.build(), self.plan.stages.blocks
        if name is not None:
            parent, _, key = name.rpartition(".")
            blocks = block_list(model, self.plan.stages)[-MEASURED_BLOCKS:]
            setattr(model.get_submodule(parent), key, nn.ModuleList(blocks))
        for module in model.modules():
            if isinstance(getattr(module, "recompute", None), str):
                module.recompute = recompute  # type: ignore[assignment]
        with pretended_mesh({"tp": tp, "sp": sp}) as mesh:
            cut(model, mesh, ParallelConfig(tp=tp, sp=sp))
            without_numbers(model)
            yield model.train(), block_list(model, self.plan.stages), mesh


def _place(name: str, stages: Stages) -> str:
    """Where among the stages a parameter belongs: before the blocks, in one of them, or behind."""
    if stages.blocks is not None and name.startswith(f"{stages.blocks}."):
        return name.removeprefix(f"{stages.blocks}.").partition(".")[0]
    behind = any(name == part or name.startswith(f"{part}.") for part in stages.last)
    return LAST if behind else FIRST


def _part(one: Measured, two: Measured, part: str) -> Part:
    """A part of the model, from passes of one sample and of two."""

    def effort(phase: str) -> Effort:
        few, many = one.done.get((phase, part), Done()), two.done.get((phase, part), Done())
        lines = {name: Line.through(getattr(few, name), getattr(many, name)) for name in ("flops", "operands", "moved")}
        return Effort(kernels=few.kernels, **lines)

    def memory(name: str) -> Line:
        return Line.through(getattr(one, name).get(part, 0), getattr(two, name).get(part, 0))

    there, back = (one.messages.get((phase, part), {}) for phase in ("forward", "backward"))
    return Part(effort("forward"), effort("backward"), there, back, memory("kept"), memory("at_end"), memory("more"))
