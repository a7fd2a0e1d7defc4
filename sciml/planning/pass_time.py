"""Predicts the time of a micro-batch on each stage of a pipeline, and what the pipeline waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from sciml.distributed.axes import Role, axes_in, axes_of
from sciml.distributed.communication import Count
from sciml.planning.cluster import GB, MICROSECONDS, ClusterConfig, Shares
from sciml.planning.communication import boundary_crossings
from sciml.planning.costs import AffineCost, OpCost, StageProfile
from sciml.planning.links import Links
from sciml.planning.model_facts import ModelFacts
from sciml.planning.parameters import distinct_stages
from sciml.planning.pipeline import blocks_of_ranks, middle_stages
from sciml.planning.strategy import Strategy
from sciml.training.config import Precision

TERA = 1e12
ZERO_BUBBLE = 1 / 3
"""Share of a bubble that is left where weights' gradients fill it: (F + B - W) of (F + B + W), were all three equal.

Source: Qi et al. (2024), https://doi.org/10.48550/arXiv.2401.10241, table 2 (ZB-H1).
"""
HINDRANCE = 0.48
"""Share of the time of messages that run beside computing by which they delay it.

Fitted to published runs, see ``benchmarks/published.py``: 0.53 for those on H100 and 0.46 for those on A100.
"""
BESIDE_GATHERS = 1 / 4
"""Share of a block's backward pass beside which inputs of its matrices are gathered again: gradients of the two
matrices that end its halves, which have 5/12 of its weights, and of attention, or less where a half is shorter.
"""
Samples = int | tuple[int, ...]
"""The size of a micro-batch, or several sizes, for which there are arrays of seconds."""
STAGES = axes_of(Role.STAGE)[0].name
"""The axis of pipeline stages."""
MATRICES = axes_of(Role.MATRIX)[0].name
"""The axis that cuts matrices."""


@dataclass(frozen=True)
class _Load:
    """Holds operations, and the seconds of messages by axis, for a micro-batch of any size.

    Attributes:
        beside: seconds of those messages, of ``MATRICES``, that can run beside operations.
        room: these operations.
    """

    operations: OpCost
    waits: dict[str, AffineCost]
    beside: AffineCost = field(default_factory=AffineCost)
    room: OpCost = field(default_factory=OpCost)

    def __add__(self, other: _Load) -> _Load:
        waits = {axis: cost + other.waits[axis] for axis, cost in self.waits.items()}
        return _Load(self.operations + other.operations, waits, self.beside + other.beside, self.room + other.room)

    def __mul__(self, times: int) -> _Load:
        waits = {axis: cost * times for axis, cost in self.waits.items()}
        return _Load(self.operations * times, waits, self.beside * times, self.room * times)


class PassTime(NamedTuple):
    """Holds the seconds of a micro-batch on a rank: computing, and messages by axis.

    They are arrays where they were asked for micro-batches of several sizes.
    """

    compute: Any
    waits: dict[str, Any]

    @property
    def total(self) -> Any:
        return self.compute + sum(self.waits.values())


class PassTimeModel:
    """Predicts how long a forward and backward pass of a micro-batch takes on the ranks of a pipeline.

    Args:
        efficiency: shares of the cluster's peaks.
    """

    def __init__(self, facts: ModelFacts, cluster: ClusterConfig, efficiency: Shares, links: Links) -> None:
        self.facts, self.cluster, self.efficiency, self.links = facts, cluster, efficiency, links
        self._stages: dict[tuple[Any, ...], tuple[_Load, _Load, _Load]] = {}
        self._loads: dict[tuple[Any, ...], _Load] = {}
        self._of: dict[tuple[Any, ...], dict[int, PassTime]] = {}
        self._on_rank: dict[tuple[Any, ...], PassTime] = {}

    def of(self, strategy: Strategy) -> dict[int, PassTime]:
        """Predicts a micro-batch on the ranks of the pipeline that differ."""
        link = self.links.level(strategy, STAGES) if strategy.parallel.pp > 1 else ""
        key = strategy.cuts, link, strategy.micro_batch
        if key not in self._of:
            self._of[key] = self.of_sizes(strategy, strategy.micro_batch)
        return self._of[key]

    def of_sizes(self, strategy: Strategy, samples: Samples) -> dict[int, PassTime]:
        """Predicts the same for micro-batches of other sizes."""
        p, depth = strategy.parallel, self.facts.depth
        numbers = blocks_of_ranks(depth, p.pp, p.interleave) if depth else ((),) * p.pp
        stages = distinct_stages(depth, p.pp, p.interleave)
        return {s: self.on_rank(strategy, (int(s == 0), len(numbers[s]), int(s == p.pp - 1)), samples) for s in stages}

    def on_rank(self, strategy: Strategy, counts: tuple[int, int, int], samples: Samples) -> PassTime:
        """Predicts a micro-batch on a rank that has the ends and blocks so often."""
        key = strategy.pass_costs, counts, samples
        if key not in self._on_rank:
            self._on_rank[key] = self._within_model(strategy, counts, samples)
        compute, waits = self._on_rank[key]
        sending: Any = 0.0
        crossings = boundary_crossings(strategy.parallel, is_first=bool(counts[0]), is_last=bool(counts[2]))
        for size in strategy.profile(self.facts).stage_activations if crossings else ():
            cost = self.links.cost(strategy, STAGES, "send", crossings, crossings * size)
            sending = sending + cost(_numbers(samples))
        return PassTime(compute, {**waits, STAGES: sending})

    def _within_model(self, strategy: Strategy, counts: tuple[int, int, int], samples: Samples) -> PassTime:
        """Predicts a micro-batch without what crosses the boundaries of pipeline stages."""
        load, numbers = self._load(strategy, counts), _numbers(samples)
        waits: dict[str, Any] = {axis: cost(numbers) for axis, cost in load.waits.items()}
        hidden = (1 - HINDRANCE) * load.beside(numbers)
        waits[MATRICES] = waits[MATRICES] - np.minimum(hidden, self.seconds(load.room, numbers, strategy.precision))
        return PassTime(self.seconds(load.operations, numbers, strategy.precision), waits)

    def bubble(self, strategy: Strategy, totals: Mapping[int, Any]) -> Any:
        """Predicts the time that a rank of a pipeline waits: a micro-batch on all other ranks, or on parts of them.

        Args:
            totals: seconds of a micro-batch on the ranks that differ.
        """
        p = strategy.parallel
        if p.pp == 1:
            return 0.0
        others = totals[0] + totals[p.pp - 1] - slowest(totals)
        for stage, times in middle_stages(self.facts.depth, p.pp, p.interleave):
            others = others + times * totals[stage]
        return others / p.interleave * (ZERO_BUBBLE if p.schedule == "zero_bubble" else 1.0)

    def bounds(self, strategy: Strategy, share: float, sizes: tuple[int, ...]) -> Any:
        """Returns seconds that a step takes at least with micro-batches of some sizes: those of the micro-batches and
        the bubble, without reduction and update.

        Args:
            share: samples of a step on a rank.
        """
        totals = {stage: time.total for stage, time in self.of_sizes(strategy, sizes).items()}
        return share / _numbers(sizes) * slowest(totals) + self.bubble(strategy, totals)

    def seconds(self, operations: OpCost, samples: Any, precision: Precision) -> Any:
        """Predicts the time of operations: products at the rate of matrix units or of memory, others at that of memory.

        An accelerator is handed kernels while it is still at work; a CPU spends time of its own between kernels.

        Source: Williams et al. (2009), https://doi.org/10.1145/1498765.1498785.
        """
        rate, shares = self.bytes_per_s, self.efficiency
        peak = self.cluster.peak_tflops[precision] * TERA
        products = operations.products(samples) / (peak * shares.compute)
        # Neither of the two limits is reached where both are close.
        products = np.hypot(products, operations.operand_bytes(samples) / rate)
        attention = operations.attention(samples) / (peak * shares.attention)
        moving = (operations.other_bytes(samples) + operations.cast_bytes(samples)) / rate
        working = products + attention + moving
        starts = operations.kernels * self.cluster.kernel_us * MICROSECONDS
        return np.maximum(working, starts) if self.cluster.device == "accelerator" else working + starts

    def casting(self, strategy: Strategy, counts: tuple[int, int, int]) -> float:
        """Predicts the seconds in which a rank casts its weights, once for all micro-batches of a step.

        Those of the ends are counted with each micro-batch: a head that computes its loss in pieces casts for each.
        """
        block = strategy.profile(self.facts).block
        size = (block.forward + block.backward).cast_bytes(strategy.micro_batch) * counts[1]
        return size / self.bytes_per_s if strategy.casts_once else 0.0

    @property
    def bytes_per_s(self) -> float:
        """Returns the memory bandwidth that kernels reach."""
        assert self.cluster.memory_gb_per_s is not None
        return self.cluster.memory_gb_per_s * GB * self.efficiency.memory

    def halves(self, strategy: Strategy, counts: tuple[int, int, int]) -> tuple[float, float]:
        """Predicts the computing of a rank's forward and of its backward pass."""
        forward, backward = OpCost(), OpCost()
        profile = strategy.profile(self.facts)
        for stage, times in profile.stages(*counts):
            ways = stage.forward, stage.backward
            if stage is profile.block and not strategy.casts_anew:
                ways = stage.forward.without_casts(), stage.backward.without_casts()
            forward, backward = forward + ways[0] * times, backward + ways[1] * times
        samples, precision = strategy.micro_batch, strategy.precision
        return self.seconds(forward, samples, precision), self.seconds(backward, samples, precision)

    def _load(self, strategy: Strategy, counts: tuple[int, int, int]) -> _Load:
        key = strategy.pass_costs, counts
        if key not in self._loads:
            embed, block, head = self._stage_loads(strategy)
            self._loads[key] = embed * counts[0] + block * counts[1] + head * counts[2]
        return self._loads[key]

    def _stage_loads(self, strategy: Strategy) -> tuple[_Load, _Load, _Load]:
        """Returns what the ends and a block have to do, without what crosses the boundaries of pipeline stages."""
        key = strategy.pass_costs
        if key not in self._stages:
            profile = strategy.profile(self.facts)
            embed, block, head = (
                self._stage_load(strategy, stage, casts=strategy.casts_anew or stage is not profile.block)
                for stage in (profile.embed, profile.block, profile.head)
            )
            if strategy.recompute in ("none", "attention"):
                block = replace(
                    block,
                    beside=self._gathered_again(strategy, profile.block),
                    room=profile.block.backward * BESIDE_GATHERS,
                )
            self._stages[key] = embed, block, head
        return self._stages[key]

    def _stage_load(self, strategy: Strategy, stage: StageProfile, *, casts: bool) -> _Load:
        operations = stage.forward + stage.backward
        waits = {axis.name: AffineCost() for axis in reversed(axes_of(Role.STAGE, Role.TOKEN, Role.MATRIX))}
        for messages in (stage.forward_messages, stage.backward_messages):
            for (axes, kind), count in messages.items():
                first = axes_in(axes)[0].name  # of several axes the outermost, whose links are the slowest
                waits[first] += self.links.cost(strategy, axes, kind, count.calls, count.wire_bytes)
        return _Load(operations if casts else operations.without_casts(), waits)

    def _gathered_again(self, strategy: Strategy, stage: StageProfile) -> AffineCost:
        """Returns the seconds of the gathers of a backward pass that mirror no scatter of the forward pass."""
        gathers = stage.backward_messages.get((MATRICES, "all_gather"), Count())
        again = gathers.calls - stage.forward_messages.get((MATRICES, "reduce_scatter"), Count()).calls
        if again <= 0:
            return AffineCost()
        cost = self.links.cost(strategy, MATRICES, "all_gather", gathers.calls, gathers.wire_bytes)
        return cost * (again / gathers.calls)


@lru_cache(maxsize=1024)
def _numbers(samples: Samples) -> Any:
    """Returns sizes of micro-batches to calculate with."""
    return np.array(samples, dtype=np.float64) if isinstance(samples, tuple) else float(samples)


def slowest(totals: Mapping[int, Any]) -> Any:
    """Returns the seconds of the slowest rank, for each size of micro-batches that there are seconds of."""
    first, *others = totals.values()
    for other in others:
        first = np.maximum(first, other)
    return first
