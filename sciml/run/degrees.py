"""Degrees of parallelism that a number of processes and a batch allow, and those of fewer processes than before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sciml.core.errors import ConfigError
from sciml.distributed.axes import SAMPLES, Role, num_ranks
from sciml.parallel.config import check_micro_batches
from sciml.run.spec import RunSpec, with_overrides


def check_degrees(spec: RunSpec, num_processes: int) -> dict[str, int]:
    """Returns the degree of every axis, or refuses those that a number of processes or a batch do not allow.

    Raises:
        ConfigError: naming a size that works.
    """
    degrees = spec.engine.degrees(spec.parallel, num_processes)
    num_data_ranks = num_ranks(degrees, *SAMPLES)
    micro_batch = spec.trainer.micro_batch(num_data_ranks)
    if num_ranks(degrees, Role.STAGE) > 1:
        check_micro_batches(spec.parallel, spec.trainer.global_batch_size // num_data_ranks // micro_batch)
    return degrees


def fitting_size(spec: RunSpec, most: int) -> int:
    """Returns the largest number of processes, of so many, that suits a run's batch and degrees but for ``dp``.

    Raises:
        ConfigError: none does.
    """
    free = _with_free_replicas(spec)
    for size in range(most, 0, -1):
        try:
            check_degrees(free, size)
        except ConfigError:
            continue
        return size
    check_degrees(free, most)
    raise AssertionError("unreachable")


def with_fitting_replicas(config: dict[str, Any], size: int, before: int) -> dict[str, Any]:
    """Returns the configuration of a restarted run for another number of processes than it was begun with.

    ``dp`` becomes what the other degrees leave. Where no micro-batch was chosen it does not grow, so that a rank with a
    larger share of the batch needs no more memory.
    """
    if size == before:
        return config
    spec = RunSpec.build(config)
    changes: dict[str, Any] = {"parallel.dp": None}
    if spec.trainer.micro_batch_size is None:
        share, most = _share(_with_free_replicas(spec), size), _share(spec, before)
        changes["trainer.micro_batch_size"] = max(n for n in range(1, most + 1) if share % n == 0)
    return with_overrides(config, changes)


def _with_free_replicas(spec: RunSpec) -> RunSpec:
    return replace(spec, parallel=replace(spec.parallel, dp=None))


def _share(spec: RunSpec, size: int) -> int:
    """Returns the samples of a step on each of so many ranks."""
    return spec.trainer.global_batch_size // num_ranks(check_degrees(spec, size), *SAMPLES)
