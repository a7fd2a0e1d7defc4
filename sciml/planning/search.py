"""The best strategies for some devices: what does not fit is left out, the rest ranked, and losers know why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from sciml.core.errors import ConfigError
from sciml.planning.cluster import ClusterConfig
from sciml.planning.links import Efficiency
from sciml.planning.memory import Memory, MemoryModel
from sciml.planning.model_facts import ModelFacts
from sciml.planning.space import Space, Wishes
from sciml.planning.step_time import StepTime
from sciml.planning.strategy import Strategy, Training
from sciml.planning.throughput import ThroughputModel

TIE = 0.05
"""Times that differ less than this cannot be told apart by a plan: published runs are met within as much."""


FAR = 1.25
"""How many times longer than the best a strategy may take to be of interest."""


@dataclass(frozen=True)
class Candidate:
    """A strategy that fits."""

    strategy: Strategy
    memory: Memory
    step: StepTime


@dataclass(frozen=True)
class TooLarge:
    """A strategy that does not.

    Attributes:
        needed: bytes of the fullest device; where even the state does not fit, of the state alone.
        only_state: whether that is so.
    """

    strategy: Strategy
    needed: float
    only_state: bool


@dataclass(frozen=True)
class Plan:
    """What a search found.

    Attributes:
        devices: how many.
        ranked: strategies that fit, fastest first; of equal ones that which needs less memory.
        too_large: the one closest to fitting for each ``tp`` and ``pp``, closest first.
        refused: why others are none, and how often.
        looked_at: strategies that divide.
        num_too_large: of those, how many do not fit.
        bounded: how many were left out because they take far longer, and longer than others of their ``tp`` and ``pp``.
        dominated: how many because the same with less computed again fits as well.
    """

    devices: int
    ranked: tuple[Candidate, ...]
    too_large: tuple[TooLarge, ...]
    refused: dict[str, int] = field(default_factory=dict)
    looked_at: int = 0
    num_too_large: int = 0
    bounded: int = 0
    dominated: int = 0

    @property
    def best(self) -> Candidate:
        return self.ranked[0]

    @property
    def ties(self) -> tuple[Candidate, ...]:
        """The fastest, and all that a plan cannot tell from it."""
        limit = self.best.step.total * (1 + TIE)
        return tuple(candidate for candidate in self.ranked if candidate.step.total <= limit)

    def by_degrees(self) -> dict[tuple[int, int], Candidate | TooLarge]:
        """The best of each ``tp`` and ``pp``, or the one closest to fitting where none does."""
        found: dict[tuple[int, int], Candidate | TooLarge] = {}
        everything: list[Candidate | TooLarge] = [*self.ranked, *self.too_large]
        for one in everything:
            p = one.strategy.parallel
            found.setdefault((p.tp, p.pp), one)
        return found


class Search:
    """Looks through all strategies on some devices.

    Args:
        margin: share of a device's memory to leave free.
    """

    def __init__(
        self,
        facts: ModelFacts,
        cluster: ClusterConfig,
        training: Training,
        wishes: Wishes,
        efficiency: Efficiency | None = None,
        margin: float = 0.1,
    ) -> None:
        self.facts, self.cluster, self.training, self.wishes = facts, cluster, training, wishes
        self.memory = MemoryModel(facts, cluster, training, margin)
        self.throughput = ThroughputModel(facts, cluster, training, efficiency or Efficiency(), self.memory)

    def plan(self, devices: int) -> Plan:
        """All that fits, ranked. It may be nothing.

        Raises:
            ConfigError: where no strategy divides the devices, or a degree that is wanted cannot cut the model.
        """
        fixed = self.wishes.fixed
        stages = fixed.get("pp", 1) * fixed.get("interleave", 1)
        self.facts.check(tp=fixed.get("tp", 1), sp=fixed.get("sp", 1), stages=stages)
        space = Space(self.facts, self.training, self.wishes)
        ranked: list[Candidate] = []
        closest: dict[tuple[int, int], TooLarge] = {}
        beats: dict[tuple[int, int], float] = {}
        counts: Counter[str] = Counter()
        best = float("inf")
        for choice in space.choices(devices):
            counts["looked_at"] += len(choice)
            for number, strategy in enumerate(choice, 1):
                key = strategy.parallel.tp, strategy.parallel.pp
                if self._takes_longer(strategy, max(FAR * best, beats.get(key, float("inf")))):
                    counts["bounded"] += len(choice) - number + 1
                    break
                found = self.judge(strategy)
                if isinstance(found, Candidate):
                    ranked.append(found)
                    best = min(best, found.step.total)
                    beats[key] = min(beats.get(key, float("inf")), found.step.total)
                    counts["dominated"] += len(choice) - number
                    break
                counts["num_too_large"] += 1
                # What has activations to show is closer than what fails by its state.
                if key not in closest or _distance(found) < _distance(closest[key]):
                    closest[key] = found
        if not counts["looked_at"]:
            raise self._nothing_divides(devices, space)
        ranked.sort(key=self._order)
        too_large = tuple(sorted(closest.values(), key=_distance))
        return Plan(devices, tuple(ranked), too_large, dict(space.refused), **counts)

    def _takes_longer(self, strategy: Strategy, limit: float) -> bool:
        """Whether a step takes longer than so many seconds, or as long; what is known sooner is asked first."""
        time = self.throughput
        return time.least(strategy) >= limit or time.within(strategy) >= limit or time.of(strategy).total >= limit

    def _order(self, candidate: Candidate) -> tuple[float, int, float]:
        """Faster first; as fast, in the precision that is wanted more; then with less memory."""
        precision = self.wishes.precisions.index(candidate.strategy.precision)
        return float(f"{candidate.step.total:.6g}"), precision, candidate.memory.total

    def fastest(self, devices: int) -> Candidate | None:
        """The best alone, which is found sooner than all: only what is faster than the best so far need fit."""
        found, best = None, float("inf")
        for choice in Space(self.facts, self.training, self.wishes).choices(devices):
            for strategy in choice:
                if self._takes_longer(strategy, best):
                    break
                judged = self.judge(strategy)
                if isinstance(judged, Candidate):
                    found, best = judged, judged.step.total
                    break
        return found

    def judge(self, strategy: Strategy) -> Candidate | TooLarge:
        """Whether a strategy fits, and how fast it is."""
        room = self.cluster.memory
        least = self.memory.least(strategy)
        if least > room:
            return TooLarge(strategy, least, only_state=True)
        memory = self.memory.of(strategy)
        if memory.total > room:
            return TooLarge(strategy, memory.total, only_state=False)
        return Candidate(strategy, memory, self.throughput.of(strategy))

    def smallest_that_fits(self, beyond: int, most: int) -> int | None:
        """The smallest number of devices, whole nodes from some number on, on which something fits.

        Returns:
            None where nothing does up to ``most``.
        """
        # Where any micro-batch fits, the smallest does.
        frugal = replace(self.wishes, fixed={"micro_batch": 1, **self.wishes.fixed})
        for devices in _growing(beyond, most, self.cluster.devices_per_node):
            space = Space(self.facts, self.training, frugal)
            if any(isinstance(self.judge(strategy), Candidate) for strategy in space.strategies(devices)):
                return devices
        return None

    def _nothing_divides(self, devices: int, space: Space) -> ConfigError:
        reasons = [reason for reason, _ in space.refused.most_common(1)]
        why = reasons[0] if reasons else "the wanted degrees do not divide them"
        near = next((n for n in _around(devices, self.cluster.devices_per_node) if self._divides(n)), None)
        hint = f"devices={near}" if near else "change trainer.global_batch_size or parallel"
        return ConfigError(f"no mesh shares the work among {devices} devices ({why})", key="devices", hint=hint)

    def _divides(self, devices: int) -> bool:
        return next(iter(Space(self.facts, self.training, self.wishes).strategies(devices)), None) is not None


def _distance(found: TooLarge) -> tuple[bool, float]:
    return found.only_state, found.needed


def _around(devices: int, per_node: int) -> Iterator[int]:
    """Numbers near another, whole nodes where there are several, nearest first."""
    step = per_node if devices > per_node else 1
    base = max(step, devices // step * step)
    for distance in range(64):
        for found in {base - distance * step, base + distance * step}:
            if found > 0 and found != devices:
                yield found


def _growing(beyond: int, most: int, per_node: int) -> Iterator[int]:
    """Numbers of devices behind one: up to a node each, then nodes, ever larger steps."""
    devices = beyond
    while True:
        step = 1 if devices < per_node else per_node * max(1, 2 ** ((devices // per_node).bit_length() - 3))
        devices = (devices // step + 1) * step
        if devices > most:
            return
        yield devices


def _computing(strategy: Strategy, first: Strategy, depth: int) -> str:
    """Why computing takes longer than with the best."""
    if strategy.precision != first.precision:
        return f"computes in {strategy.precision}"
    if strategy.recompute == "full" and first.recompute != "full":
        return "computes activations again"
    if strategy.micro_batch < first.micro_batch:
        return "micro-batches are smaller"
    if depth and depth % strategy.parallel.num_stages:
        return "some stages have more blocks than others"
    return "computes more on a device"


def why_slower(best: Candidate, other: Candidate, search: Search) -> str:
    """The greatest reason for which a strategy takes longer than the best."""
    more = {name: value - best.step.parts()[name] for name, value in other.step.parts().items()}
    name = max(more, key=lambda part: more[part])
    share = more[name] / best.step.total
    if share < 1e-3:
        return "as fast"
    strategy, first, depth = other.strategy, best.strategy, search.facts.depth
    words = {
        "compute": _computing(strategy, first, depth),
        "bubble": f"bubble of {strategy.parallel.pp} stages",
        "update": "updates more parameters a device",
    }
    if name in words:
        return f"{words[name]} (+{share:.0%})"
    axis = name if name != "dp" else max(("dp", "shard"), key=lambda a: strategy.sizes[a])
    level = search.cluster.level(strategy.span(axis))
    what = "gradients and weights" if name == "dp" else name
    return f"{what} over {level} (+{share:.0%})"
