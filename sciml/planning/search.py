"""The best strategies for some devices: what does not fit is left out, the rest is ranked with reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from sciml.core.errors import ConfigError
from sciml.distributed.axes import SAMPLES, Role, axes_of
from sciml.planning.cluster import ClusterConfig, Efficiency
from sciml.planning.memory import Memory, MemoryModel
from sciml.planning.model_facts import ModelFacts
from sciml.planning.strategy import Family, SearchConstraints, Space, Strategy, TrainingSpec
from sciml.planning.throughput import StepTime, ThroughputModel

TIE = 0.05
"""Relative difference of step times that a plan cannot resolve: published runs are met within it."""
FAR = 1.25
"""How many times longer than the best a strategy may take to be of interest."""


@dataclass(frozen=True)
class Candidate:
    """Holds a strategy that fits."""

    strategy: Strategy
    memory: Memory
    step: StepTime


@dataclass(frozen=True)
class TooLarge:
    """Holds a strategy that does not fit.

    Attributes:
        needed: bytes of the fullest device; where even the state does not fit, of the state alone.
        only_state: whether that is so.
    """

    strategy: Strategy
    needed: float
    only_state: bool


@dataclass(frozen=True)
class Plan:
    """Holds the result of a search.

    Attributes:
        devices: number of devices.
        ranked: strategies that fit, fastest first; of equal ones that which needs less memory.
        too_large: the one closest to fitting for each ``tp`` and ``pp``, closest first.
        refused: reasons for which degrees were left out, with counts.
        examined: number of strategies that divide the work.
        num_too_large: of those, how many do not fit.
        pruned: how many were left out because they take far longer, and longer than others of their ``tp`` and ``pp``.
        dominated: how many because the same with less recomputation fits as well.
    """

    devices: int
    ranked: tuple[Candidate, ...]
    too_large: tuple[TooLarge, ...]
    refused: dict[str, int] = field(default_factory=dict)
    examined: int = 0
    num_too_large: int = 0
    pruned: int = 0
    dominated: int = 0

    @property
    def best(self) -> Candidate:
        return self.ranked[0]

    @property
    def ties(self) -> tuple[Candidate, ...]:
        """Returns the fastest strategy, and all that the plan cannot tell from it."""
        limit = self.best.step.total * (1 + TIE)
        return tuple(candidate for candidate in self.ranked if candidate.step.total <= limit)

    def by_degrees(self) -> dict[tuple[int, int], Candidate | TooLarge]:
        """Returns the best of each ``tp`` and ``pp``, or the one closest to fitting where none does."""
        best: dict[tuple[int, int], Candidate | TooLarge] = {}
        everything: list[Candidate | TooLarge] = [*self.ranked, *self.too_large]
        for one in everything:
            p = one.strategy.parallel
            best.setdefault((p.tp, p.pp), one)
        return best


class _Ranking:
    """Collects what a search finds, by ``tp`` and ``pp``; see :class:`Plan`."""

    def __init__(self) -> None:
        self.ranked: list[Candidate] = []
        self.closest: dict[tuple[int, int], TooLarge] = {}
        self.counts: Counter[str] = Counter()
        self._fastest: dict[tuple[int, int], float] = {}
        self._best = float("inf")

    def limit(self, key: tuple[int, int]) -> float:
        """Returns the seconds from which on a strategy is of no interest."""
        return max(FAR * self._best, self._fastest.get(key, float("inf")))

    def add(self, key: tuple[int, int], candidate: Candidate) -> None:
        """Adds a strategy that fits."""
        self.ranked.append(candidate)
        self._best = min(self._best, candidate.step.total)
        self._fastest[key] = min(self._fastest.get(key, float("inf")), candidate.step.total)

    def leave_out(self, key: tuple[int, int], result: TooLarge, times: int) -> None:
        """Counts strategies that do not fit; what fails by its activations is closer than what does by its state."""
        self.counts["num_too_large"] += times
        if key not in self.closest or _distance(result) < _distance(self.closest[key]):
            self.closest[key] = result


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
        ranking = _Ranking()
        for bound, family in self._by_bound(space, devices):
            ranking.counts["examined"] += len(family)
            key = family.parallels[0].tp, family.parallels[0].pp
            if bound >= ranking.limit(key):
                ranking.counts["pruned"] += len(family)
            elif (hopeless := self._frugal(family.thriftiest)) is not None:
                ranking.leave_out(key, hopeless, len(family))
            else:
                for variants in family.variants():
                    self._rank(variants, key, ranking)
        if not ranking.counts["examined"]:
            raise self._nothing_divides(devices, space)
        ranked = sorted(ranking.ranked, key=self._order)
        too_large = tuple(sorted(ranking.closest.values(), key=_distance))
        return Plan(devices, tuple(ranked), too_large, dict(space.refused), **ranking.counts)

    def _rank(self, variants: Sequence[Strategy], key: tuple[int, int], ranking: _Ranking) -> None:
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

    def _by_bound(self, space: Space, devices: int) -> list[tuple[float, Family]]:
        """Returns all families with seconds that none of their strategies is below.

        What may be fastest comes first, so that little of the rest need be looked at.
        """
        first = self.constraints.precisions[0]
        bounded = []
        for family in space.families(devices):
            bound = self.throughput.bound if family.precision == first else self.throughput.least
            bounded.append((bound(family.fastest), family))
        return sorted(bounded, key=lambda pair: pair[0])

    def _judged(self, variants: Sequence[Strategy], limit: float) -> Iterator[tuple[int, Candidate | TooLarge | None]]:
        """Yields what is too large of strategies that differ in recomputation alone, and the first that fits.

        Each comes with the number of strategies that it stands for. The end is None where that takes so many seconds or
        longer.
        """
        frugal = self._frugal(variants[-1])
        if frugal is not None:
            yield len(variants), frugal
            return
        for strategy in variants:
            memory = self._fitting(strategy)
            if not isinstance(memory, Memory):
                yield 1, memory
                continue
            step = self.throughput.of(strategy)
            yield 1, Candidate(strategy, memory, step) if step.total < limit else None
            return

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
        for bound, family in self._by_bound(self.space(), devices):
            if bound >= best:
                break
            if self._frugal(family.thriftiest) is not None:
                continue
            for variants in family.variants():
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


def _distance(result: TooLarge) -> tuple[bool, float]:
    return result.only_state, result.needed


def _around(devices: int, per_node: int) -> Iterator[int]:
    """Yields numbers near another, whole nodes where there are several, nearest first."""
    step = per_node if devices > per_node else 1
    base = max(step, devices // step * step)
    for distance in range(64):
        for number in {base - distance * step, base + distance * step}:
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


def why_slower(best: Candidate, other: Candidate, search: Search) -> str:
    """Names the main reason why a strategy takes longer than the best."""
    more = {name: value - best.step.parts()[name] for name, value in other.step.parts().items()}
    name = max(more, key=lambda part: more[part])
    share = more[name] / best.step.total
    if share < 1e-3:
        return "as fast"
    strategy, first, depth = other.strategy, best.strategy, search.facts.depth
    words = {
        "compute": _why_computes_longer(strategy, first, depth),
        "bubble": f"the bubble of {strategy.parallel.pp} stages",
        "update": "updating more parameters on each device",
    }
    if name in words:
        return f"{words[name]} (+{share:.0%})"
    axis = name if name != "reduction" else max((a.name for a in axes_of(*SAMPLES)), key=lambda a: strategy.sizes[a])
    level = search.cluster.level(strategy.span(axis))
    what = "gradients and weights" if name == "reduction" else name
    return f"{what} over {level} (+{share:.0%})"


def _why_computes_longer(strategy: Strategy, first: Strategy, depth: int) -> str:
    """Names the main reason why a strategy computes longer than the best."""
    if strategy.precision != first.precision:
        return f"computing in {strategy.precision}"
    if strategy.recompute == "full" and first.recompute != "full":
        return "recomputed activations"
    if strategy.micro_batch < first.micro_batch:
        return "smaller micro-batches"
    if depth and depth % strategy.parallel.num_stages:
        return "stages with more blocks than others"
    return "more computing on each device"


@dataclass(frozen=True)
class ScalingPoint:
    """Holds the best strategy on some number of devices; None where nothing fits, or no mesh divides them.

    Attributes:
        same_batch: with the global batch that is planned for.
        growing_batch: with one that grows with the devices.
    """

    devices: int
    same_batch: Candidate | None
    growing_batch: Candidate | None


def scaling_curve(search: Search, plan: Plan, numbers: Sequence[int]) -> list[ScalingPoint]:
    """Finds the best on each number of devices, in the precision that is best on those of the plan.

    Matrices and tokens are cut as they are there, unless nothing fits so.
    """
    constraints = replace(search.constraints, precisions=(plan.best.strategy.precision,))

    cuts = {axis.name: plan.best.strategy.sizes[axis.name] for axis in axes_of(Role.TOKEN, Role.MATRIX)}
    alike = replace(constraints, fixed={**cuts, **constraints.fixed})

    def best(training: TrainingSpec, devices: int) -> Candidate | None:
        if devices == plan.devices:
            return plan.best
        if not float(training.global_batch).is_integer():
            return None
        margin = search.memory.margin
        for allowed in (alike, constraints):
            narrow = Search(search.facts, search.cluster, training, allowed, search.efficiency, margin)
            found = narrow.fastest(devices)
            if found is not None:
                return found
        return None

    points = []
    for devices in numbers:
        grown = replace(search.training, global_batch=search.training.global_batch * devices / plan.devices)
        points.append(ScalingPoint(devices, best(search.training, devices), best(grown, devices)))
    return points
