"""Memory of a device in training, by what is in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from sciml.planning.cluster import ClusterConfig
from sciml.planning.facts import Part
from sciml.planning.model_facts import ModelFacts
from sciml.planning.rank_parameters import Held, places
from sciml.planning.state import State, accounted_state, deepspeed_state, native_state
from sciml.planning.strategy import Strategy, Training, in_flight


@dataclass(frozen=True)
class Memory:
    """Bytes of a device at their most.

    Attributes:
        weights, gradients, moments, average: the state; moments are the optimizer's, the average that of the weights.
        activations: what forward passes keep, the most that a backward pass needs besides, and the batch; where
            gradients take the place of activations only what there is beyond them.
        buffers: gathered weights, buckets, what stages of a pipeline receive, and what an update needs where that is
            more than the activations, which are gone by then.
        margin: left free for what no plan sees: contexts, libraries, fragmentation.
        stage: the place in the pipeline that needs most.
    """

    weights: float
    gradients: float
    moments: float
    average: float
    activations: float
    buffers: float
    margin: float = 0.0
    stage: int = 0

    @property
    def total(self) -> float:
        state = self.weights + self.gradients + self.moments + self.average
        return state + self.activations + self.buffers + self.margin

    def parts(self) -> dict[str, float]:
        """Bytes by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "stage"}


class MemoryModel:
    """Tells what a strategy needs of a device's memory, on the rank that needs most.

    Args:
        margin: share of a device's memory that is left free.
    """

    def __init__(self, facts: ModelFacts, cluster: ClusterConfig, training: Training, margin: float = 0.0) -> None:
        self.facts, self.cluster, self.training, self.margin = facts, cluster, training, margin
        self._held: dict[tuple[int, ...], Held] = {}
        self._states: dict[tuple[Any, ...], State] = {}
        self._activations: dict[tuple[Any, ...], tuple[float, float]] = {}

    def of(self, strategy: Strategy) -> Memory:
        """What the fullest device holds."""
        found = [self.at(strategy, stage) for stage in self.places(strategy)]
        return max(found, key=lambda memory: memory.total)

    def least(self, strategy: Strategy) -> float:
        """Bytes of the state and the margin alone, for which no activations have to be known."""
        state = max(self.state(strategy, self.held(strategy, stage)).lasting for stage in self.places(strategy))
        return state + self.margin * self.cluster.memory

    def at(self, strategy: Strategy, stage: int) -> Memory:
        """What a device at some place of the pipeline holds."""
        held = self.held(strategy, stage)
        state = self.state(strategy, held)
        kept, more = self._passes(strategy, held)
        if self._gradients_come_late(strategy):
            kept = max(0.0, kept - state.gradients)
        activations = kept + more + self.facts.batch_bytes * self.training.global_batch / strategy.data_ranks
        buffers = state.buffers + self._received(strategy, held) + max(0.0, state.update - activations)
        return Memory(*state[:4], activations, buffers, self.margin * self.cluster.memory, stage)

    def _gradients_come_late(self, strategy: Strategy) -> bool:
        """Whether gradients take the place of activations.

        They do in the only backward pass of a step; and shards do that are scattered when all passes are done.
        """
        if strategy.engine.name != "native" or self.facts.accounting is not None:
            return False
        p, is_only = strategy.parallel, strategy.micro_batches(self.training) <= 1
        return (p.pp == 1 and is_only) or (p.shard > 1 and (p.pp > 1 or p.zero == 1))

    def places(self, strategy: Strategy) -> tuple[int, ...]:
        """Places in the pipeline whose ranks hold, or do, different things."""
        p = strategy.parallel
        return places(self.facts.depth, p.pp, p.interleave)

    def held(self, strategy: Strategy, stage: int) -> Held:
        """The parameters of a place in the pipeline; many strategies hold the same."""
        p = strategy.parallel
        key = p.tp, p.pp, p.interleave, stage
        if key not in self._held:
            self._held[key] = Held.of(self.facts.layout(p.tp), strategy, stage)
        return self._held[key]

    def state(self, strategy: Strategy, held: Held) -> State:
        """What is kept of parameters, by whoever carries out the steps."""
        key = strategy.sharing, held.stage, strategy.micro_batches(self.training) > 1
        if key not in self._states:
            self._states[key] = self._state(strategy, held)
        return self._states[key]

    def _state(self, strategy: Strategy, held: Held) -> State:
        if self.facts.accounting is not None:
            return accounted_state(self.facts.accounting, strategy, held)
        if strategy.engine.name == "deepspeed":
            return deepspeed_state(strategy, held, self.training)
        on_accelerator = self.cluster.device == "accelerator"
        return native_state(strategy, held, self.training, on_accelerator=on_accelerator)

    def _passes(self, strategy: Strategy, held: Held) -> tuple[float, float]:
        """Bytes that all micro-batches in flight keep, and the most that the one in the backward pass needs besides."""
        passes = max(1, math.ceil(strategy.micro_batches(self.training)))
        key = strategy.cuts, strategy.parallel.schedule, strategy.micro_batch, passes, held.stage
        if key not in self._activations:
            self._activations[key] = self._of_passes(strategy, held, passes)
        return self._activations[key]

    def _of_passes(self, strategy: Strategy, held: Held, passes: int) -> tuple[float, float]:
        p, samples = strategy.parallel, float(strategy.micro_batch)
        rank = self.facts.rank(p.tp, p.sp, strategy.precision, strategy.recompute)
        flying = in_flight(p.schedule, held.stage, p.pp, p.interleave, passes) if p.pp > 1 else 1
        blocks = len(held.blocks) / p.interleave
        times = min(passes, -(-flying // p.interleave))  # of the ends, which one of a rank's stages has
        ends = [end for end, has in ((rank.first, held.is_first), (rank.last, held.is_last)) if has]

        def kept(part: Part) -> float:
            return max(0.0, part.kept(samples))

        def cast(part: Part) -> float:
            return max(0.0, part.at_end(samples) - kept(part))

        left = flying * blocks * kept(rank.block) + times * sum(map(kept, ends))
        casts = blocks * cast(rank.block) + sum(map(cast, ends))
        return left, max(casts, *(part.more(samples) for part in (rank.block, *ends)))

    def _received(self, strategy: Strategy, held: Held) -> float:
        """What has come from the stages around for passes in flight, there and back."""
        p = strategy.parallel
        if p.pp == 1:
            return 0.0
        flow = sum(self.facts.rank(p.tp, p.sp, strategy.precision, strategy.recompute).flow) * strategy.micro_batch
        passes = max(1, math.ceil(strategy.micro_batches(self.training)))
        flying = in_flight(p.schedule, held.stage, p.pp, p.interleave, passes)
        there = flying * (p.interleave - held.is_first) / p.interleave
        back = float(p.interleave > held.is_last)
        return flow * (there + back)
