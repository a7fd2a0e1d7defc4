"""How a model is cut over devices: the degrees that users set."""

from __future__ import annotations

from dataclasses import dataclass

from sciml.core.config import positive
from sciml.core.errors import ConfigError

NOT_YET = ("pp", "shard", "sp", "tp")


@dataclass(frozen=True)
class ParallelConfig:
    """Degrees of the mesh; their product is the number of processes.

    Attributes:
        pp: pipeline stages.
        dp: replicas, each with its own part of the batch; None takes what the other degrees leave.
        shard: ranks over which parameters and optimizer are sharded.
        sp: ranks over which the tokens of a sample are spread.
        tp: ranks over which matrices are cut.
    """

    pp: int = 1
    dp: int | None = None
    shard: int = 1
    sp: int = 1
    tp: int = 1

    def __post_init__(self) -> None:
        for name in NOT_YET:
            degree = getattr(self, name)
            positive(degree, f"parallel.{name}")
            if degree != 1:
                raise ConfigError(
                    f"{degree} is not available in this version", key=f"parallel.{name}", hint="use 1, and parallel.dp"
                )

    def check(self, num_processes: int) -> None:
        """Refuses degrees that do not multiply to the number of processes.

        Raises:
            ConfigError: with the degree that fits.
        """
        if self.dp not in (None, num_processes):
            raise ConfigError(
                f"{self.dp} replicas do not fit {num_processes} processes",
                key="parallel.dp",
                hint=f"use {num_processes}, or start {self.dp} processes with torchrun",
            )
