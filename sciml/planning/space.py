"""All ways of sharing a training among so many devices that divide, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Any

from sciml.core.errors import ConfigError
from sciml.parallel.config import SEVERAL_STAGES, ParallelConfig, Schedule
from sciml.parallel.pipeline import check_micro_batches
from sciml.planning.model_facts import ModelFacts
from sciml.planning.strategy import Strategy, Training
from sciml.training.config import Precision
from sciml.training.engine_config import EngineConfig

AXES = ("tp", "sp", "pp", "shard", "dp")
FIXED = (*AXES, "zero", "schedule", "interleave", "micro_batch", "recompute")
"""What a user may say, so that the rest alone is searched."""


@dataclass(frozen=True)
class Wishes:
    """What is decided already.

    Attributes:
        fixed: values by name, of ``FIXED``.
        precisions: those to choose from.
        engines: what may carry out the steps.
        allow: refuses pipelines that a domain cannot train with, by raising ConfigError.
    """

    fixed: dict[str, Any] = field(default_factory=dict)
    precisions: tuple[Precision, ...] = ("bf16",)
    engines: tuple[EngineConfig, ...] = (EngineConfig(),)
    allow: Callable[[ParallelConfig], None] = lambda _: None


class Space:
    """Strategies on some devices.

    Exact: whatever the suite would run is there, but three kinds that cannot win. ``gpipe`` takes as long as ``1f1b``
    and keeps more, so it stands in only where there are too few micro-batches for that. In a pipeline torch keeps as
    much with stages 2 and 3 of ZeRO as with 1. Stages are interleaved only where they share the blocks evenly.

    Attributes:
        refused: why degrees were left out, and how often.
    """

    def __init__(self, facts: ModelFacts, training: Training, wishes: Wishes) -> None:
        self.facts, self.training, self.wishes = facts, training, wishes
        self.refused: Counter[str] = Counter()
        self._checked: dict[tuple[int, int, int], str | None] = {}

    def strategies(self, devices: int) -> Iterator[Strategy]:
        """All of them."""
        return (strategy for choice in self.choices(devices) for strategy in choice)

    def choices(self, devices: int) -> Iterator[list[Strategy]]:
        """All of them; together those that differ in recomputation alone, fastest first."""
        for tp in self._values("tp", divisors(devices)):
            for sp in self._values("sp", divisors(devices // tp) if devices % tp == 0 else []):
                if devices % (tp * sp) == 0 and self._fits(tp=tp, sp=sp, stages=1):
                    for pp in self._values("pp", divisors(devices // tp // sp)):
                        if devices % (tp * sp * pp) == 0:
                            yield from self._of_mesh(tp, sp, pp, devices // tp // sp // pp)

    def _values(self, name: str, free: list[Any]) -> list[Any]:
        """What an axis may have: what is wanted, or all that is free."""
        wanted = self.wishes.fixed.get(name)
        return free if wanted is None else [wanted]

    def _fits(self, *, tp: int, sp: int, stages: int) -> bool:
        key = tp, sp, stages
        if key not in self._checked:
            try:
                self.facts.check(tp=tp, sp=sp, stages=stages)
                self._checked[key] = None
            except ConfigError as error:
                self._checked[key] = error.message
        why = self._checked[key]
        if why is not None:
            self.refused[why] += 1
        return why is None

    def _of_mesh(self, tp: int, sp: int, pp: int, rest: int) -> Iterator[list[Strategy]]:
        batch = self.training.global_batch
        if batch % rest:
            self.refused[f"{batch:g} samples a step cannot be shared equally by {rest} data-parallel ranks"] += 1
            return
        if pp > 1 and not self._can_pipeline(tp, sp, pp):
            return
        for engine, shard in product(self.wishes.engines, self._values("shard", divisors(rest))):
            dp = rest // shard
            if rest % shard or self.wishes.fixed.get("dp") not in (None, dp):
                continue
            for schedule, interleave in self._schedules(pp, engine):
                for parallel in self._zeros(engine, tp, sp, pp, dp, shard, schedule, interleave):
                    yield from self._of_batch(parallel, engine, int(batch) // rest)

    def _can_pipeline(self, tp: int, sp: int, pp: int) -> bool:
        why = None
        if self.facts.needs_double_backward:
            why = "a loss that is made of gradients cannot be cut into pipeline stages"
        elif self.facts.calls > 1:
            why = "a loss that applies the model several times cannot be cut into pipeline stages"
        else:
            try:
                self.wishes.allow(ParallelConfig(pp=pp))
            except ConfigError as error:
                why = error.message
        if why is not None:
            self.refused[why] += 1
            return False
        return self._fits(tp=tp, sp=sp, stages=pp)

    def _schedules(self, pp: int, engine: EngineConfig) -> list[tuple[Schedule, int]]:
        if pp == 1:
            return [("1f1b", 1)]
        found: list[tuple[Schedule, int]] = [("1f1b", 1), ("gpipe", 1)]
        if engine.name == "native":
            found.append(("zero_bubble", 1))
            even = [v for v in range(2, self.facts.depth // pp + 1) if self.facts.depth % (pp * v) == 0]
            found += [(schedule, v) for v in even for schedule in SEVERAL_STAGES]
        fixed = self.wishes.fixed
        return [
            (schedule, v)
            for schedule, v in found
            if fixed.get("schedule") in (None, schedule) and fixed.get("interleave") in (None, v)
        ]

    def _zeros(
        self, engine: EngineConfig, tp: int, sp: int, pp: int, dp: int, shard: int, schedule: Schedule, interleave: int
    ) -> Iterator[ParallelConfig]:
        """Each stage of ZeRO that there is for some degrees; where nothing is sharded, once."""
        free: list[Any] = [3] if shard == 1 else [1] if pp > 1 else [1, 2, 3]
        for zero in self._values("zero", free) if shard > 1 else free:
            try:
                parallel = ParallelConfig(pp, dp, shard, sp, tp, zero, schedule, interleave)
                engine.degrees(parallel, pp * dp * shard * sp * tp)
            except ConfigError as error:
                self.refused[error.message] += 1
                continue
            if self.facts.needs_double_backward and zero == 3 and shard > 1:
                self.refused["a loss that is made of gradients keeps its weights whole: ZeRO 3 is trained as 2"] += 1
                continue
            yield parallel

    def _of_batch(self, parallel: ParallelConfig, engine: EngineConfig, share: int) -> Iterator[list[Strategy]]:
        for micro in self._values("micro_batch", divisors(share)):
            if share % micro:
                self.refused[f"a rank's share of {share} samples cannot be cut into micro-batches of {micro}"] += 1
                continue
            passes = share // micro
            if parallel.pp > 1 and not self._schedulable(parallel, passes):
                continue
            recomputes = self._values("recompute", list(self.facts.recomputes))
            for precision in self.wishes.precisions:
                yield [Strategy(parallel, micro, precision, recompute, engine) for recompute in recomputes]

    def _schedulable(self, parallel: ParallelConfig, passes: int) -> bool:
        if parallel.schedule == "gpipe" and passes >= parallel.pp and self.wishes.fixed.get("schedule") is None:
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
    """From 1 to the number itself."""
    return list(_divisors(number))
