"""Holds the degrees by which users cut a model over devices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from sciml.core.errors import ConfigError
from sciml.core.types import AtLeastOne
from sciml.distributed.axes import AXES

Schedule = Literal["gpipe", "1f1b", "interleaved", "zero_bubble"]
SEVERAL_STAGES: tuple[Schedule, ...] = ("interleaved", "zero_bubble")
"""Schedules that may run several stages on a rank."""


@dataclass(frozen=True)
class ParallelConfig:
    """Holds the degrees of the mesh, whose product is the number of processes, and says how the axes work.

    Attributes:
        pp: ranks over which the blocks are spread, as pipeline stages.
        dp: replicas, each with its own part of the batch; None takes what the other degrees leave.
        shard: ranks with parts of the batch of their own, over which weights, gradients and optimizer are sharded
            (ZeRO); with ``dp`` beside it every replica is sharded for itself (hybrid sharding).
        cp: ranks over which the tokens of a sample are spread, around which keys and values pass (ring attention).
        sp: ranks over which the tokens of a sample are spread, and heads inside of attention (Ulysses).
        tp: ranks over which matrices are cut by heads and channels, and the tokens between them (Megatron).
        zero: what ``shard`` shards: 1 the optimizer, 2 gradients too, 3 weights too.
        schedule: order of a pipeline's work: ``gpipe``, ``1f1b``, ``interleaved`` or ``zero_bubble``.
        interleave: stages a rank, with the last two schedules.
        auto: whether a plan decides all of it as a training begins.
    """

    pp: AtLeastOne = 1
    dp: AtLeastOne | None = None
    shard: AtLeastOne = 1
    cp: AtLeastOne = 1
    sp: AtLeastOne = 1
    tp: AtLeastOne = 1
    zero: Literal[1, 2, 3] = 3
    schedule: Schedule = "1f1b"
    interleave: AtLeastOne = 1
    auto: bool = False

    def __post_init__(self) -> None:
        if self.interleave > 1 and self.schedule not in SEVERAL_STAGES:
            raise ConfigError(
                f"the schedule {self.schedule} runs one stage a rank",
                key="parallel.interleave",
                hint="use 1, or parallel.schedule=interleaved",
            )
        if self.schedule == "zero_bubble" and self.pp > 1 and self.shard > 1 and self.zero == 3:
            raise ConfigError(
                "the zero-bubble schedule needs a stage's weights whole through the step",
                key="parallel.zero",
                hint="use 2, or parallel.schedule=1f1b",
            )
        if self.interleave > 1 and self.pp == 1:
            raise ConfigError("there is no pipeline to interleave", key="parallel.interleave", hint="set parallel.pp")

    @property
    def num_stages(self) -> int:
        """Returns the number of pipeline stages over all ranks."""
        return self.pp * self.interleave

    @property
    def given(self) -> dict[str, int]:
        """Returns the number of ranks along each axis, by its name, where it was typed; else 1."""
        return {axis.name: getattr(self, axis.name) or 1 for axis in AXES}

    def degrees(self, num_processes: int) -> dict[str, int]:
        """Returns the number of ranks along each axis, by its name.

        Raises:
            ConfigError: where the degrees do not multiply to the number of processes; it names one that fits.
        """
        degrees = self.given
        if self.dp is None:
            degrees["dp"] = max(1, num_processes // math.prod(degrees.values()))
        if math.prod(degrees.values()) != num_processes:
            raise self._misfit(self.given, num_processes)
        return degrees

    def _misfit(self, degrees: dict[str, int], num_processes: int) -> ConfigError:
        """Returns an error that names the largest degree and the nearest one in its place that fits."""
        used = {axis: degree for axis, degree in degrees.items() if degree > 1} or degrees
        largest = max(used, key=lambda axis: used[axis])
        product = math.prod(degrees.values())
        rest = product // degrees[largest]
        start = f"start {product} processes with torchrun"

        def fits(degree: int) -> bool:
            return num_processes % (degree * rest) == 0 if self.dp is None else degree * rest == num_processes

        fitting = [degree for degree in range(1, num_processes + 1) if fits(degree)]
        if fitting:
            nearest = min(fitting, key=lambda degree: abs(degree - degrees[largest]))
            start = f"parallel.{largest}={nearest}, or {start}"
        written = " x ".join(f"{axis} {degree}" for axis, degree in used.items())
        there = "one process" if num_processes == 1 else f"{num_processes} processes"
        return ConfigError(f"{written} does not fit {there}", key=f"parallel.{largest}", hint=start)


def check_micro_batches(config: ParallelConfig, num_micro: int) -> None:
    """Refuses numbers of micro-batches that a schedule cannot run.

    Raises:
        ConfigError: naming a number that works.
    """
    rounds = max(1, num_micro // config.pp)
    if config.schedule == "1f1b" and num_micro < config.pp:
        fitting = config.pp
    elif config.schedule in SEVERAL_STAGES and num_micro % rounds:
        fitting = num_micro // config.pp * config.pp
    else:
        return
    raise ConfigError(
        f"{num_micro} micro-batches a step do not suit the schedule {config.schedule} on {config.pp} ranks",
        key="trainer.micro_batch_size",
        hint=f"choose it so that a data-parallel rank has {fitting} micro-batches",
    )
