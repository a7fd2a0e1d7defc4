"""Predicts the time of a training step, and what follows from it for a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sciml.distributed.axes import Role
from sciml.planning.cluster import GB, MICROSECONDS, ClusterConfig, Efficiency
from sciml.planning.communication import CommunicationModel, Message, cut_axes
from sciml.planning.costs import FLOAT32, AffineCost
from sciml.planning.links import Links
from sciml.planning.memory import MemoryModel
from sciml.planning.model_facts import ModelFacts
from sciml.planning.parameters import RankParameters
from sciml.planning.pass_time import HINDRANCE, STAGES, TERA, PassTimeModel
from sciml.planning.pipeline import BACKWARD, FORWARD, INPUT, WEIGHT, Bar, order, timeline
from sciml.planning.strategy import Strategy, TrainingSpec
from sciml.training.config import Precision

SECONDS_PER_HOUR, JOULES_PER_KWH = 3600.0, 3.6e6
COPIES = {"all_gather": 3.0, "reduce_scatter": 2.0, "all_reduce": 4.0}
"""How often what is reduced or gathered as a whole is read or written on its way in and out of a collective."""
KERNELS_OF_AN_UPDATE = 1
"""Kernels for each parameter, where parameters are updated one after the other."""


@dataclass(frozen=True)
class StepTime:
    """Holds the seconds of a step on the rank that has most to do.

    Attributes:
        compute: forward and backward passes.
        waits: messages within micro-batches, by axis.
        reduction: reducing and gathering gradients and weights, as far as no computing hides it.
        bubble: waiting for the first and the last micro-batch to pass through a pipeline.
        update: of the weights, and of what is cast of them once a step.
    """

    compute: float
    waits: dict[str, float]
    reduction: float
    bubble: float
    update: float

    @property
    def total(self) -> float:
        return self.compute + sum(self.waits.values()) + self.reduction + self.bubble + self.update

    def parts(self) -> dict[str, float]:
        """Returns seconds by name; waits are named by their axis."""
        rest = {"reduction": self.reduction, "bubble": self.bubble, "update": self.update}
        return {"compute": self.compute, **self.waits, **rest}


@dataclass(frozen=True)
class Speed:
    """Holds the figures that follow from a step's time.

    Attributes:
        samples_per_s: of the whole machine.
        model_flops, hardware_flops: shares of the devices' peak (MFU, HFU), without and with recomputation.
        hours, device_hours: of the whole training.
        energy_kwh, cost: of the whole training; None where the cluster states no power, no price.
    """

    step: StepTime
    samples_per_s: float
    model_flops: float
    hardware_flops: float
    hours: float
    device_hours: float
    energy_kwh: float | None
    cost: float | None


class ThroughputModel:
    """Predicts how long a step takes: the slowest stage for each micro-batch, a bubble, a reduction and an update.

    Messages within micro-batches are waited for. Those of gradients and weights run beside the computing where the
    engine lets them: beside the last backward pass with DistributedDataParallel, beside the passes that they belong to
    with FSDP2 and with stage 3 of DeepSpeed, but for those at its ends; not in a pipeline.

    Args:
        memory: knows the parameters and the state of ranks.
    """

    def __init__(
        self,
        facts: ModelFacts,
        cluster: ClusterConfig,
        training: TrainingSpec,
        efficiency: Efficiency,
        memory: MemoryModel,
    ) -> None:
        self.facts, self.cluster, self.training = facts, cluster, training
        self.efficiency = efficiency.on(cluster)
        self.memory, self.communication = memory, CommunicationModel(facts, training)
        self.links = Links(cluster, self.efficiency)
        self.passes = PassTimeModel(facts, cluster, self.efficiency, self.links)
        self._orthogonalizations: dict[tuple[Any, ...], float] = {}
        self._reductions: dict[tuple[Any, ...], tuple[AffineCost, AffineCost]] = {}

    def of(self, strategy: Strategy) -> StepTime:
        """Predicts the time of a step, by part."""
        passes = strategy.micro_batches(self.training)
        times = self.passes.of(strategy)
        totals = {stage: time.total for stage, time in times.items()}
        slowest = max(totals, key=lambda stage: totals[stage])
        parameters = self.memory.rank_parameters(strategy, slowest)
        one = times[slowest]
        return StepTime(
            passes * one.compute,
            {axis: passes * seconds for axis, seconds in one.waits.items()},
            reduction=self._reduction(strategy, parameters, passes, one.compute),
            bubble=self.passes.bubble(strategy, totals),
            update=self._update(strategy, parameters) + self.passes.casting(strategy, parameters.stage_counts),
        )

    def speed(self, strategy: Strategy) -> Speed:
        """Predicts the figures of the whole machine and the whole training."""
        step, training, cluster = self.of(strategy), self.training, self.cluster
        forward, backward = self.facts.sample_flops()
        model, hardware = forward + backward, sum(self.facts.sample_flops(strategy.recompute))
        if self.facts.accounting is not None and strategy.recompute == "full":
            hardware = model + forward  # Megatron recomputes all; torch leaves out what nobody needs
        peak = strategy.devices * cluster.peak_tflops[strategy.precision] * TERA * step.total / training.global_batch
        hours = step.total * training.steps_of(step.total) / SECONDS_PER_HOUR
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

    def least(self, strategy: Strategy) -> float:
        """Returns the least seconds of computing, for which nothing of the mesh has to be known."""
        return self._step_flops / (strategy.devices * self._flops_per_s(strategy.precision))

    @cached_property
    def _step_flops(self) -> float:
        stages = self.facts.profile(1, 1, "bf16", "none").stages(1, self.facts.depth, 1)
        one = sum((stage.forward.products(1) + stage.backward.products(1)) * times for stage, times in stages)
        return one * self.training.global_batch

    def bound(self, strategy: Strategy) -> float:
        """Returns seconds that a step takes at least, see :meth:`bounds`."""
        return float(self.bounds(strategy, (strategy.micro_batch,))[0])

    def bounds(self, strategy: Strategy, micro_batches: tuple[int, ...]) -> Sequence[float]:
        """Returns seconds that a step takes at least with micro-batches of some sizes, without reduction and update."""
        bounds: Sequence[float] = self.passes.bounds(
            strategy, self.training.global_batch / strategy.data_ranks, micro_batches
        ).tolist()
        return bounds

    def _flops_per_s(self, precision: Precision) -> float:
        return self.cluster.peak_tflops[precision] * TERA * self.efficiency.compute

    def timeline(self, strategy: Strategy, micro_batches: int) -> list[Bar]:
        """Lays out a step of a pipeline with so many micro-batches, as it would run."""
        p, samples = strategy.parallel, strategy.micro_batch
        orders = [order(p.schedule, rank, p.pp, p.interleave, micro_batches) for rank in range(p.pp)]
        seconds = {}
        for rank in range(p.pp):
            counts = self.memory.rank_parameters(strategy, rank).stage_counts
            halves = self.passes.halves(strategy, counts)
            times = self.passes.on_rank(strategy, counts, samples)
            waits = times.total - times.compute - times.waits[STAGES]
            forward, backward = (half / p.interleave * (1 + waits / sum(halves)) for half in halves)
            seconds[rank] = {FORWARD: forward, BACKWARD: backward, INPUT: backward / 2, WEIGHT: backward / 2}
        sizes = strategy.profile(self.facts).stage_activations
        stage = strategy.label(Role.STAGE)
        sending = sum(self.links.cost(strategy, stage, "send", 1, size)(samples) for size in sizes)
        return timeline(orders, lambda action: seconds[action.stage % p.pp][action.kind], sending)

    def _reduction(self, strategy: Strategy, parameters: RankParameters, passes: float, compute: float) -> float:
        """Predicts the wait for gradients and gathered weights."""
        p = strategy.parallel
        deepspeed = strategy.engine.name == "deepspeed"
        key = strategy.sharing, strategy.parallel.interleave, parameters.stage
        if key not in self._reductions:
            one, two = (self._late_and_overlapping(strategy, parameters, passes) for passes in (1, 2))
            self._reductions[key] = AffineCost.through(one[0], two[0]), AffineCost.through(one[1], two[1])
        late, overlapping = (seconds(passes) for seconds in self._reductions[key])
        in_turn = self.cluster.device == "cpu"  # whose cores compute and communicate
        if in_turn or p.pp > 1 or self.facts.accounting is not None or (deepspeed and strategy.zero < 3):
            return late + overlapping
        beside = passes * compute
        if p.shard == 1 and not deepspeed:  # only the last backward pass
            forward, backward = self.facts.sample_flops()
            beside = compute * backward / (forward + backward)
        # What runs beside the computing takes cores and bandwidth from it.
        return late + max(overlapping - beside, overlapping / (len(parameters.blocks) + 1), HINDRANCE * overlapping)

    def _late_and_overlapping(
        self, strategy: Strategy, parameters: RankParameters, passes: float
    ) -> tuple[float, float]:
        """Predicts the seconds of what starts when all backward passes are done, and of what may run beside them."""
        messages = list(self.communication.gradients(strategy, parameters, passes))
        # Partial gradients of matrices, and of tokens beside shards, are summed last.
        late = [strategy.label(Role.MATRIX)]
        if strategy.parallel.shard > 1 and strategy.engine.name == "native":
            late.append(strategy.label(Role.TOKEN))
        return (
            self._collectives(strategy, [message for message in messages if message.axes in late]),
            self._collectives(strategy, [message for message in messages if message.axes not in late]),
        )

    def _collectives(self, strategy: Strategy, messages: Sequence[Message]) -> float:
        """Predicts the seconds of collectives, with the copies that they need."""
        copied = sharding = 0.0
        for axes, kind, calls, payload in messages:
            if axes == strategy.label(Role.SHARD):
                sharding += calls * self.cluster.shard_us * MICROSECONDS
            whole = payload * (strategy.ranks(axes) if kind == "all_gather" else 1)
            copied += COPIES.get(kind, 0.0) * calls * whole
        return self.links.seconds(strategy, messages) + copied / self.passes.bytes_per_s + sharding

    def _update(self, strategy: Strategy, parameters: RankParameters) -> float:
        """Predicts the time to read and write the state, in as many kernels as that takes."""
        size = self.memory.state(strategy, parameters).moved
        if strategy.engine.offload == "cpu":  # gradients go to the host, and weights come back
            size += 2 * FLOAT32 * parameters.numel
        measured = self.cluster.update_gb_per_s
        rate = self.passes.bytes_per_s if measured is None else measured * GB
        seconds = size / rate + self._update_overhead(strategy, parameters)
        if self.training.matrices.needs_whole_matrices:
            key = strategy.sharing, strategy.parallel.interleave, parameters.stage
            if key not in self._orthogonalizations:
                self._orthogonalizations[key] = self._orthogonalization(strategy, parameters)
            seconds += self._orthogonalizations[key]
        return seconds

    def _orthogonalization(self, strategy: Strategy, parameters: RankParameters) -> float:
        """Predicts the seconds in which ranks exchange matrices and make them orthogonal in float32, each its share."""
        flops = 0.0
        for (shape, cut_dim), count in parameters.trained.matrices.kinds.items():
            rows, columns = (n * strategy.parallel.tp if dim == cut_dim else n for dim, n in enumerate(shape))
            axes = cut_axes(strategy, cut_dim)
            flops += count * self.training.matrices.flops(rows, columns) / (strategy.ranks(axes) if axes else 1)
        precision = "fp32" if "fp32" in self.cluster.peak_tflops else strategy.precision
        messages = list(self.communication.matrices(strategy, parameters))
        return flops / self._flops_per_s(precision) + self._collectives(strategy, messages)

    def _update_overhead(self, strategy: Strategy, parameters: RankParameters) -> float:
        """Predicts the seconds of an update that depend on the number of parameters alone."""
        cluster, sharded = self.cluster, strategy.parallel.shard > 1
        each = KERNELS_OF_AN_UPDATE * cluster.kernel_us
        if sharded and cluster.shard_update_us is not None:
            each = cluster.shard_update_us
        elif not sharded and (cluster.device == "accelerator" or cluster.update_gb_per_s is not None):
            return 0.0  # all in a few kernels, or in what was measured
        return each * MICROSECONDS * sum(len(unit.shapes) for unit in parameters.trained.fsdp_units)
