"""A strategy: one way to share a training among devices, and what all strategies of a training have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sciml.distributed.axes import AXES, SAMPLES, Axis, Role, axes_in, label, num_ranks
from sciml.parallel.config import ParallelConfig
from sciml.planning.costs import FLOAT32, RankProfile
from sciml.planning.model_facts import ModelFacts
from sciml.training.config import OptimConfig, Precision, TrainerConfig
from sciml.training.engine_config import EngineConfig
from sciml.training.optimizer import ADAMW, UpdateRule, optimizer_spec

CLIPPING_BYTES = 12
"""Bytes read and written for each element of a gradient when its norm is taken and it is scaled."""


@dataclass(frozen=True)
class TrainingSpec:
    """Holds what all strategies have in common: the batch, the optimizer and the weight average.

    Attributes:
        global_batch: samples of a step.
        steps: of the whole training.
        matrices: updates the 2-D parameters inside of blocks.
        others: updates all other parameters.
        average: bytes of the weight average for each element.
        budget_s: seconds of training, which decide the steps; None takes ``steps``.
    """

    global_batch: float
    steps: int = 1
    matrices: UpdateRule = ADAMW
    others: UpdateRule = ADAMW
    average: int = FLOAT32
    budget_s: float | None = None

    @classmethod
    def of(cls, trainer: TrainerConfig, optim: OptimConfig) -> TrainingSpec:
        """Reads the spec from a configuration."""
        spec = optimizer_spec(optim)
        average = 0 if optim.ema_decay is None else FLOAT32
        batch, steps = trainer.global_batch_size, trainer.max_steps
        return cls(batch, steps, spec.matrices, spec.others, average, trainer.budget_s)

    def steps_of(self, step_s: float) -> int:
        """Returns the steps of the training where each takes so many seconds."""
        return self.steps if self.budget_s is None else max(1, int(self.budget_s / step_s))

    def moment_bytes(self, matrices: float, others: float) -> float:
        """Returns bytes of the optimizer's state for so many elements of matrices and of other parameters."""
        return self.matrices.state_bytes * matrices + self.others.state_bytes * others

    def checkpoint_bytes(self, parameters: float) -> float:
        """Returns bytes of a checkpoint: weights, moments and average, as if all parameters were matrices."""
        return (FLOAT32 + self.matrices.state_bytes + self.average) * parameters

    def update_bytes(self, matrices: float, others: float) -> float:
        """Returns bytes that an update reads and writes for so many elements: norm, scaling, update and average."""
        besides = CLIPPING_BYTES + 3 * self.average
        return (self.matrices.moved + besides) * matrices + (self.others.moved + besides) * others


