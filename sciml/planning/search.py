"""The best strategies for some devices: what does not fit is left out, the rest is ranked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import itemgetter

from sciml.core.errors import ConfigError
from sciml.planning.cluster import ClusterConfig, Efficiency
from sciml.planning.memory import Memory, MemoryModel
from sciml.planning.model_facts import ModelFacts
from sciml.planning.ranking import Candidate, Plan, Ranking, TooLarge, distance
from sciml.planning.space import Family, SearchConstraints, Space
from sciml.planning.strategy import Strategy, TrainingSpec
from sciml.planning.throughput import ThroughputModel


class Search:
    """Searches all strategies on some devices.

    Args:
        margin: share of a device's memory to leave free.
    """

    def __init__(
        self,
        facts: ModelFacts,
        cluster: ClusterConfig,
        training: TrainingSpec,
        constraints: SearchConstraints,
        efficiency: Efficiency | None = None,
        margin: float = 0.1,
    ) -> None:
        self.facts, self.cluster, self.training, self.constraints = facts, cluster, training, constraints
        self.memory = MemoryModel(facts, cluster, training, margin)
        self.efficiency = efficiency or Efficiency()
        self.throughput = ThroughputModel(facts, cluster, training, self.efficiency, self.memory)
        self._frugals: dict[tuple[object, ...], TooLarge | None] = {}
        self._of_families: dict[Family, TooLarge | None] = {}

    def space(self) -> Space:
        """Returns the strategies to search."""
        return Space(self.facts, self.training, self.constraints)

    def plan(self, devices: int) -> Plan:
        """Ranks all strategies that fit, which may be none.

        Raises:
            ConfigError: where no strategy divides the devices, or a fixed degree cannot cut the model.
        """
        fixed = self.constraints.fixed
        stages = fixed.get("pp", 1) * fixed.get("interleave", 1)
        tp, sp, cp = (fixed.get(axis, 1) for axis in ("tp", "sp", "cp"))
        self.facts.check(tp=tp, sp=sp, cp=cp, stages=stages)
        found = self._search(devices, self.space())
        if not found.ranked and not all(large.only_state for large in found.too_large):  # activations can be cut more
            wider = replace(self.constraints, rings=True)
            found = self._search(devices, Space(self.facts, self.training, wider))
        return found

    def _search(self, devices: int, space: Space) -> Plan:
        """Ranks all strategies of a space that fit."""
        ranking = Ranking()
        for bound, micro_batch, family in self._by_bound(space, devices):
            ranking.counts["examined"] += len(family)
            key = family.cut
            if bound >= ranking.limit(key):
                ranking.counts["pruned"] += len(family)
            elif (hopeless := self._hopeless(family)) is not None:
                ranking.leave_out(key, hopeless, len(family))
            else:
                for variants in family.variants(micro_batch):
                    self._rank(variants, key, ranking)
        if not ranking.counts["examined"]:
            raise self._nothing_divides(devices, space)
        ranked = sorted(ranking.ranked, key=self._order)
        too_large = tuple(sorted(ranking.closest.values(), key=distance))
        return Plan(devices, tuple(ranked), too_large, dict(space.refused), **ranking.counts)

    def _rank(self, variants: Sequence[Strategy], key: tuple[int, int], ranking: Ranking) -> None:
        """Adds strategies that differ in recomputation alone to a ranking."""
        left = len(variants)
        for times, result in self._judged(variants, ranking.limit(key)):
            left -= times
            if result is None:
                ranking.counts["pruned"] += times + left
            elif isinstance(result, Candidate):
                ranking.add(key, result)
                ranking.counts["dominated"] += left
            else:
                ranking.leave_out(key, result, times)

    def _by_bound(self, space: Space, devices: int) -> list[tuple[float, int, Family]]:
        """Returns all families and their micro-batches, with seconds that none of these strategies is below.

        What may be fastest comes first, so that little of the rest need be looked at.
        """
        first = self.constraints.precisions[0]
        bounded: list[tuple[float, int, Family]] = []
        for family in space.families(devices):
            fastest, sizes = family.fastest, family.micro_batches
            if family.precision == first:
                bounds = self.throughput.bounds(fastest, sizes)
            else:
                bounds = [self.throughput.least(fastest)] * len(sizes)
            bounded += [(bound, size, family) for bound, size in zip(bounds, sizes, strict=True)]
        return sorted(bounded, key=itemgetter(0))

    def _judged(self, variants: Sequence[Strategy], limit: float) -> Iterator[tuple[int, Candidate | TooLarge | None]]:
        """Yields what is too large of strategies that differ in recomputation alone, and the first that fits.

        Each comes with the number of strategies that it stands for. The end is None where that takes so many seconds or
        longer. Where the first fits, the passes of the others need not be known.
        """
        for strategy in variants:
            memory = self._fitting(strategy)
            if isinstance(memory, Memory):
                step = self.throughput.of(strategy)
                yield 1, Candidate(strategy, memory, step) if step.total < limit else None
                return
            if strategy is variants[0] and (frugal := self._frugal(variants[-1])) is not None:
                yield len(variants), frugal
                return
            yield 1, memory

    def _hopeless(self, family: Family) -> TooLarge | None:
        """Returns the strategy of a family that needs least memory where not even that fits."""
        if family not in self._of_families:
            fits = isinstance(self._fitting(family.fastest), Memory)
            self._of_families[family] = None if fits else self._frugal(family.thriftiest)
        return self._of_families[family]

    def _frugal(self, strategy: Strategy) -> TooLarge | None:
        """Returns the smallest micro-batch on the same mesh where not even that fits, so that nothing else does."""
        key = strategy.parallel, strategy.precision, strategy.recompute, strategy.engine.name
        if key not in self._frugals:
            smallest = replace(strategy, micro_batch=self.constraints.fixed.get("micro_batch", 1))
            least = self._fitting(smallest)
            self._frugals[key] = None if isinstance(least, Memory) else least
        return self._frugals[key]

    def _order(self, candidate: Candidate) -> tuple[float, int, float]:
        """Sorts by time, then by the order of precisions, then by memory."""
        precision = self.constraints.precisions.index(candidate.strategy.precision)
        return float(f"{candidate.step.total:.6g}"), precision, candidate.memory.total

    def fastest(self, devices: int) -> Candidate | None:
        """Returns the best alone, sooner than :meth:`plan`: only what is faster than the best so far need fit."""
        fastest, best = None, float("inf")
        for bound, micro_batch, family in self._by_bound(self.space(), devices):
            if bound >= best:
                break
            if self._hopeless(family) is not None:
                continue
            for variants in family.variants(micro_batch):
                for _, result in self._judged(variants, best):
                    if isinstance(result, Candidate):
                        fastest, best = result, result.step.total
        return fastest

    def judge(self, strategy: Strategy) -> Candidate | TooLarge:
        """Decides whether a strategy fits, and how fast it is."""
        memory = self._fitting(strategy)
        return Candidate(strategy, memory, self.throughput.of(strategy)) if isinstance(memory, Memory) else memory

    def _fitting(self, strategy: Strategy) -> Memory | TooLarge:
        """Returns the memory of a strategy where it fits, and how far it is from that elsewhere."""
        room = self.cluster.memory
        least = self.memory.least(strategy)
        if least > room:
            return TooLarge(strategy, least, only_state=True)
        memory = self.memory.of(strategy)
        return TooLarge(strategy, memory.total, only_state=False) if memory.total > room else memory

    def smallest_that_fits(self, beyond: int, most: int) -> int | None:
        """Returns the smallest number of devices, whole nodes from some number on, on which something fits.

        Returns:
            None where nothing does up to ``most``.
        """
        # Where any micro-batch fits, the smallest does.
        frugal = replace(self.constraints, fixed={"micro_batch": 1, **self.constraints.fixed})
        for devices in _growing(beyond, most, self.cluster.devices_per_node):
            space = Space(self.facts, self.training, frugal)
            if any(isinstance(self._fitting(strategy), Memory) for strategy in space.strategies(devices)):
                return devices
        return None

    def _nothing_divides(self, devices: int, space: Space) -> ConfigError:
        reasons = [reason for reason, _ in space.refused.most_common(1)]
        why = reasons[0] if reasons else "the fixed degrees do not divide them"
        near = next((n for n in _around(devices, self.cluster.devices_per_node) if self._divides(n)), None)
        hint = f"devices={near}" if near else "change trainer.global_batch_size or parallel"
        return ConfigError(f"no mesh shares the work among {devices} devices ({why})", key="devices", hint=hint)

    def _divides(self, devices: int) -> bool:
        return next(iter(self.space().strategies(devices)), None) is not None


def _around(devices: int, per_node: int) -> Iterator[int]:
    """Yields numbers near another, whole nodes where there are several, nearest first."""
    step = per_node if devices > per_node else 1
    base = max(step, devices // step * step)
    for steps in range(64):
        for number in {base - steps * step, base + steps * step}:
            if number > 0 and number != devices:
                yield number


def _growing(beyond: int, most: int, per_node: int) -> Iterator[int]:
    """Yields larger numbers of devices: up to a node each, then nodes, in ever larger steps."""
    devices = beyond
    while True:
        step = 1 if devices < per_node else per_node * max(1, 2 ** ((devices // per_node).bit_length() - 3))
        devices = (devices // step + 1) * step
        if devices > most:
            return
        yield devices
