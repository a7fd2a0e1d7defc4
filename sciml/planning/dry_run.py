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
from sciml.planning.fake_mesh import pretended_mesh
from sciml.planning.memory import MemoryModel
from sciml.planning.strategy import Strategy


@dataclass(frozen=True)
class BuiltRank:
    """A rank that was built.

    Attributes:
        rank: its number.
        place: where it stands along each axis of the mesh.
        parameters: numbers that it holds.
        groups: by axis, the ranks that it talks to and itself.
        nodes: by axis, over how many nodes these are spread.
        seconds: that building took.
    """

    rank: int
    place: dict[str, int]
    parameters: int
    groups: dict[str, tuple[int, ...]]
    nodes: dict[str, int]
    seconds: float


def dry_run(memory: MemoryModel, strategy: Strategy, cluster: ClusterConfig) -> list[BuiltRank]:
    """Builds the mesh of all devices as each of some ranks sees it, and cuts the model for these as a training would.

    The ranks are those at the first and last place along every axis, and those of pipeline stages that differ.
    Weights have shapes only. What a rank holds is compared with what the plan counts.

    Raises:
        RunError: where they differ.
    """
    return [_built(memory, strategy, cluster, rank) for rank in _ranks(memory, strategy)]


def _ranks(memory: MemoryModel, strategy: Strategy) -> list[int]:
    sizes = strategy.sizes
    inner = strategy.devices // num_ranks(sizes, Role.STAGE)
    found = {stage * inner + place for stage in memory.places(strategy) for place in _corners(sizes)}
    return sorted(found)


def _corners(sizes: dict[str, int]) -> Iterator[int]:
    """The first rank of a stage, the last, and the last of each axis alone."""
    stride = 1
    last = 0
    yield 0
    for axis in reversed(axes_of(Role.DATA, Role.SHARD, Role.TOKEN, Role.MATRIX)):
        yield (sizes[axis.name] - 1) * stride
        last += (sizes[axis.name] - 1) * stride
        stride *= sizes[axis.name]
    yield last


def _built(memory: MemoryModel, strategy: Strategy, cluster: ClusterConfig, rank: int) -> BuiltRank:
    began = time.perf_counter()
    with pretended_mesh(strategy.sizes, rank) as mesh:
        part = cut(memory.facts.build(), mesh, strategy.parallel)
        held = sum(local(parameter).numel() for _, parameter in part.named_parameters())
        place = {axis.name: mesh.rank(axis.name) for axis in AXES}
        groups = {axis.name: _members(mesh, axis.name) for axis in AXES if mesh.size(axis.name) > 1}
    planned = memory.held(strategy, mesh.rank(Role.STAGE))
    expected = sum(unit.shard(strategy.parallel.shard, mesh.rank(Role.SHARD)) for unit in planned.units)
    if held != expected:
        raise RunError(f"rank {rank} ({place}) holds {held:,} parameters, and the plan counts {expected:,}")
    nodes = {axis: len({member // cluster.devices_per_node for member in group}) for axis, group in groups.items()}
    return BuiltRank(rank, place, held, groups, nodes, time.perf_counter() - began)


def _members(mesh: Mesh, axis: str) -> tuple[int, ...]:
    group = mesh.group(axis)
    assert group is not None
    return tuple(dist.get_process_group_ranks(group))
