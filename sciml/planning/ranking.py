"""Ranks what a search finds: strategies that fit, fastest first, and those that do not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from sciml.planning.memory import Memory
from sciml.planning.strategy import Strategy
from sciml.planning.throughput import StepTime

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


class Ranking:
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
        if key not in self.closest or distance(result) < distance(self.closest[key]):
            self.closest[key] = result


def distance(result: TooLarge) -> tuple[bool, float]:
    """Sorts what does not fit by how far it is from that: what fails by its state is farther."""
    return result.only_state, result.needed
