"""How long a training step takes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

from sciml.planning.cluster import GB, ClusterConfig
from sciml.planning.communication import Sent, TrafficModel
from sciml.planning.facts import FLOAT32, Effort, Line
from sciml.planning.links import MICROSECONDS, Efficiency, Links
from sciml.planning.memory import MemoryModel
from sciml.planning.model_facts import ModelFacts
from sciml.planning.rank_parameters import Held
from sciml.planning.step_time import Speed, StepTime
from sciml.planning.strategy import Strategy, Training, blocks_of_ranks
from sciml.planning.timeline import BACKWARD, FORWARD, INPUT, WEIGHT, Bar, order, run
from sciml.training.config import Precision

TERA, SECONDS_PER_HOUR, JOULES_PER_KWH = 1e12, 3600.0, 3.6e6
ZERO_BUBBLE = 1 / 3
"""What is left of a bubble where weights' gradients fill it: (F + B - W) of (F + B + W), were all three equal.

Source: Qi et al. (2024), https://doi.org/10.48550/arXiv.2401.10241, table 2 (ZB-H1).
"""
COPIED = {"all_gather": 3.0, "reduce_scatter": 2.0, "all_reduce": 4.0}
"""How often what is reduced or gathered as a whole is read or written on its way in and out of a collective."""
KERNELS_OF_AN_UPDATE = 10
"""For each parameter, where they are updated one after the other."""


class _Load(NamedTuple):
    """What a rank does with a micro-batch of any size: computing, and seconds of messages along each axis."""

    effort: Effort
    tp: Line
    sp: Line
    pp: Line


class _Pass(NamedTuple):
    """Seconds of a micro-batch on a rank: computing, and messages along ``tp``, ``sp`` and ``pp``."""

    compute: float
    tp: float
    sp: float
    pp: float


class _Passes(NamedTuple):
    """Seconds of a micro-batch at the places of a pipeline that differ, and at the slowest of them, by stage."""

    parts: dict[int, _Pass]
    total: dict[int, float]
    slowest: int

    @classmethod
    def of(cls, parts: dict[int, _Pass]) -> _Passes:
        total = {stage: sum(seconds) for stage, seconds in parts.items()}
        return cls(parts, total, max(total, key=lambda stage: total[stage]))


class ThroughputModel:
    """Tells how long a step takes: time of the slowest stage for each micro-batch, a bubble, and what comes behind.

    Messages of ``tp``, ``sp`` and ``pp`` are waited for. Those of gradients and weights run beside the computing where
    the engine lets them: beside the last backward pass with DistributedDataParallel, beside the passes that they belong
    to with FSDP2 and with stage 3 of DeepSpeed, but for those at its ends; not in a pipeline.

    Args:
        memory: knows what ranks hold.
    """

    def __init__(
        self, facts: ModelFacts, cluster: ClusterConfig, training: Training, efficiency: Efficiency, memory: MemoryModel
    ) -> None:
        self.facts, self.cluster, self.training, self.efficiency = facts, cluster, training, efficiency
        self.memory, self.traffic, self.links = memory, TrafficModel(facts, training), Links(cluster, efficiency)
        self._loads: dict[tuple[Any, ...], dict[int, _Load]] = {}
        self._passes: dict[tuple[Any, ...], _Passes] = {}
        self._waits: dict[tuple[Any, ...], tuple[Line, Line]] = {}

    def of(self, strategy: Strategy) -> StepTime:
        """Where the time of a step goes."""
        passes, one = strategy.micro_batches(self.training), self._one_pass(strategy)
        held = self.memory.held(strategy, one.slowest)
        slowest = one.parts[one.slowest]
        compute, tp, sp, pp = (passes * seconds for seconds in slowest)
        return StepTime(
            compute,
            tp,
            sp,
            pp,
            dp=self._reduction(strategy, held, passes, slowest.compute),
            bubble=self._bubble(strategy, one.total),
            update=self._update(strategy, held),
        )

    def speed(self, strategy: Strategy) -> Speed:
        """What that means for the whole machine and the whole training."""
        step, training, cluster = self.of(strategy), self.training, self.cluster
        forward, backward = self.facts.sample_flops()
        model, hardware = forward + backward, sum(self.facts.sample_flops(strategy.recompute))
        if self.facts.accounting is not None and strategy.recompute == "full":
            hardware = model + forward  # Megatron computes all again; torch leaves out what nobody needs
        peak = strategy.devices * cluster.peak_tflops[strategy.precision] * TERA * step.total / training.global_batch
        hours = step.total * training.steps / SECONDS_PER_HOUR
        device_hours = hours * strategy.devices
        power, price = cluster.power_w, cluster.price_per_hour
        return Speed(
            step,
            samples_per_s=training.global_batch / step.total,
            model_flops=model / peak,
            hardware_flops=hardware / peak,
            hours=hours,
            device_hours=device_hours,
            energy_kwh=None if power is None else power * device_hours * SECONDS_PER_HOUR / JOULES_PER_KWH,
            cost=None if price is None else price * device_hours,
        )

    def within(self, strategy: Strategy) -> float:
        """Seconds of the micro-batches alone, without bubble, reduction and update."""
        one = self._one_pass(strategy)
        return strategy.micro_batches(self.training) * one.total[one.slowest]

    def least(self, strategy: Strategy) -> float:
        """Seconds that computing takes at least, for which nothing of the mesh has to be known."""
        return self._step_flops / (strategy.devices * self._rate(strategy.precision))

    @cached_property
    def _step_flops(self) -> float:
        return sum(self.facts.sample_flops()) * self.training.global_batch

    def _rate(self, precision: Precision) -> float:
        return self.cluster.peak_tflops[precision] * TERA * self.efficiency.compute

    def _memory_rate(self) -> float:
        """Bytes a second."""
        assert self.cluster.memory_gb_per_s is not None
        return self.cluster.memory_gb_per_s * GB * self.efficiency.memory

    def seconds(self, effort: Effort, samples: float, precision: Precision) -> float:
        """Time of some work: products at the speed of matrix units or of memory, all else at that of memory.

        An accelerator is told what to do while it is still at work; a CPU tells itself, between kernels.

        Source: Williams et al. (2009), https://doi.org/10.1145/1498765.1498785.
        """
        products = max(effort.flops(samples) / self._rate(precision), effort.operands(samples) / self._memory_rate())
        working = products + effort.moved(samples) / self._memory_rate()
        calls = effort.kernels * self.cluster.kernel_us * MICROSECONDS
        return max(working, calls) if self.cluster.device == "accelerator" else working + calls

    def _one_pass(self, strategy: Strategy) -> _Passes:
        """Of a micro-batch, remembered."""
        link = self.links.level(strategy, "pp") if strategy.parallel.pp > 1 else ""
        cuts, samples = (strategy.cuts, link), strategy.micro_batch
        if cuts not in self._loads:
            found = self.memory.places(strategy)
            self._loads[cuts] = {s: self._load(strategy, self.memory.held(strategy, s)) for s in found}
        if (cuts, samples) not in self._passes:
            parts = {
                stage: _Pass(self.seconds(load.effort, samples, strategy.precision), *(w(samples) for w in load[1:]))
                for stage, load in self._loads[cuts].items()
            }
            self._passes[cuts, samples] = _Passes.of(parts)
        return self._passes[cuts, samples]

    def timeline(self, strategy: Strategy, micro_batches: int) -> list[Bar]:
        """A step of a pipeline with so many micro-batches, as it would run."""
        p = strategy.parallel
        orders = [order(p.schedule, rank, p.pp, p.interleave, micro_batches) for rank in range(p.pp)]
        seconds = {}
        for rank in range(p.pp):
            held = self.memory.held(strategy, rank)
            halves = [self.seconds(e, strategy.micro_batch, strategy.precision) for e in self._efforts(strategy, held)]
            load = self._load(strategy, held)
            waits = load.tp(strategy.micro_batch) + load.sp(strategy.micro_batch)
            forward, backward = (half / p.interleave * (1 + waits / sum(halves)) for half in halves)
            seconds[rank] = {FORWARD: forward, BACKWARD: backward, INPUT: backward / 2, WEIGHT: backward / 2}
        flow = self.facts.rank(p.tp, p.sp, strategy.precision, strategy.recompute).flow
        sending = sum(self.links.line(strategy, "pp", 1, size)(strategy.micro_batch) for size in flow)
        return run(orders, lambda action: seconds[action.stage % p.pp][action.kind], sending)

    def _efforts(self, strategy: Strategy, held: Held) -> tuple[Effort, Effort]:
        """Of a rank's forward and backward pass."""
        p = strategy.parallel
        rank = self.facts.rank(p.tp, p.sp, strategy.precision, strategy.recompute)
        forward, backward = Effort(), Effort()
        for part, times in ((rank.first, held.is_first), (rank.block, len(held.blocks)), (rank.last, held.is_last)):
            forward, backward = forward + part.forward * times, backward + part.backward * times
        return forward, backward

    def _load(self, strategy: Strategy, held: Held) -> _Load:
        p = strategy.parallel
        rank = self.facts.rank(p.tp, p.sp, strategy.precision, strategy.recompute)
        forward, backward = self._efforts(strategy, held)
        waits = {"tp": Line(), "sp": Line()}
        for (axes, _), count in self.traffic.passes(strategy, held):
            waits[axes] += self.links.line(strategy, axes, count.calls, count.wire_bytes)
        ways = self.traffic.ways(strategy, held)
        between = [self.links.line(strategy, "pp", ways, ways * size) for size in rank.flow] if ways else []
        return _Load(forward + backward, waits["tp"], waits["sp"], sum(between, Line()))

    def _reduction(self, strategy: Strategy, held: Held, passes: float, compute: float) -> float:
        """What is waited for of gradients and gathered weights."""
        p = strategy.parallel
        deepspeed = strategy.engine.name == "deepspeed"
        key = strategy.sharing, held.stage
        if key not in self._waits:
            one, two = (self._behind_and_beside(strategy, held, passes) for passes in (1, 2))
            self._waits[key] = Line.through(one[0], two[0]), Line.through(one[1], two[1])
        behind, total = (seconds(passes) for seconds in self._waits[key])
        in_turn = self.cluster.device == "cpu"  # whose cores compute and talk
        if in_turn or p.pp > 1 or self.facts.accounting is not None or (deepspeed and strategy.zero < 3):
            return behind + total
        beside = passes * compute
        if p.shard == 1 and not deepspeed:  # only the last backward pass
            forward, backward = self.facts.sample_flops()
            beside = compute * backward / (forward + backward)
        return behind + max(total - beside, total / (len(held.blocks) + 1))

    def _behind_and_beside(self, strategy: Strategy, held: Held, passes: float) -> tuple[float, float]:
        """Seconds of what starts when all backward passes are done, and of what may run beside them."""
        messages = list(self.traffic.gradients(strategy, held, passes))
        # Partial gradients of tp, and of sp beside shards, are added up last.
        late = ["tp", "sp"] if strategy.parallel.shard > 1 and strategy.engine.name == "native" else ["tp"]
        behind = self._collected(strategy, [m for m in messages if m[0] in late])
        return behind, self._collected(strategy, [m for m in messages if m[0] not in late])

    def _collected(self, strategy: Strategy, messages: Sequence[Sent]) -> float:
        """Seconds of collectives with what is copied for them."""
        copied = besides = 0.0
        for axes, kind, calls, size in messages:
            if axes == "shard":
                besides += calls * self.cluster.shard_us * MICROSECONDS
            ranks = strategy.ranks(axes)
            copied += COPIED.get(kind, 0.0) * calls * size * (ranks if kind == "all_gather" else 1)
        return self.links.all_seconds(strategy, messages) + copied / self._memory_rate() + besides

    def _bubble(self, strategy: Strategy, times: dict[int, float]) -> float:
        """Time in which a rank of a pipeline waits: one micro-batch on all the others, or on parts of them."""
        p = strategy.parallel
        if p.pp == 1:
            return 0.0
        numbers = [len(blocks) for blocks in blocks_of_ranks(self.facts.depth, p.pp, p.interleave)]
        alike = {numbers[stage]: time for stage, time in times.items() if 0 < stage < p.pp - 1}
        others = times[0] + times[p.pp - 1] + sum(alike[number] for number in numbers[1:-1]) - max(times.values())
        return others / p.interleave * (ZERO_BUBBLE if p.schedule == "zero_bubble" else 1.0)

    def _update(self, strategy: Strategy, held: Held) -> float:
        """Reading and writing the state, in as many kernels as that takes."""
        moved = self.memory.state(strategy, held).updated * self.training.update
        if strategy.engine.offload == "cpu":  # gradients go to the host, and weights come back
            moved += 2 * FLOAT32 * held.numel
        return moved / self._update_rate() + self._parameter_by_parameter(strategy, held)

    def _update_rate(self) -> float:
        """Bytes a second."""
        measured = self.cluster.update_gb_per_s
        return self._memory_rate() if measured is None else measured * GB

    def _parameter_by_parameter(self, strategy: Strategy, held: Held) -> float:
        """Seconds of an update that depend on the number of parameters alone."""
        cluster, sharded = self.cluster, strategy.parallel.shard > 1
        each = KERNELS_OF_AN_UPDATE * cluster.kernel_us
        if sharded and cluster.shard_update_us is not None:
            each = cluster.shard_update_us
        elif not sharded and (cluster.device == "accelerator" or cluster.update_gb_per_s is not None):
            return 0.0  # all in a few kernels, or in what was measured
        return each * MICROSECONDS * sum(len(unit.shapes) for unit in held.units)