@dataclass(frozen=True)
class Strategy:
    """Describes one way to share a training among devices.

    Attributes:
        parallel: degrees of the mesh; ``dp`` is a number.
        micro_batch: samples of a forward pass on a rank.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        recompute: ``none``, ``selective`` or ``full``.
        engine: carries out the steps.
    """

    parallel: ParallelConfig
    micro_batch: int = 1
    precision: Precision = "bf16"
    recompute: str = "none"
    engine: EngineConfig = field(default_factory=EngineConfig)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Returns the number of ranks along each axis."""
        return self.parallel.given

    def label(self, *roles: Role) -> str:
        """Returns the name of communication over some roles; empty where they have one rank."""
        return label(self.sizes, *roles)

    @cached_property
    def data_ranks(self) -> int:
        """Returns the number of ranks that share a batch."""
        return num_ranks(self.sizes, *SAMPLES)

    @cached_property
    def devices(self) -> int:
        return math.prod(self.sizes.values())

    def ranks(self, axes: str) -> int:
        """Returns the number of ranks along the axes that some communication is named by; 1 for none."""
        return math.prod(self.sizes[axis.name] for axis in axes_in(axes))

    def micro_batches(self, training: TrainingSpec) -> float:
        """Returns the micro-batches of a step on a rank; a plan for published numbers may have a fraction."""
        return training.global_batch / self.data_ranks / self.micro_batch

    @cached_property
    def gathers_half(self) -> bool:
        """Says whether FSDP gathers the weights of blocks in half precision, so that autocast has none to cast."""
        return self.precision != "fp32" and self.parallel.shard > 1 and self.engine.name == "native"

    @property
    def casts_anew(self) -> bool:
        """Says whether autocast casts the weights of blocks in every pass, as it does where passes are made again."""
        return not self.gathers_half and self.recompute in ("selective", "full")

    @property
    def casts_once(self) -> bool:
        """Says whether it casts them once a step, for all micro-batches."""
        return not self.gathers_half and not self.casts_anew

    @cached_property
    def cuts(self) -> tuple[Any, ...]:
        """Returns all that the costs of a micro-batch depend on, but its size."""
        p = self.parallel
        return p.tp, p.sp, p.cp, p.pp, p.interleave, self.precision, self.recompute, self.gathers_half

    @cached_property
    def pass_costs(self) -> tuple[Any, ...]:
        """Returns all that the costs of a stage of the model depend on."""
        p = self.parallel
        return p.tp, p.sp, p.cp, self.precision, self.recompute, self.gathers_half

    def profile(self, facts: ModelFacts) -> RankProfile:
        """Returns the costs of a model on one rank."""
        p = self.parallel
        return facts.profile(p.tp, p.sp, self.precision, self.recompute, p.cp)

    @cached_property
    def sharing(self) -> tuple[Any, ...]:
        """Returns all that parameters and their reduction depend on, but interleaving and the micro-batches."""
        p = self.parallel
        engine = self.engine
        return *self.sizes.values(), p.zero, engine.name, engine.zero, engine.offload, self.gathers_half

    @cached_property
    def zero(self) -> int:
        """Returns the stage of ZeRO over all data ranks or over ``shard``; 0 where nothing is sharded."""
        if self.engine.name == "deepspeed":
            return self.engine.stage(self.parallel)
        return self.parallel.zero if self.parallel.shard > 1 else 0

    def span(self, axis: str) -> int:
        """Returns the number of neighboring ranks that a group along an axis spreads over."""
        return self._spans[axis]

    @cached_property
    def _spans(self) -> dict[str, int]:
        spans, stride = {}, 1
        for axis in reversed(AXES):
            # Neighboring stages are one stride apart, and only neighbors communicate.
            spans[axis.name] = stride * self._spanned(axis)
            stride *= self.sizes[axis.name]
        return spans

    @cached_property
    def mesh(self) -> tuple[int, ...]:
        """Returns the degrees alone."""
        return tuple(self.sizes.values())

    def ranks_of_node(self, axes: str, devices: int) -> int:
        """Returns how many ranks of a group along some axes share a node of so many devices."""
        count = 1
        for axis in axes_in(axes):
            stride = self._spans[axis.name] // max(1, self._spanned(axis))
            count *= min(self.sizes[axis.name], max(1, devices // stride))
        return count

    def _spanned(self, axis: Axis) -> int:
        size = self.sizes[axis.name]
        return min(size, 2) if axis.role is Role.STAGE else size

    @property
    def text(self) -> str:
        """Returns degrees and options in the words of the command line, without those that are 1."""
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
        """Returns all configuration keys that decide it, dotted."""
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
        """Returns the arguments of ``scripts/train.py`` that train so, without those that have no effect."""
        p = self.parallel
        idle = {f"parallel.{axis}" for axis, size in self.sizes.items() if size == 1}
        idle |= {"parallel.zero"} if p.shard == 1 else set()
        idle |= {"parallel.schedule"} if p.pp == 1 else set()
        idle |= {"parallel.interleave"} if p.interleave == 1 else set()
        idle |= {"engine"} if self.engine.name == "native" else set()
        return [f"{key}={value}" for key, value in self.keys().items() if key not in idle]
