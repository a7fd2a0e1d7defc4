"""Strategies: ways to share a training among devices, and the space of all that divide the work."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import product
from typing import Any

from sciml.core.errors import ConfigError
from sciml.distributed.axes import AXES, SAMPLES, Axis, Role, axes_in, label, num_ranks
from sciml.parallel.config import SEVERAL_STAGES, ParallelConfig, Schedule
from sciml.parallel.pipeline import check_micro_batches
from sciml.planning.costs import FLOAT32, RankProfile
from sciml.planning.model_facts import ModelFacts
from sciml.training.config import OptimConfig, Precision, TrainerConfig
from sciml.training.engine_config import EngineConfig
from sciml.training.optimizer import ADAMW, UpdateRule, optimizer_spec

CLIPPING_BYTES = 12
"""Bytes read and written for each element of a gradient when its norm is taken and it is scaled."""
LEAST_TOKENS = 64
"""Tokens of a rank below which no ring is tried: messages would take longer than what they bring to do."""
FIXED = (*(axis.name for axis in AXES), "zero", "schedule", "interleave", "micro_batch", "recompute")
"""Choices that a user may fix, so that only the rest is searched."""


@dataclass(frozen=True)
class TrainingSpec:
    """Holds what all strategies have in common: the batch, the optimizer and the weight average.

    Attributes:
        global_batch: samples of a step.
        steps: of the whole training.
        matrices: updates the 2-D parameters inside of blocks.
        others: updates all other parameters.
        average: bytes of the weight average for each element.
    """

    global_batch: float
    steps: int = 1
    matrices: UpdateRule = ADAMW
    others: UpdateRule = ADAMW
    average: int = FLOAT32

    @classmethod
    def of(cls, trainer: TrainerConfig, optim: OptimConfig) -> TrainingSpec:
        """Reads the spec from a configuration."""
        spec = optimizer_spec(optim)
        average = 0 if optim.ema_decay is None else FLOAT32
        return cls(trainer.global_batch_size, trainer.max_steps, spec.matrices, spec.others, average)

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
        """Returns all that parameters and their reduction depend on, but the number of micro-batches."""
        p = self.parallel
        engine = self.engine
        return *self.sizes.values(), p.interleave, p.zero, engine.name, engine.zero, engine.offload, self.gathers_half

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


@dataclass(frozen=True)
class SearchConstraints:
    """Says what a search may not change.

    Attributes:
        fixed: values by name, of ``FIXED``.
        precisions: to choose from.
        engines: to choose from.
        allow: refuses pipelines that a domain cannot train with, by raising ConfigError.
        rings: whether rings are tried although there are samples enough for all devices.
    """

    fixed: dict[str, Any] = field(default_factory=dict)
    precisions: tuple[Precision, ...] = ("bf16",)
    engines: tuple[EngineConfig, ...] = (EngineConfig(),)
    allow: Callable[[ParallelConfig], None] = lambda _: None
    rings: bool = False


@dataclass(frozen=True)
class Family:
    """Holds strategies whose micro-batches take equally long: they differ in how states are sharded, and recomputed.

    Attributes:
        parallels: degrees, of which all but ``dp``, ``shard`` and ``zero`` are the same.
    """

    parallels: tuple[ParallelConfig, ...]
    micro_batch: int
    precision: Precision
    recomputes: tuple[str, ...]
    engine: EngineConfig

    def __len__(self) -> int:
        return len(self.parallels) * len(self.recomputes)

    @property
    def fastest(self) -> Strategy:
        """Returns one of those that compute least."""
        return Strategy(self.parallels[0], self.micro_batch, self.precision, self.recomputes[0], self.engine)

    @property
    def thriftiest(self) -> Strategy:
        """Returns the one that needs least memory: most is sharded, and all computed again."""
        parallel = max(self.parallels, key=lambda p: (p.shard, p.zero))
        return Strategy(parallel, self.micro_batch, self.precision, self.recomputes[-1], self.engine)

    def variants(self) -> Iterator[list[Strategy]]:
        """Yields lists of those that differ in recomputation alone, fastest first."""
        for parallel in self.parallels:
            yield [
                Strategy(parallel, self.micro_batch, self.precision, recompute, self.engine)
                for recompute in self.recomputes
            ]


class Space:
    """Lists all strategies on some devices.

    Exact: whatever the suite would run is there, but three kinds that cannot win. ``gpipe`` takes as long as ``1f1b``
    and saves more activations, so it stands in only where there are too few micro-batches for that. In a pipeline torch
    keeps as much with stages 2 and 3 of ZeRO as with 1. Stages are interleaved only where they share the blocks evenly.

    Attributes:
        refused: reasons for which degrees were left out, with counts.
    """

    def __init__(self, facts: ModelFacts, training: TrainingSpec, constraints: SearchConstraints) -> None:
        self.facts, self.training, self.constraints = facts, training, constraints
        self.refused: Counter[str] = Counter()
        self._checked: dict[tuple[int, int, int, int], str | None] = {}

    def strategies(self, devices: int) -> Iterator[Strategy]:
        """Yields all strategies."""
        return (strategy for variants in self.variants(devices) for strategy in variants)

    def variants(self, devices: int) -> Iterator[list[Strategy]]:
        """Yields all strategies in lists of those that differ in recomputation alone, fastest first."""
        return (variants for family in self.families(devices) for variants in family.variants())

    def families(self, devices: int) -> Iterator[Family]:
        """Yields all strategies in families of those whose micro-batches take equally long."""
        for tp in self._values("tp", divisors(devices)):
            for sp in self._values("sp", divisors(devices // tp) if devices % tp == 0 else []):
                if devices % (tp * sp) == 0 and self._fits(tp=tp, sp=sp, stages=1):
                    yield from self._of_tokens(tp, sp, devices // tp // sp)

    def _of_tokens(self, tp: int, sp: int, rest: int) -> Iterator[Family]:
        """Yields those with and without a ring, and with and without a pipeline."""
        for cp in self._values("cp", divisors(rest)):
            if rest % cp or not self._may_ring(tp, sp, cp, rest):
                continue
            for pp in self._values("pp", divisors(rest // cp)):
                if rest % (cp * pp) == 0:
                    yield from self._of_mesh(tp, sp, cp, pp, rest // cp // pp)

    def _may_ring(self, tp: int, sp: int, cp: int, rest: int) -> bool:
        """Says whether to try a ring: one that is asked for, or where neither heads nor samples could be spread over as
        many ranks.
        """
        if cp == 1:
            return True
        if "cp" not in self.constraints.fixed:
            wider = (sp * factor for factor in divisors(cp)[1:] if "sp" not in self.constraints.fixed)
            if any(self._refusal(tp, wide, 1, 1) is None for wide in wider):
                return False
            if rest <= self.training.global_batch and not self.constraints.rings:
                return False
            if (self.facts.tokens or 0) < LEAST_TOKENS * tp * sp * cp:
                return False
        return self._fits(tp=tp, sp=sp, cp=cp, stages=1)

    def _values(self, name: str, free: list[Any]) -> list[Any]:
        """Returns the values that an axis may have: the fixed one, or all that are free."""
        fixed = self.constraints.fixed.get(name)
        return free if fixed is None else [fixed]

    def _fits(self, *, tp: int, sp: int, stages: int, cp: int = 1) -> bool:
        reason = self._refusal(tp, sp, cp, stages)
        if reason is not None:
            self.refused[reason] += 1
        return reason is None

    def _refusal(self, tp: int, sp: int, cp: int, stages: int) -> str | None:
        key = tp, sp, cp, stages
        if key not in self._checked:
            try:
                self.facts.check(tp=tp, sp=sp, cp=cp, stages=stages)
                self._checked[key] = None
            except ConfigError as error:
                self._checked[key] = error.message
        return self._checked[key]

    def _of_mesh(self, tp: int, sp: int, cp: int, pp: int, rest: int) -> Iterator[Family]:
        batch = self.training.global_batch
        if batch % rest:
            self.refused[f"{batch:g} samples a step cannot be shared equally by {rest} data-parallel ranks"] += 1
            return
        if pp > 1 and not self._can_pipeline(tp, sp, pp):
            return
        alike: dict[tuple[Any, ...], list[ParallelConfig]] = {}
        for engine, shard in product(self.constraints.engines, self._values("shard", divisors(rest))):
            dp = rest // shard
            if rest % shard or self.constraints.fixed.get("dp") not in (None, dp):
                continue
            for schedule, interleave in self._schedules(pp, engine):
                plain = ParallelConfig(
                    pp=pp, dp=dp, shard=shard, cp=cp, sp=sp, tp=tp, schedule=schedule, interleave=interleave, zero=1
                )
                for parallel in self._zeros(engine, plain):
                    alike.setdefault((engine, schedule, interleave, shard > 1), []).append(parallel)
        for (engine, *_), parallels in alike.items():
            yield from self._of_batch(tuple(parallels), engine, int(batch) // rest)

    def _can_pipeline(self, tp: int, sp: int, pp: int) -> bool:
        reason = None
        if self.facts.needs_double_backward:
            reason = "a loss that is made of gradients cannot be cut into pipeline stages"
        elif self.facts.calls > 1:
            reason = "a loss that applies the model several times cannot be cut into pipeline stages"
        else:
            try:
                self.constraints.allow(ParallelConfig(pp=pp))
            except ConfigError as error:
                reason = error.message
        if reason is not None:
            self.refused[reason] += 1
            return False
        return self._fits(tp=tp, sp=sp, stages=pp)

    def _schedules(self, pp: int, engine: EngineConfig) -> list[tuple[Schedule, int]]:
        if pp == 1:
            return [("1f1b", 1)]
        known: list[tuple[Schedule, int]] = [("1f1b", 1), ("gpipe", 1)]
        if engine.name == "native":
            known.append(("zero_bubble", 1))
            even = [v for v in range(2, self.facts.depth // pp + 1) if self.facts.depth % (pp * v) == 0]
            known += [(schedule, v) for v in even for schedule in SEVERAL_STAGES]
        fixed = self.constraints.fixed
        return [
            (schedule, v)
            for schedule, v in known
            if fixed.get("schedule") in (None, schedule) and fixed.get("interleave") in (None, v)
            if self._is_allowed(ParallelConfig(pp=pp, schedule=schedule, interleave=v))
        ]

    def _is_allowed(self, parallel: ParallelConfig) -> bool:
        """Says whether the domain can go through a schedule; why not is told."""
        try:
            self.constraints.allow(parallel)
        except ConfigError as error:
            self.refused[error.message] += 1
            return False
        return True

    def _zeros(self, engine: EngineConfig, plain: ParallelConfig) -> Iterator[ParallelConfig]:
        """Yields some degrees with each stage of ZeRO; once where nothing is sharded."""
        pp, shard = plain.pp, plain.shard
        free: list[Any] = [3] if shard == 1 else [1] if pp > 1 else [1, 2, 3]
        for zero in self._values("zero", free) if shard > 1 else free:
            try:
                parallel = replace(plain, zero=zero)
                engine.degrees(parallel, math.prod(plain.given.values()))
            except ConfigError as error:
                self.refused[error.message] += 1
                continue
            if self.facts.needs_double_backward and zero == 3 and shard > 1:
                self.refused["a loss that is made of gradients keeps its weights whole: ZeRO 3 is trained as 2"] += 1
                continue
            yield parallel

    def _of_batch(self, parallels: tuple[ParallelConfig, ...], engine: EngineConfig, share: int) -> Iterator[Family]:
        for micro in self._values("micro_batch", divisors(share)):
            if share % micro:
                self.refused[f"a rank's share of {share} samples cannot be cut into micro-batches of {micro}"] += 1
                continue
            if parallels[0].pp > 1 and not self._schedulable(parallels[0], share // micro):
                continue
            recomputes = tuple(self._values("recompute", list(self.facts.recomputes)))
            for precision in self.constraints.precisions:
                yield Family(parallels, micro, precision, recomputes, engine)

    def _schedulable(self, parallel: ParallelConfig, passes: int) -> bool:
        if parallel.schedule == "gpipe" and passes >= parallel.pp and self.constraints.fixed.get("schedule") is None:
            return False
        try:
            check_micro_batches(parallel, passes)
        except ConfigError as error:
            self.refused[error.message] += 1
            return False
        return True


@lru_cache(maxsize=1024)
def _divisors(number: int) -> tuple[int, ...]:
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return tuple(sorted({*small, *(number // d for d in small)}))


def divisors(number: int) -> list[int]:
    """Returns the divisors of a number, from 1 to itself."""
    return list(_divisors(number))
