"""Memory of a device in training, by what is in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from sciml.distributed.axes import GRADIENTS, REPLICAS, Role, num_ranks
from sciml.distributed.collectives import BUCKET_BYTES
from sciml.parallel.config import ParallelConfig
from sciml.planning.cluster import ClusterConfig
from sciml.planning.costs import FLOAT32, StageProfile
from sciml.planning.model_facts import ModelFacts
from sciml.planning.parameters import Accounting, RankParameters, distinct_stages
from sciml.planning.pipeline import in_flight
from sciml.planning.strategy import Strategy, TrainingSpec

# Of DeepSpeed 0.19's defaults, which the suite leaves as they are: elements in a bucket of gradients, in the parameters
# that stage 3 keeps gathered, and in those that it gathers ahead.
DEEPSPEED_BUCKET, DEEPSPEED_LIVE, DEEPSPEED_AHEAD = 5e8, 1e9, 5e7
HALF = 2
"""Bytes."""
TEMPORARIES = 3
"""Tensors as large as the largest parameter that an update of one parameter after the other needs."""
STEPS, EXCHANGED, TEMPORARIES_OF_A_MATRIX = 2, 5, 4
"""Tensors as large as all matrices (their momentum and steps; what ranks exchange), and as the largest matrix."""


class State(NamedTuple):
    """Counts the bytes of the training state on a device.

    Attributes:
        weights, gradients, moments, average: kept between steps.
        buffers: beside the activations: gathered weights, buckets of gradients.
        update: needed by an update, when activations are gone.
        moved: read and written by an update.
    """

    weights: float
    gradients: float
    moments: float
    average: float
    buffers: float
    update: float
    moved: float

    @property
    def lasting(self) -> float:
        """Returns the bytes that stay between steps."""
        return self.weights + self.gradients + self.moments + self.average


def native_state(
    strategy: Strategy, parameters: RankParameters, training: TrainingSpec, *, on_accelerator: bool
) -> State:
    """Counts the state of :class:`sciml.training.engine.NativeEngine`, DistributedDataParallel and FSDP2."""
    p = strategy.parallel
    replicas = num_ranks(strategy.sizes, *REPLICAS)
    whole = float(FLOAT32 * parameters.numel)
    own = whole if p.shard == 1 else float(FLOAT32 * parameters.padded(p.shard))
    trained = parameters.trained
    gradients = float(FLOAT32 * (trained.numel if p.shard == 1 else trained.padded(p.shard)))
    # The buckets of DistributedDataParallel stand beside the gradients.
    buckets = gradients if p.pp == 1 and replicas > 1 else 0.0
    buffers = _gathered(strategy, parameters, training) if p.shard > 1 else buckets
    # An accelerator updates plain tensors all at once, with a temporary as large as they are.
    at_once = on_accelerator and p.shard == 1
    update = gradients if at_once else float(TEMPORARIES * FLOAT32 * trained.largest)
    if (p.pp > 1 and replicas > 1) or (p.shard > 1 and num_ranks(strategy.sizes, Role.TOKEN) > 1):
        update = max(update, BUCKET_BYTES, FLOAT32 * trained.largest)
    if training.matrices.needs_whole_matrices:
        update = max(update, _orthogonalization(strategy, trained))
    updated = trained.updated(p.shard)
    moments, average = training.moment_bytes(*updated), training.average / FLOAT32 * own
    return State(own, gradients, moments, average, buffers, update, training.update_bytes(*updated))


def _orthogonalization(strategy: Strategy, parameters: RankParameters) -> float:
    """Counts what an update with whole matrices needs besides: steps of all, exchanges of those cut, one at work."""
    own = FLOAT32 * parameters.matrices.shard(strategy.parallel.shard)
    is_cut = num_ranks(strategy.sizes, Role.SHARD, Role.MATRIX) > 1
    largest = FLOAT32 * parameters.matrices.largest * strategy.parallel.tp
    return float((EXCHANGED if is_cut else STEPS) * own + TEMPORARIES_OF_A_MATRIX * largest)


def _gathered(strategy: Strategy, parameters: RankParameters, training: TrainingSpec) -> float:
    """Counts the weights and gradients that FSDP2 has whole at a time; see :mod:`sciml.parallel.data`."""
    p = strategy.parallel
    width = HALF if strategy.gathers_half else FLOAT32
    root, block = float(FLOAT32 * parameters.root.numel), float(width * parameters.largest_block)
    whole = root + width * (parameters.numel - parameters.root.numel)
    if p.pp > 1 or p.zero < 3:  # through the step, and the block that is arriving
        weights = whole + block
    else:  # what is never freed; this block, the next, and one that is arriving
        kept = root + (width * parameters.blocks[-1].numel if parameters.blocks else 0)
        weights = min(kept + 3 * block, whole + block)
    accumulates = p.pp > 1 or (p.zero == 1 and strategy.micro_batches(training) > 1)
    # Gradients are reduced in float32: those of a block on their way, and of the next as they are made.
    trained = parameters.trained
    made = float(width * trained.largest_block)
    gradients = float(FLOAT32 * trained.numel) if accumulates else FLOAT32 * trained.largest_block + made
    return weights + gradients


def deepspeed_state(strategy: Strategy, parameters: RankParameters, training: TrainingSpec) -> State:
    """Counts the state of DeepSpeed: float32 parameters and, for its optimizer, a copy of its own partition."""
    zero, offload = strategy.zero, strategy.engine.offload == "cpu"
    whole, bucket = float(FLOAT32 * parameters.numel), FLOAT32 * DEEPSPEED_BUCKET
    moments, moved = training.moment_bytes(*parameters.updated(1)), training.update_bytes(*parameters.updated(1))
    if zero == 0:
        average = training.average / FLOAT32 * whole
        return State(whole, whole, moments, average, min(whole, bucket), whole, moved)
    ranks = num_ranks(strategy.sizes, *GRADIENTS)
    part = whole / ranks
    moved = 0.0 if offload else moved / ranks  # else by the host
    moments, copy = (0.0, 0.0) if offload else (moments / ranks, part)
    average = training.average / FLOAT32 * (part if zero == 3 else whole)
    if zero == 3:
        live = FLOAT32 * min(float(parameters.numel), DEEPSPEED_LIVE + DEEPSPEED_AHEAD)
        return State(part + copy, part, moments, average, bucket + live, part, moved)
    gradients = part if zero == 2 else whole + part
    return State(whole + copy, gradients, moments, average, bucket, part, moved)


def accounted_state(
    accounting: Accounting, strategy: Strategy, parameters: RankParameters, training: TrainingSpec
) -> State:
    """Counts the state by another accounting, with ZeRO over all data ranks."""
    zero, numel, trained = strategy.zero, float(parameters.numel), float(parameters.trained.numel)
    # Stage 3 gathers what is in no layer, and has one layer at work while the next one arrives.
    gathered = accounting.wire * (parameters.root.numel + 2 * parameters.largest_block) if zero == 3 else 0.0
    optimizer, gradients, weights = (strategy.data_ranks if zero >= stage else 1 for stage in (1, 2, 3))
    return State(
        numel * ((accounting.weights - accounting.master + accounting.other) / weights + accounting.master / optimizer),
        trained * accounting.gradients / gradients,
        trained * accounting.moments / optimizer,
        0.0,
        gathered,
        0.0,
        training.update_bytes(*parameters.trained.updated(1)) / optimizer,
    )


@dataclass(frozen=True)
class Memory:
    """Counts the bytes of a device at their peak.

    Attributes:
        weights, gradients, moments, average: the state; moments are the optimizer's, the average that of the weights.
        activations: saved by forward passes, the workspace of a backward pass, and the batch; where gradients take
            the place of activations only what there is beyond them.
        buffers: gathered weights, buckets, what stages of a pipeline receive, and what an update needs where that is
            more than the activations, which are gone by then.
        margin: left free for what no plan sees: contexts, libraries, fragmentation.
        stage: the position in the pipeline that needs most.
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
        """Returns bytes by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "stage"}


class MemoryModel:
    """Predicts the memory that a strategy needs, on the rank that needs most.

    Args:
        margin: share of a device's memory that is left free.
    """

    def __init__(self, facts: ModelFacts, cluster: ClusterConfig, training: TrainingSpec, margin: float = 0.0) -> None:
        self.facts, self.cluster, self.training, self.margin = facts, cluster, training, margin
        self._parameters: dict[tuple[int, ...], RankParameters] = {}
        self._states: dict[tuple[Any, ...], State] = {}
        self._activations: dict[tuple[Any, ...], tuple[float, float]] = {}

    def of(self, strategy: Strategy) -> Memory:
        """Predicts the memory of the fullest device."""
        stages = [self.at(strategy, stage) for stage in self.distinct_stages(strategy)]
        return max(stages, key=lambda memory: memory.total)

    def least(self, strategy: Strategy) -> float:
        """Returns bytes of the state and the margin alone, for which no activations have to be known."""
        ranks = [self.rank_parameters(strategy, stage) for stage in self.distinct_stages(strategy)]
        return max(self.state(strategy, rank).lasting for rank in ranks) + self.margin * self.cluster.memory

    def at(self, strategy: Strategy, stage: int) -> Memory:
        """Predicts the memory of a device at a position in the pipeline."""
        parameters = self.rank_parameters(strategy, stage)
        state = self.state(strategy, parameters)
        saved, workspace = self._passes(strategy, parameters)
        if self._gradients_replace_activations(strategy):
            saved = max(0.0, saved - state.gradients)
        batch = self.facts.batch_bytes * self.training.global_batch / strategy.data_ranks
        activations = saved + workspace + batch
        buffers = state.buffers + self._received(strategy, parameters) + max(0.0, state.update - activations)
        return Memory(*state[:4], activations, buffers, self.margin * self.cluster.memory, stage)

    def _gradients_replace_activations(self, strategy: Strategy) -> bool:
        """Returns whether gradients take the place of activations.

        They do in the only backward pass of a step; and shards do that are scattered when all passes are done.
        """
        if strategy.engine.name != "native" or self.facts.accounting is not None:
            return False
        p, is_only = strategy.parallel, strategy.micro_batches(self.training) <= 1
        return (p.pp == 1 and is_only) or (p.shard > 1 and (p.pp > 1 or p.zero == 1))

    def distinct_stages(self, strategy: Strategy) -> tuple[int, ...]:
        """Returns the positions in the pipeline whose ranks hold, or do, different things."""
        p = strategy.parallel
        return distinct_stages(self.facts.depth, p.pp, p.interleave)

    def rank_parameters(self, strategy: Strategy, stage: int) -> RankParameters:
        """Returns the parameters of a position in the pipeline, which many strategies share."""
        p = strategy.parallel
        key = p.tp, p.pp, self._interleave(p), stage
        if key not in self._parameters:
            self._parameters[key] = RankParameters.of(self.facts.layout(p.tp), p, stage)
        return self._parameters[key]

    def _interleave(self, p: ParallelConfig) -> int:
        """Returns 1 where the ranks of a pipeline hold as many blocks, all alike, however stages are interleaved."""
        return 1 if self.facts.blocks_alike and self.facts.depth % p.num_stages == 0 else p.interleave

    def state(self, strategy: Strategy, parameters: RankParameters) -> State:
        """Counts the training state of the strategy's engine."""
        several = strategy.micro_batches(self.training) > 1
        key = strategy.sharing, self._interleave(strategy.parallel), parameters.stage, several
        if key not in self._states:
            self._states[key] = self._state(strategy, parameters)
        return self._states[key]

    def _state(self, strategy: Strategy, parameters: RankParameters) -> State:
        if self.facts.accounting is not None:
            return accounted_state(self.facts.accounting, strategy, parameters, self.training)
        if strategy.engine.name == "deepspeed":
            return deepspeed_state(strategy, parameters, self.training)
        on_accelerator = self.cluster.device == "accelerator"
        return native_state(strategy, parameters, self.training, on_accelerator=on_accelerator)

    def _passes(self, strategy: Strategy, parameters: RankParameters) -> tuple[float, float]:
        """Returns bytes that all micro-batches in flight save, and the workspace of the one in the backward pass."""
        passes = max(1, math.ceil(strategy.micro_batches(self.training)))
        key = strategy.cuts, strategy.parallel.schedule, strategy.micro_batch, passes, parameters.stage
        if key not in self._activations:
            self._activations[key] = self._of_passes(strategy, parameters, passes)
        return self._activations[key]

    def _of_passes(self, strategy: Strategy, parameters: RankParameters, passes: int) -> tuple[float, float]:
        p, samples = strategy.parallel, float(strategy.micro_batch)
        profile = strategy.profile(self.facts)
        flying = in_flight(p.schedule, parameters.stage, p.pp, p.interleave, passes) if p.pp > 1 else 1
        blocks = len(parameters.blocks) / p.interleave
        times = min(passes, -(-flying // p.interleave))  # of the ends, which one of a rank's stages has
        ends = [end for end, has in ((profile.embed, parameters.is_first), (profile.head, parameters.is_last)) if has]

        def saved(stage: StageProfile) -> float:
            return max(0.0, stage.saved_activations(samples))

        # Micro-batches share the weights that autocast has cast; those of a block that is computed again come anew.
        casts = 0.0 if strategy.gathers_half else profile.block.cast_weights(samples)
        left = flying * blocks * saved(profile.block) + len(parameters.blocks) * casts * strategy.casts_once
        left += sum(times * saved(end) + end.cast_weights(samples) for end in ends)
        in_block = profile.block.backward_workspace(samples) + casts * (not strategy.casts_once)
        return left, max(in_block, *(end.backward_workspace(samples) for end in ends), 0.0)

    def _received(self, strategy: Strategy, parameters: RankParameters) -> float:
        """Returns bytes received from neighboring stages for passes in flight, there and back."""
        p = strategy.parallel
        if p.pp == 1:
            return 0.0
        size = sum(strategy.profile(self.facts).stage_activations) * strategy.micro_batch
        passes = max(1, math.ceil(strategy.micro_batches(self.training)))
        flying = in_flight(p.schedule, parameters.stage, p.pp, p.interleave, passes)
        there = flying * (p.interleave - parameters.is_first) / p.interleave
        back = float(p.interleave > parameters.is_last)
        return size * (there + back)
