"""A way to train a model on some devices, and the training that is to be done, whatever the way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

from sciml.distributed.axes import AXES, SAMPLES, Role, axes_in, num_ranks
from sciml.parallel.config import ParallelConfig
from sciml.parallel.stage import stage_bounds
from sciml.planning.facts import FLOAT32
from sciml.training.config import OptimConfig, Precision, TrainerConfig
from sciml.training.engine_config import EngineConfig
from sciml.training.optimizer import optimizer_spec

ADAMW_BYTES = 84
"""Read and written for each parameter in a step of AdamW, kernel by kernel."""


@dataclass(frozen=True)
class Training:
    """What is the same for all strategies.

    Attributes:
        global_batch: samples of a step.
        steps: of the whole training.
        moments: bytes of the optimizer's moments for each parameter.
        average: bytes of the weight average for each parameter.
        update: bytes that are read and written for each parameter when its gradient is there: norm, scaling, update
            and average.
    """

    global_batch: float
    steps: int = 1
    moments: int = 2 * FLOAT32
    average: int = FLOAT32
    update: int = ADAMW_BYTES + 12 + 12

    @classmethod
    def of(cls, trainer: TrainerConfig, optim: OptimConfig) -> Training:
        """What a configuration asks for."""
        rule = optimizer_spec(optim).others
        average = 0 if optim.ema_decay is None else FLOAT32
        update = rule.moved + 12 + 3 * average
        return cls(trainer.global_batch_size, trainer.max_steps, rule.state_bytes, average, update)


@dataclass(frozen=True)
class Strategy:
    """How the work is shared.

    Attributes:
        parallel: degrees of the mesh; ``dp`` is given.
        micro_batch: samples of a forward pass on a rank.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        recompute: ``none``, ``selective`` or ``full``.
        engine: what carries out the steps.
    """

    parallel: ParallelConfig
    micro_batch: int = 1
    precision: Precision = "bf16"
    recompute: str = "none"
    engine: EngineConfig = field(default_factory=EngineConfig)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Ranks along each axis."""
        return self.parallel.given

    @cached_property
    def data_ranks(self) -> int:
        """Into how many parts a batch is shared."""
        return num_ranks(self.sizes, *SAMPLES)

    @cached_property
    def devices(self) -> int:
        return math.prod(self.sizes.values())

    def ranks(self, axes: str) -> int:
        """Ranks along the axes that some communication is named by."""
        return math.prod(self.sizes[axis.name] for axis in axes_in(axes))

    def micro_batches(self, training: Training) -> float:
        """Of a step on a rank; a plan for published numbers may have a broken one."""
        return training.global_batch / self.data_ranks / self.micro_batch

    @cached_property
    def cuts(self) -> tuple[Any, ...]:
        """All that the work of a micro-batch depends on, but its size."""
        p = self.parallel
        return p.tp, p.sp, p.pp, p.interleave, self.precision, self.recompute

    @cached_property
    def sharing(self) -> tuple[Any, ...]:
        """All that parameters and their reduction depend on, but the number of micro-batches."""
        p = self.parallel
        engine = self.engine
        return *self.sizes.values(), p.interleave, p.zero, engine.name, engine.zero, engine.offload

    @cached_property
    def zero(self) -> int:
        """Stage of ZeRO over all data ranks or over ``shard``; 0 where nothing is sharded."""
        if self.engine.name == "deepspeed":
            return self.engine.stage(self.parallel)
        return self.parallel.zero if self.parallel.shard > 1 else 0

    def span(self, axis: str) -> int:
        """How many neighbors in rank a group along an axis lies among."""
        return self._spans[axis]

    @cached_property
    def _spans(self) -> dict[str, int]:
        spans, stride = {}, 1
        for axis in reversed(AXES):
            # Neighboring stages are one stride apart, and only neighbors talk.
            size = self.sizes[axis.name]
            spans[axis.name] = stride * (min(size, 2) if axis.role is Role.STAGE else size)
            stride *= size
        return spans

    @property
    def text(self) -> str:
        """In the words of the command line, without what is 1."""
        p = self.parallel
        words = [f"{axis}={size}" for axis, size in reversed(self.sizes.items()) if size > 1]
        if p.shard > 1 and self.engine.name == "native":
            words.append(f"zero={p.zero}")
        if self.engine.name == "deepspeed":
            words.append(f"zero={self.zero}")
        if p.pp > 1 and p.schedule != "1f1b":
            words.append(p.schedule)
        if p.interleave > 1:
            words.append(f"interleave={p.interleave}")
        return " ".join(words) or "one device"

    def keys(self) -> dict[str, str | int]:
        """All keys of a configuration that decide it, dotted."""
        p = self.parallel
        return {
            **{f"parallel.{axis}": size for axis, size in self.sizes.items()},
            "parallel.zero": p.zero,
            "parallel.schedule": p.schedule,
            "parallel.interleave": p.interleave,
            "trainer.micro_batch_size": self.micro_batch,
            "trainer.precision": self.precision,
            "model.recompute": self.recompute,
            "engine": self.engine.name,
        }

    def overrides(self) -> list[str]:
        """Arguments of ``scripts/train.py`` that train so, without those that mean nothing."""
        p = self.parallel
        idle = {f"parallel.{axis}" for axis, size in self.sizes.items() if size == 1}
        idle |= {"parallel.zero"} if p.shard == 1 else set()
        idle |= {"parallel.schedule"} if p.pp == 1 else set()
        idle |= {"parallel.interleave"} if p.interleave == 1 else set()
        idle |= {"engine"} if self.engine.name == "native" else set()
        return [f"{key}={value}" for key, value in self.keys().items() if key not in idle]


@lru_cache(maxsize=4096)
def blocks_of_ranks(depth: int, pp: int, interleave: int) -> tuple[tuple[int, ...], ...]:
    """Numbers of the blocks that each rank of a pipeline holds."""
    bounds = stage_bounds(depth, pp * interleave)
    chunks = [range(first, last) for first, last in pairwise(bounds)]
    return tuple(tuple(n for chunk in chunks[rank::pp] for n in chunk) for rank in range(pp))


def warm_up(schedule: str, rank: int, pp: int, interleave: int, micro_batches: int) -> int:
    """Forward passes of a stage that a rank starts with, before forward and backward passes take turns.

    As torch's schedules go: 1f1b (Narayanan et al., 2021, https://doi.org/10.48550/arXiv.2104.04473) with as many as
    there are stages behind; interleaved stages with more.
    """
    total = micro_batches * interleave
    if schedule == "gpipe":
        return total
    in_a_round = micro_batches // max(1, micro_batches // pp)
    hops = (2 if schedule == "interleaved" else 1) * (pp - 1 - rank)
    return min(total, (interleave - 1) * in_a_round + hops)


def put_off(schedule: str, rank: int) -> int:
    """Backward passes after which a rank computes gradients of weights, in zero bubble as many as its number.

    Source: Qi et al. (2024), https://doi.org/10.48550/arXiv.2401.10241.
    """
    return rank if schedule == "zero_bubble" else 0


def in_flight(schedule: str, rank: int, pp: int, interleave: int, micro_batches: int) -> int:
    """The most forward passes of a stage that a rank keeps something of for the backward pass."""
    ahead = warm_up(schedule, rank, pp, interleave, micro_batches) + 1 + put_off(schedule, rank)
    return min(micro_batches * interleave, ahead)
