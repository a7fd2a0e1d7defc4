"""The mesh of a run: its processes arranged along axes, each axis one way of sharing the work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from sciml.core.errors import ConfigError
from sciml.distributed.world import World

AXES = ("pp", "dp", "shard", "sp", "tp")
"""From the slowest links to the fastest: neighbors in rank are neighbors in ``tp``, inside a node."""

DATA = ("dp", "shard")
"""Axes along which the samples of a batch are shared."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """Processes arranged along ``AXES``.

    Attributes:
        world: the processes.
        degrees: ranks along each axis; their product is the number of processes.
    """

    world: World
    degrees: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        degrees = {axis: self.degrees.get(axis, 1) for axis in AXES}
        object.__setattr__(self, "degrees", degrees)
        if math.prod(degrees.values()) != self.world.size:
            written = " x ".join(f"{axis} {degree}" for axis, degree in degrees.items())
            raise ConfigError(
                f"{written} is a mesh of {math.prod(degrees.values())} processes, and there are {self.world.size}",
                key="parallel",
                hint=f"start {math.prod(degrees.values())} processes, e.g. with torchrun",
            )
        object.__setattr__(self, "_torch", self._arrange())

    def _arrange(self) -> DeviceMesh | None:
        used = {axis: degree for axis, degree in self.degrees.items() if degree > 1}
        if not used:
            return None
        return init_device_mesh(self.world.device.type, tuple(used.values()), mesh_dim_names=tuple(used))

    @classmethod
    def alone(cls, device: torch.device | str = "cpu") -> Mesh:
        """The mesh of a single process."""
        return cls(World(0, 1, torch.device(device)))

    @property
    def device(self) -> torch.device:
        return self.world.device

    @property
    def is_main(self) -> bool:
        return self.world.is_main

    @property
    def data_rank(self) -> int:
        """Which part of every batch this process works on."""
        return self.rank(*DATA)

    @property
    def num_data_ranks(self) -> int:
        """Into how many parts a batch is shared."""
        return self.size(*DATA)

    def size(self, *axes: str) -> int:
        """Ranks along some axes together."""
        return math.prod(self.degrees[axis] for axis in axes)

    def rank(self, *axes: str) -> int:
        """Place of this process along some axes, the last of them fastest."""
        place = 0
        for axis in axes:
            place = place * self.degrees[axis] + self._coordinate(axis)
        return place

    def _coordinate(self, axis: str) -> int:
        later = AXES[AXES.index(axis) + 1 :]
        return self.world.rank // self.size(*later) % self.degrees[axis]

    def group(self, *axes: str) -> dist.ProcessGroup | None:
        """The processes that differ from this one along some axes only; None where it has no such peers."""
        mesh = self.axes(*axes)
        return None if mesh is None else mesh.get_group()

    def axes(self, *axes: str) -> DeviceMesh | None:
        """Some axes flattened into one dim, as a torch mesh; None where there is one rank along them."""
        used = tuple(axis for axis in AXES if axis in axes and self.degrees[axis] > 1)
        if not used:
            return None
        torch_mesh: DeviceMesh = self._torch  # type: ignore[attr-defined]
        return torch_mesh[used[0]] if len(used) == 1 else torch_mesh[used]._flatten("_".join(used))

    def torch_mesh(self, *axes: str) -> DeviceMesh:
        """Some axes as a torch mesh, each with more than one rank a dim of its own."""
        torch_mesh: DeviceMesh = self._torch  # type: ignore[attr-defined]
        return torch_mesh[tuple(axis for axis in AXES if axis in axes and self.degrees[axis] > 1)]

    def add(self, tensors: Sequence[Tensor], *axes: str) -> None:
        """Adds tensors over some axes, in place; over those of the data by default."""
        group = self.group(*(axes or DATA))
        if group is not None:
            self.world.add(tensors, group)
