"""What a training step sends along each axis of the mesh: calls and bytes, counted as a real step's are.

Inside a forward and a backward pass that is what a pretended pass has sent, as often as there are micro-batches. What
engines add (gradients, gathered weights, stages' inputs, sums of a few numbers) stands here in formulas; tests compare
them with those of ``tests/distributed/test_volume.py``, which real ranks meet to the byte.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator

from sciml.distributed.axes import GRADIENTS, REPLICAS, SAMPLES, label
from sciml.distributed.collectives import BUCKET_BYTES
from sciml.distributed.communication import Count, ring
from sciml.planning.facts import FLOAT32
from sciml.planning.model_facts import ModelFacts
from sciml.planning.rank_parameters import Held
from sciml.planning.strategy import Strategy, Training

FIRST_DDP_BUCKET, DDP_BUCKET = 2**20, 25 * 2**20
"""Of DistributedDataParallel."""
DOUBLE = 8

Sent = tuple[str, str, float, float]
"""Axes, kind, calls, and payload of each in bytes."""


class TrafficModel:
    """Traffic of a rank in a step."""

    def __init__(self, facts: ModelFacts, training: Training) -> None:
        self.facts, self.training = facts, training

    def table(self, strategy: Strategy, held: Held, shard: int = 0) -> dict[str, dict[str, Count]]:
        """Counts by axes and kind.

        Args:
            shard: the rank's place along ``shard``; the first has most.
        """
        total: dict[str, dict[str, Count]] = defaultdict(dict)
        passes = strategy.micro_batches(self.training)
        samples = strategy.micro_batch * passes
        for (axes, kind), one in self.passes(strategy, held):
            count = Count(round(one.calls * passes), round(one.bytes * samples), one.wire_bytes * samples)
            _add(total, axes, kind, count)
        for axes, kind, calls, size in self.besides(strategy, held, shard):
            if calls:
                ranks = strategy.ranks(axes)
                _add(total, axes, kind, Count(round(calls), round(calls * size), calls * size * ring(kind, ranks)))
        return dict(total)

    def passes(self, strategy: Strategy, held: Held) -> Iterator[tuple[tuple[str, str], Count]]:
        """What a micro-batch sends inside the model: calls, and bytes of one sample."""
        p = strategy.parallel
        if p.tp * p.sp == 1:
            return
        rank = self.facts.rank(p.tp, p.sp, strategy.precision, strategy.recompute)
        parts = [(rank.first, held.is_first), (rank.block, len(held.blocks)), (rank.last, held.is_last)]
        for part, times in parts:
            for messages in (part.sent_forward, part.sent_backward) if times else ():
                for key, count in messages.items():
                    yield key, Count(round(count.calls * times), round(count.bytes * times), count.wire_bytes * times)

    def besides(self, strategy: Strategy, held: Held, shard: int = 0) -> Iterator[Sent]:
        """What engines send."""
        yield from self.pipeline(strategy, held)
        yield from self.gradients(strategy, held, strategy.micro_batches(self.training), shard)
        if self.facts.accounting is None and strategy.engine.name == "native":
            yield from self._bookkeeping(strategy, held)

    def ways(self, strategy: Strategy, held: Held) -> int:
        """How often a micro-batch's flow leaves a rank, there and back.

        Of neighboring stages no two are on one rank, so that interleaving v of them multiplies the volume by v.
        """
        p = strategy.parallel
        return 0 if p.pp == 1 else 2 * p.interleave - held.is_first - held.is_last

    def pipeline(self, strategy: Strategy, held: Held) -> Iterator[Sent]:
        """Tokens, and what depends on parameters besides, cross each boundary once there and once back."""
        p, ways = strategy.parallel, self.ways(strategy, held)
        if not ways:
            return
        calls = strategy.micro_batches(self.training) * ways
        for size in self.facts.rank(p.tp, p.sp, strategy.precision, strategy.recompute).flow:
            for kind in ("send", "recv"):
                yield "pp", kind, calls, strategy.micro_batch * size

    def gradients(self, strategy: Strategy, held: Held, passes: float, shard: int = 0) -> Iterator[Sent]:
        """Gradients of replicas, or of shards with the weights that are gathered for them; and of tied parameters.

        Args:
            passes: micro-batches of a step, with which calls grow evenly.
        """
        if held.tied.numel:
            wire = FLOAT32 if self.facts.accounting is None else self.facts.accounting.wire
            for kind in ("send", "recv"):
                yield "pp", kind, 1, held.tied.shard(strategy.parallel.shard, shard) * wire
        if self.facts.accounting is not None:
            yield from _accounted(strategy, held, self.facts.accounting.wire)
            return
        if strategy.engine.name == "deepspeed":
            yield from _deepspeed(strategy, held, passes)
            return
        p, sizes = strategy.parallel, strategy.sizes
        if p.tp > 1:
            partial = sum(unit.partial_shard(p.shard, shard) for unit in held.units)
            yield "tp", "all_reduce", *_in_buckets(partial * FLOAT32, BUCKET_BYTES)
        if p.shard > 1:
            yield from _shards(strategy, held, passes, shard)
            return
        axes = label(sizes, *REPLICAS)
        if axes and p.pp > 1:
            yield axes, "all_reduce", *_in_buckets(held.numel * FLOAT32, BUCKET_BYTES)
        elif axes:
            yield axes, "all_reduce", *_in_buckets(held.numel * FLOAT32, DDP_BUCKET, FIRST_DDP_BUCKET)

    def _bookkeeping(self, strategy: Strategy, held: Held) -> Iterator[Sent]:
        """Means over the batch (loss, its parts, weight), and squares of gradients held in parts."""
        data = label(strategy.sizes, *SAMPLES)
        if data and held.is_last:
            yield data, "all_reduce", 1, (2 + self.facts.loss_parts) * DOUBLE
        for axis, numbers in (("shard", 2), ("tp", 1), ("pp", 1)):
            if strategy.sizes[axis] > 1:
                yield axis, "all_reduce", 1, numbers * DOUBLE


def _shards(strategy: Strategy, held: Held, passes: float, shard: int) -> Iterator[Sent]:
    """Each block, and all else together, is gathered before it is used and its gradient scattered afterwards.

    Stage 1 scatters once a step, 2 and 3 with every micro-batch; stage 3 gathers a block again for the backward
    pass, but the last. In a pipeline weights stay gathered and gradients whole until the end of the step, and only
    what stage 3 lets go after a forward pass comes again.
    """
    p = strategy.parallel
    every_time = 1.0 if p.zero == 1 or p.pp > 1 else passes
    comes_again = len(held.blocks) - 1 if p.zero == 3 else 0
    alike = Counter((unit.padded(p.shard) * FLOAT32, n < comes_again) for n, unit in enumerate(held.units))
    for (size, lets_go), times in alike.items():
        gathers = 1.0
        if p.zero == 3:
            gathers = (1 + passes if lets_go else 1) if p.pp > 1 else passes * (2 if lets_go else 1)
        if size:
            yield "shard", "all_gather", times * gathers, size
            yield "shard", "reduce_scatter", times * every_time, size * p.shard
            if strategy.sizes["dp"] > 1:
                yield "dp", "all_reduce", times * every_time, size
    if p.sp > 1:
        own = sum(unit.shard(p.shard, shard) for unit in held.units)
        yield "sp", "all_reduce", *_in_buckets(own * FLOAT32, BUCKET_BYTES)


def _accounted(strategy: Strategy, held: Held, wire: float) -> Iterator[Sent]:
    """Gradients scattered and weights gathered over all data ranks, once a step; added up where nothing is sharded.

    Source: Rajbhandari et al. (2020), https://doi.org/10.48550/arXiv.1910.02054, section 7.
    """
    axes, ranks, size = label(strategy.sizes, *SAMPLES), strategy.data_ranks, held.numel * wire
    if ranks == 1:
        return
    if strategy.zero == 0:
        yield axes, "all_reduce", 1, size
        return
    yield axes, "reduce_scatter", 1, size
    yield axes, "all_gather", 2 if strategy.zero == 3 else 1, size / ranks


def _deepspeed(strategy: Strategy, held: Held, passes: float) -> Iterator[Sent]:
    """As DeepSpeed 0.19 reduces float32: stages 1 and 2 add gradients up whole, and gather weights after the update."""
    sizes, zero, size = strategy.sizes, strategy.zero, float(held.numel * FLOAT32)
    axes = label(sizes, *GRADIENTS)
    ranks = strategy.data_ranks * sizes["sp"]
    if strategy.parallel.tp > 1:
        yield "tp", "all_reduce", passes, sum(unit.partial_shard(1) for unit in held.units) * FLOAT32
    if not axes:
        return
    if zero == 3:
        yield axes, "all_gather", 2 * passes, size / ranks
        yield axes, "reduce_scatter", passes, size
        return
    yield axes, "all_reduce", passes if zero == 2 else 1, size
    if zero:
        yield axes, "all_gather", 1, size / ranks


def _in_buckets(size: float, bucket: int, first: int | None = None) -> tuple[float, float]:
    """Calls and bytes of each where much is added up in buckets, the first of which may be smaller."""
    if not size:
        return 0, 0.0
    behind = max(0.0, size - (first or bucket))
    calls = 1 + math.ceil(behind / bucket)
    return calls, size / calls


def _add(total: dict[str, dict[str, Count]], axes: str, kind: str, count: Count) -> None:
    total[axes][kind] = total[axes].get(kind, Count()) + count
