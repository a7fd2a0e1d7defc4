"""The space of all strategies that divide a training among some devices, in families."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import product
from typing import Any

from sciml.core.errors import ConfigError
from sciml.distributed.axes import AXES
from sciml.parallel.config import SEVERAL_STAGES, ParallelConfig, Schedule, check_micro_batches
from sciml.planning.model_facts import ModelFacts
from sciml.planning.strategy import Strategy, TrainingSpec
from sciml.training.config import Precision
from sciml.training.engine_config import EngineConfig

LEAST_TOKENS = 64
"""Tokens of a rank below which no ring is tried: messages would take longer than what they bring to do."""
FIXED = (*(axis.name for axis in AXES), "zero", "schedule", "interleave", "micro_batch", "recompute")
"""Choices that a user may fix, so that only the rest is searched."""


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


@dataclass(frozen=True, eq=False)
class Family:
    """Holds strategies that differ in how states are sharded, in recomputation and in the micro-batch; those of one
    micro-batch take equally long for it.

    Attributes:
        parallels: degrees, of which all but ``dp``, ``shard`` and ``zero`` are the same.
        micro_batches: samples, smallest first.
    """

    parallels: tuple[ParallelConfig, ...]
    micro_batches: tuple[int, ...]
    precision: Precision
    recomputes: tuple[str, ...]
    engine: EngineConfig

    def __len__(self) -> int:
        """Counts the strategies of one micro-batch."""
        return len(self.parallels) * len(self.recomputes)

    @property
    def cut(self) -> tuple[int, int]:
        """Returns the numbers of ranks that share matrices, and pipeline stages."""
        return self.parallels[0].tp, self.parallels[0].pp

    @property
    def fastest(self) -> Strategy:
        """Returns one of those that compute least, with the smallest micro-batch."""
        return Strategy(self.parallels[0], self.micro_batches[0], self.precision, self.recomputes[0], self.engine)

    @cached_property
    def thriftiest(self) -> Strategy:
        """Returns the one that needs least memory: most is sharded, all computed again, and micro-batches are small."""
        parallel = max(self.parallels, key=lambda p: (p.shard, p.zero))
        return Strategy(parallel, self.micro_batches[0], self.precision, self.recomputes[-1], self.engine)

    def variants(self, micro_batch: int) -> Iterator[list[Strategy]]:
        """Yields lists of those that differ in recomputation alone, fastest first."""
        for parallel in self.parallels:
            yield [
                Strategy(parallel, micro_batch, self.precision, recompute, self.engine) for recompute in self.recomputes
            ]


class Space:
    """Lists all strategies on some devices.

    Exact: whatever the suite would run is there, but three kinds that cannot win. ``gpipe`` takes as long as ``1f1b``
    and saves more activations, so it stands in only where there are too few micro-batches for that. In a pipeline torch
    keeps as much with stages 2 and 3 of ZeRO as with 1. Stages are interleaved only where they share the blocks evenly,
    or as it is asked for.

    Attributes:
        refused: reasons for which degrees were left out, with counts.
    """

    def __init__(self, facts: ModelFacts, training: TrainingSpec, constraints: SearchConstraints) -> None:
        self.facts, self.training, self.constraints = facts, training, constraints
        self.refused: Counter[str] = Counter()
        self._checked: dict[tuple[int, int, int, int], str | None] = {}
        self._allowed: dict[ParallelConfig, str | None] = {}

    def strategies(self, devices: int) -> Iterator[Strategy]:
        """Yields all strategies."""
        return (strategy for variants in self.variants(devices) for strategy in variants)

    def variants(self, devices: int) -> Iterator[list[Strategy]]:
        """Yields all strategies in lists of those that differ in recomputation alone, fastest first."""
        families = self.families(devices)
        return (each for family in families for micro in family.micro_batches for each in family.variants(micro))

    def families(self, devices: int) -> Iterator[Family]:
        """Yields all strategies in families."""
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
        native, fixed = engine.name == "native", self.constraints.fixed
        of_one: list[Schedule] = ["1f1b", "gpipe", *(("zero_bubble",) if native else ())]
        if "interleave" in fixed:
            of_one.append("interleaved")
        return [
            (schedule, v)
            for v in self._interleaves(pp)
            for schedule in (of_one if v == 1 else SEVERAL_STAGES)
            if fixed.get("schedule") in (None, schedule) and (native or v == 1 or "interleave" in fixed)
            if v == 1 or self._fits(tp=1, sp=1, stages=pp * v)
            if self._is_allowed(ParallelConfig(pp=pp, schedule=schedule, interleave=v))
        ]

    def _interleaves(self, pp: int) -> list[int]:
        """Returns the numbers of stages that a rank may have: as asked for, or those that share the blocks evenly."""
        depth, fixed = self.facts.depth, self.constraints.fixed
        even = [v for v in range(2, depth // pp + 1) if depth % (pp * v) == 0]
        # Where several are asked for, and not how many, an uneven number is better than none.
        several = even or ([2] if fixed.get("schedule") == "interleaved" else [])
        return self._values("interleave", [1, *several])

    def _is_allowed(self, parallel: ParallelConfig) -> bool:
        """Says whether the domain can go through a schedule; why not is told."""
        if parallel not in self._allowed:
            try:
                self.constraints.allow(parallel)
                self._allowed[parallel] = None
            except ConfigError as error:
                self._allowed[parallel] = error.message
        reason = self._allowed[parallel]
        if reason is not None:
            self.refused[reason] += 1
        return reason is None

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
        micros = tuple(m for m in self._values("micro_batch", divisors(share)) if self._suits(parallels[0], share, m))
        recomputes = tuple(self._values("recompute", list(self.facts.recomputes)))
        for precision in self.constraints.precisions if micros else ():
            yield Family(parallels, micros, precision, recomputes, engine)

    def _suits(self, parallel: ParallelConfig, share: int, micro: int) -> bool:
        """Says whether a rank can go through its share of a batch in micro-batches of a size; why not is told."""
        if share % micro:
            self.refused[f"a rank's share of {share} samples cannot be cut into micro-batches of {micro}"] += 1
            return False
        return parallel.pp == 1 or self._schedulable(parallel, share // micro)

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
