"""Chooses the engine that carries out the training steps, and says what it can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from sciml.core.errors import ConfigError
from sciml.distributed.axes import SAMPLES, Role, axes_of, key_of, num_ranks
from sciml.parallel.config import ParallelConfig
from sciml.training.optimizer import optimizer_spec

if TYPE_CHECKING:  # neither torch nor DeepSpeed is imported before it is needed
    from sciml.domain.protocol import Task
    from sciml.parallel.model import ParallelModel
    from sciml.training.config import OptimConfig, TrainerConfig
    from sciml.training.engine import Engine

EngineName = Literal["native", "deepspeed"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
NATIVE = "or engine=native"


@dataclass(frozen=True)
class EngineConfig:
    """Says what carries out the training steps: torch alone, or DeepSpeed.

    Attributes:
        name: ``native`` or ``deepspeed``.
        zero: with DeepSpeed, its stage of ZeRO over all data-parallel ranks: 0 nothing is sharded, 1 the optimizer,
            2 gradients too, 3 weights too. None: ``parallel.zero`` where ``parallel.shard`` is set; else 0, or 1
            with a pipeline.
        offload: with DeepSpeed and ZeRO, where the optimizer is kept and run: ``none`` (beside the weights) or
            ``cpu``.
    """

    name: EngineName = "native"
    zero: Literal[0, 1, 2, 3] | None = None
    offload: Literal["none", "cpu"] = "none"

    def __post_init__(self) -> None:
        if self.name == "native" and self.zero is not None:
            raise ConfigError(
                "is an option of engine=deepspeed", key="engine.zero", hint="use parallel.shard and parallel.zero"
            )
        if self.name == "native" and self.offload != "none":
            raise ConfigError("is an option of engine=deepspeed", key="engine.offload", hint="leave it out")

    def stage(self, parallel: ParallelConfig) -> int:
        """Returns DeepSpeed's stage of ZeRO."""
        if self.zero is not None:
            return self.zero
        if parallel.shard > 1:
            return parallel.zero
        return 1 if parallel.pp > 1 else 0

    def degrees(self, parallel: ParallelConfig, num_processes: int) -> dict[str, int]:
        """Returns the ranks along each axis of the mesh. DeepSpeed shards over all data ranks, so that they are all
        ``dp``.

        Raises:
            ConfigError: where the degrees do not multiply to the number of processes, or the engine cannot run them.
        """
        degrees = parallel.degrees(num_processes)
        if self.name == "native":
            return degrees
        self._check(parallel)
        data_ranks = num_ranks(degrees, *SAMPLES)
        if all(num_ranks(degrees, role) > 1 for role in SAMPLES):
            raise ConfigError(
                "engine=deepspeed shards over all data-parallel ranks and not within each replica",
                key=key_of(Role.SHARD),
                hint=f"use {data_ranks}, {NATIVE}",
            )
        first, *others = axes_of(*SAMPLES)
        return {**degrees, first.name: data_ranks, **{axis.name: 1 for axis in others}}

    def _check(self, parallel: ParallelConfig) -> None:
        stage = self.stage(parallel)
        if parallel.shard > 1 and stage == 0:
            raise ConfigError(
                "0 shards nothing", key="engine.zero", hint=f"use 1, 2 or 3, or parallel.dp={parallel.shard}"
            )
        if self.offload == "cpu" and stage == 0:
            raise ConfigError("needs ZeRO", key="engine.offload", hint="set parallel.shard, or engine.zero=1")
        if parallel.pp == 1:
            return
        if stage == 0:
            raise ConfigError(
                "without ZeRO DeepSpeed clips every pipeline stage by a norm of its own",
                key="engine.zero",
                hint="use 1",
            )
        if stage > 1:
            key = "parallel.zero" if self.zero is None else "engine.zero"
            raise ConfigError("in a pipeline DeepSpeed shards the optimizer alone", key=key, hint=f"use 1, {NATIVE}")
        if self.offload == "cpu":
            raise ConfigError("is not possible with a pipeline", key="engine.offload", hint="use parallel.pp=1")
        if parallel.schedule != "1f1b":
            raise ConfigError(
                f"DeepSpeed has one schedule of its own, 1f1b, and not {parallel.schedule}",
                key="parallel.schedule",
                hint=f"use 1f1b, {NATIVE}",
            )


def build_engine(
    config: EngineConfig,
    model: ParallelModel,
    optim: OptimConfig,
    trainer: TrainerConfig,
    task: Task,
) -> Engine:
    """Builds the engine that a configuration names; DeepSpeed is imported only here.

    Args:
        model: on a mesh of ``config.degrees(...)``.

    Raises:
        ConfigError: where DeepSpeed cannot be imported, or cannot train this model.
    """
    if config.name == "native":
        from sciml.training.engine import NativeEngine

        return NativeEngine(model, optim, trainer.precision)
    from sciml.training.deepspeed_engine import DeepSpeedEngine

    stage = config.stage(model.config)
    if task.needs_double_backward and stage == 3:
        raise ConfigError(
            "a loss that is made of gradients needs weights that DeepSpeed keeps whole",
            key="parallel.zero" if config.zero is None else "engine.zero",
            hint=f"use 2, {NATIVE}",
        )
    if config.offload == "cpu" and optimizer_spec(optim).needs_whole_matrices:
        raise ConfigError(
            f"must be none with optim={optim.name}, which needs whole matrices on the device, got {config.offload}",
            key="engine.offload",
            hint="try engine.offload=none, or optim=adamw",
        )
    micro_batch = trainer.micro_batch(model.mesh.num_data_ranks)
    return DeepSpeedEngine(
        model,
        optim,
        trainer.precision,
        stage=stage,
        offload=config.offload == "cpu",
        micro_batch=micro_batch,
        num_micro=trainer.global_batch_size // model.mesh.num_data_ranks // micro_batch,
    )
