"""Communication volume of a training step along each axis of the mesh.

Inside a forward and a backward pass the volume is that of a profiled pass, as often as there are micro-batches. What
engines add (gradients, gathered weights, stage activations, sums of a few numbers) stands here in formulas; tests
compare them with those of ``tests/distributed/test_volume.py``, which real ranks meet to the byte.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from sciml.distributed.axes import GRADIENTS, REPLICAS, SAMPLES, Role, num_ranks
from sciml.distributed.collectives import BUCKET_BYTES
from sciml.distributed.communication import Count, ring
from sciml.parallel.config import ParallelConfig
from sciml.planning.costs import FLOAT32
from sciml.planning.model_facts import ModelFacts
from sciml.planning.parameters import RankParameters
from sciml.planning.strategy import Strategy, TrainingSpec

FIRST_DDP_BUCKET, DDP_BUCKET = 2**20, 25 * 2**20
"""Bytes in the buckets of DistributedDataParallel."""
DOUBLE = 8
"""Bytes."""


class Message(NamedTuple):
    """Calls of one kind along some axes, with the payload of each call in bytes."""

    axes: str
    kind: str
    calls: float
    payload: float


class CommunicationModel:
    """Predicts the communication volume of a rank in a step."""

    def __init__(self, facts: ModelFacts, training: TrainingSpec) -> None:
        self.facts, self.training = facts, training

    def volume(self, strategy: Strategy, parameters: RankParameters, shard: int = 0) -> dict[str, dict[str, Count]]:
        """Sums the communication volume of a step by axes and kind.

        Args:
            shard: the rank's position along ``shard``; the first has most.
        """
        total: dict[str, dict[str, Count]] = defaultdict(dict)
        passes = strategy.micro_batches(self.training)
        samples = strategy.micro_batch * passes
        for (axes, kind), one in self.within_model(strategy, parameters):
            count = Count(round(one.calls * passes), round(one.bytes * samples), one.wire_bytes * samples)
            _add(total, axes, kind, count)
        for axes, kind, calls, payload in self.of_engine(strategy, parameters, shard):
            if calls:
                wire = calls * payload * ring(kind, strategy.ranks(axes))
                _add(total, axes, kind, Count(round(calls), round(calls * payload), wire))
        return dict(total)

    def within_model(self, strategy: Strategy, parameters: RankParameters) -> Iterator[tuple[tuple[str, str], Count]]:
        """Yields the volume of a micro-batch inside the model: calls, and bytes of one sample."""
        if num_ranks(strategy.sizes, Role.TOKEN, Role.MATRIX) == 1:
            return
        for stage, times in strategy.profile(self.facts).stages(*parameters.stage_counts):
            for messages in (stage.forward_messages, stage.backward_messages) if times else ():
                for key, count in messages.items():
                    yield key, Count(round(count.calls * times), round(count.bytes * times), count.wire_bytes * times)

    def of_engine(self, strategy: Strategy, parameters: RankParameters, shard: int = 0) -> Iterator[Message]:
        """Yields the messages of a step that the engine adds to those of the model."""
        yield from self.pipeline(strategy, parameters)
        yield from self.gradients(strategy, parameters, strategy.micro_batches(self.training), shard)
        yield from self.matrices(strategy, parameters)
        if self.facts.accounting is None and strategy.engine.name == "native":
            yield from self._statistics(strategy, parameters)

    def pipeline(self, strategy: Strategy, parameters: RankParameters) -> Iterator[Message]:
        """Yields the stage activations, which cross each boundary once there and once back."""
        crossings = boundary_crossings(strategy.parallel, is_first=parameters.is_first, is_last=parameters.is_last)
        if not crossings:
            return
        calls = strategy.micro_batches(self.training) * crossings
        for size in strategy.profile(self.facts).stage_activations:
            for kind in ("send", "recv"):
                yield Message(strategy.label(Role.STAGE), kind, calls, strategy.micro_batch * size)

    def gradients(
        self, strategy: Strategy, parameters: RankParameters, passes: float, shard: int = 0
    ) -> Iterator[Message]:
        """Yields gradients of replicas, or of shards with the weights gathered for them; and of tied parameters.

        Args:
            passes: micro-batches of a step, with which calls grow evenly.
        """
        if parameters.tied.numel:
            wire = FLOAT32 if self.facts.accounting is None else self.facts.accounting.wire
            for kind in ("send", "recv"):
                size = parameters.tied.shard(strategy.parallel.shard, shard) * wire
                yield Message(strategy.label(Role.STAGE), kind, 1, size)
        if self.facts.accounting is not None:
            yield from _accounted(strategy, parameters, self.facts.accounting.wire)
            return
        if strategy.engine.name == "deepspeed":
            yield from _deepspeed(strategy, parameters, passes)
            return
        p = strategy.parallel
        if axes := strategy.label(Role.MATRIX):
            partial = sum(unit.partial_shard(p.shard, shard) for unit in parameters.trained.fsdp_units)
            yield _in_buckets(axes, partial * FLOAT32, BUCKET_BYTES)
        if p.shard > 1:
            yield from _shards(strategy, parameters, passes, shard)
            return
        axes, size = strategy.label(*REPLICAS), parameters.trained.numel * FLOAT32
        if axes and p.pp > 1:
            yield _in_buckets(axes, size, BUCKET_BYTES)
        elif axes:
            yield _in_buckets(axes, size, DDP_BUCKET, FIRST_DDP_BUCKET)

    def matrices(self, strategy: Strategy, parameters: RankParameters) -> Iterator[Message]:
        """Yields what an optimizer that needs whole matrices exchanges of those that are cut, there and back."""
        if not self.training.matrices.needs_whole_matrices:
            return
        sizes: Counter[str] = Counter()
        for (shape, cut_dim), count in parameters.trained.matrices.kinds.items():
            sizes[cut_axes(strategy, cut_dim)] += count * math.prod(shape)
        for axes, numel in sizes.items():
            if axes:
                yield Message(axes, "all_to_all", 2, numel * FLOAT32 / strategy.parallel.shard)

    def _statistics(self, strategy: Strategy, parameters: RankParameters) -> Iterator[Message]:
        """Yields means over the batch (loss, its parts, weight), and squared norms of gradients that ranks share."""
        data = strategy.label(*SAMPLES)
        if data and parameters.is_last:
            yield Message(data, "all_reduce", 1, (2 + self.facts.loss_parts) * DOUBLE)
        for role, numbers in ((Role.SHARD, 2), (Role.MATRIX, 1), (Role.STAGE, 1)):
            if axes := strategy.label(role):
                yield Message(axes, "all_reduce", 1, numbers * DOUBLE)


def boundary_crossings(parallel: ParallelConfig, *, is_first: bool, is_last: bool) -> int:
    """Returns how often the stage activations of a micro-batch leave a rank, there and back.

    Two neighboring stages are never on one rank, so that interleaving v of them multiplies the volume by v.
    """
    return 0 if parallel.pp == 1 else 2 * parallel.interleave - is_first - is_last


def _shards(strategy: Strategy, parameters: RankParameters, passes: float, shard: int) -> Iterator[Message]:
    """Yields what FSDP2 gathers before it is used, and the gradients that it scatters afterwards.

    Each block is gathered alone, and all else together. Stage 1 scatters once a step, 2 and 3 with every micro-batch;
    stage 3 gathers a block again for the backward pass, but the last. In a pipeline weights stay gathered and gradients
    whole until the end of the step, and only what stage 3 frees after a forward pass comes again.
    """
    p = strategy.parallel
    scatters = 1.0 if p.zero == 1 or p.pp > 1 else passes
    freed_blocks = len(parameters.blocks) - 1 if p.zero == 3 else 0
    units = enumerate(zip(parameters.fsdp_units, parameters.trained.fsdp_units, strict=True))
    alike = Counter(
        (
            unit.padded(p.shard) * FLOAT32,
            trained.padded(p.shard) * FLOAT32,
            n < freed_blocks,
            n < len(parameters.blocks),
        )
        for n, (unit, trained) in units
    )
    for (size, reduced, is_freed, is_block), times in alike.items():
        gathers = 1.0
        if p.zero == 3:
            gathers = (1 + passes if is_freed else 1) if p.pp > 1 else passes * (2 if is_freed else 1)
        if size:
            gathered = size / 2 if is_block and strategy.gathers_half else size
            yield Message(strategy.label(Role.SHARD), "all_gather", times * gathers, gathered)
        if reduced:
            yield Message(strategy.label(Role.SHARD), "reduce_scatter", times * scatters, reduced * p.shard)
            if replicas := strategy.label(Role.DATA):
                yield Message(replicas, "all_reduce", times * scatters, reduced)
    if axes := strategy.label(Role.TOKEN):
        own = sum(unit.shard(p.shard, shard) for unit in parameters.trained.fsdp_units)
        yield _in_buckets(axes, own * FLOAT32, BUCKET_BYTES)


def _accounted(strategy: Strategy, parameters: RankParameters, wire: float) -> Iterator[Message]:
    """Yields gradients scattered and weights gathered over all data ranks once a step; summed where nothing is sharded.

    Source: Rajbhandari et al. (2020), https://doi.org/10.48550/arXiv.1910.02054, section 7.
    """
    axes, ranks, size = strategy.label(*SAMPLES), strategy.data_ranks, parameters.numel * wire
    if ranks == 1:
        return
    if strategy.zero == 0:
        yield Message(axes, "all_reduce", 1, size)
        return
    yield Message(axes, "reduce_scatter", 1, size)
    yield Message(axes, "all_gather", 2 if strategy.zero == 3 else 1, size / ranks)


def _deepspeed(strategy: Strategy, parameters: RankParameters, passes: float) -> Iterator[Message]:
    """Yields the messages of DeepSpeed 0.19 in float32.

    Stages 1 and 2 sum whole gradients, and gather weights after the update.
    """
    zero, size = strategy.zero, float(parameters.numel * FLOAT32)
    axes = strategy.label(*GRADIENTS)
    if matrix := strategy.label(Role.MATRIX):
        partial = sum(unit.partial_shard(1) for unit in parameters.fsdp_units)
        yield Message(matrix, "all_reduce", passes, partial * FLOAT32)
    if not axes:
        return
    ranks = strategy.ranks(axes)
    if zero == 3:
        yield Message(axes, "all_gather", 2 * passes, size / ranks)
        yield Message(axes, "reduce_scatter", passes, size)
        return
    yield Message(axes, "all_reduce", passes if zero == 2 else 1, size)
    if zero:
        yield Message(axes, "all_gather", 1, size / ranks)


def cut_axes(strategy: Strategy, cut_dim: int | None) -> str:
    """Returns the axes that hold parts of a parameter, joined by underscores: those that shard it, and that cut it."""
    return strategy.label(*((Role.SHARD, Role.MATRIX) if cut_dim is not None else (Role.SHARD,)))


def _in_buckets(axes: str, size: float, bucket: int, first: int | None = None) -> Message:
    """Returns the all-reduce of some bytes in buckets, the first of which may be smaller."""
    if not size:
        return Message(axes, "all_reduce", 0, 0.0)
    behind = max(0.0, size - (first or bucket))
    calls = 1 + math.ceil(behind / bucket)
    return Message(axes, "all_reduce", calls, size / calls)


def _add(total: dict[str, dict[str, Count]], axes: str, kind: str, count: Count) -> None:
    total[axes][kind] = total[axes].get(kind, Count()) + count
