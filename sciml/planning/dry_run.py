"""A strategy tried out without its machine: some of its ranks are built, one after the other, in this process alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch.distributed as dist

from sciml.core.errors import RunError
from sciml.distributed.axes import AXES, Role, axes_of, num_ranks
from sciml.distributed.mesh import Mesh
from sciml.parallel.data import local
from sciml.parallel.model import cut
from sciml.planning.cluster import ClusterConfig
from sciml.planning.fake_mesh import fake_mesh
from sciml.planning.memory import MemoryModel
from sciml.planning.strategy import Strategy


@dataclass(frozen=True)
class BuiltRank:
    """Describes a rank that was built.

    Attributes:
        rank: its number.
        coordinates: its position along each axis of the mesh.
        parameters: number of elements on it.
        groups: by axis, the ranks that it communicates with and itself.
        nodes: by axis, the number of nodes that these spread over.
        seconds: time that building took.
    """

    rank: int
    coordinates: dict[str, int]
    parameters: int
    groups: dict[str, tuple[int, ...]]
    nodes: dict[str, int]
    seconds: float


def dry_run(memory: MemoryModel, strategy: Strategy, cluster: ClusterConfig) -> list[BuiltRank]:
    """Builds the mesh of all devices as each of some ranks sees it, and cuts the model for these as a training would.

    The ranks are those at the first and last position along every axis, and those of pipeline stages that differ.
    Weights have shapes only. The parameters of a rank are compared with those of the plan.

    Raises:
        RunError: where they differ.
    """
    return [_build_rank(memory, strategy, cluster, rank) for rank in _ranks(memory, strategy)]


def _ranks(memory: MemoryModel, strategy: Strategy) -> list[int]:
    sizes = strategy.sizes
    inner = strategy.devices // num_ranks(sizes, Role.STAGE)
    stages = memory.distinct_stages(strategy)
    return sorted({stage * inner + rank for stage in stages for rank in _corners(sizes)})


def _corners(sizes: dict[str, int]) -> Iterator[int]:
    """Yields the first rank of a stage, the last, and the last of each axis alone."""
    stride = 1
    last = 0
    yield 0
    for axis in reversed(axes_of(Role.DATA, Role.SHARD, Role.TOKEN, Role.MATRIX)):
        yield (sizes[axis.name] - 1) * stride
        last += (sizes[axis.name] - 1) * stride
        stride *= sizes[axis.name]
    yield last


def _build_rank(memory: MemoryModel, strategy: Strategy, cluster: ClusterConfig, rank: int) -> BuiltRank:
    began = time.perf_counter()
    with fake_mesh(strategy.sizes, rank) as mesh:
        part = cut(memory.facts.build(), mesh, strategy.parallel)
        numel = sum(local(parameter).numel() for _, parameter in part.named_parameters())
        coordinates = {axis.name: mesh.rank(axis.name) for axis in AXES}
        groups = {axis.name: _members(mesh, axis.name) for axis in AXES if mesh.size(axis.name) > 1}
    planned = memory.rank_parameters(strategy, mesh.rank(Role.STAGE))
    expected = sum(unit.shard(strategy.parallel.shard, mesh.rank(Role.SHARD)) for unit in planned.fsdp_units)
    if numel != expected:
        raise RunError(f"rank {rank} ({coordinates}) holds {numel:,} parameters, and the plan counts {expected:,}")
    nodes = {axis: len({member // cluster.devices_per_node for member in group}) for axis, group in groups.items()}
    return BuiltRank(rank, coordinates, numel, groups, nodes, time.perf_counter() - began)


def _members(mesh: Mesh, axis: str) -> tuple[int, ...]:
    group = mesh.group(axis)
    assert group is not None
    return tuple(dist.get_process_group_ranks(group))
