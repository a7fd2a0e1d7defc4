"""The mesh of a run: its processes arranged along axes, and the groups of those that share some work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from sciml.core.errors import ConfigError
from sciml.distributed.axes import AXES, SAMPLES, Axis, Role, join
from sciml.distributed.world import World


@dataclass(frozen=True, eq=False)
class Mesh:
    """Arranges processes along ``AXES``.

    Where methods take axes, they take roles, each of which stands for all axes of that role, and names of single axes;
    they count in the order of ``AXES``, whatever the order in which they are given.

    Attributes:
        world: the processes.
        degrees: ranks along each axis, by its name; their product is the number of processes.
    """

    world: World
    degrees: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        degrees = {axis.name: self.degrees.get(axis.name, 1) for axis in AXES}
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
        """Returns the mesh of a single process."""
        return cls(World(0, 1, torch.device(device)))

    @property
    def device(self) -> torch.device:
        return self.world.device

    @property
    def is_main(self) -> bool:
        return self.world.is_main

    @property
    def data_rank(self) -> int:
        """Returns the number of the part of every batch that this process works on."""
        return self.rank(*SAMPLES)

    @property
    def num_data_ranks(self) -> int:
        """Returns the number of parts into which a batch is shared."""
        return self.size(*SAMPLES)

    def size(self, *axes: Role | str) -> int:
        """Returns the number of ranks along some axes together."""
        return math.prod(self.degrees[axis.name] for axis in _chosen(axes))

    def rank(self, *axes: Role | str) -> int:
        """Returns the number of this process along some axes, the last of them fastest."""
        number = 0
        for axis in _chosen(axes):
            number = number * self.degrees[axis.name] + coordinate(self.world.rank, axis, self.degrees)
        return number

    def group(self, *axes: Role | str) -> dist.ProcessGroup | None:
        """Returns the processes that differ from this one along some axes only; None where it has no such peers."""
        mesh = self.axes(*axes)
        return None if mesh is None else mesh.get_group()

    def axes(self, *axes: Role | str) -> DeviceMesh | None:
        """Returns some axes flattened into one dim, as a torch mesh; None where there is one rank along them."""
        used = self._used(axes)
        if not used:
            return None
        mesh = self.torch_mesh(*axes)
        return mesh if len(used) == 1 else mesh._flatten(join(used))

    def torch_mesh(self, *axes: Role | str) -> DeviceMesh:
        """Returns some axes as a torch mesh, each with more than one rank a dim of its own."""
        torch_mesh: DeviceMesh = self._torch  # type: ignore[attr-defined]
        return torch_mesh[tuple(axis.name for axis in self._used(axes))]

    def _used(self, axes: Sequence[Role | str]) -> list[Axis]:
        return [axis for axis in _chosen(axes) if self.degrees[axis.name] > 1]

    def add(self, tensors: Sequence[Tensor], *axes: Role | str) -> None:
        """Adds tensors over some axes, in place; over those of the samples by default."""
        group = self.group(*(axes or SAMPLES))
        if group is not None:
            self.world.add(tensors, group)


def coordinate(rank: int, axis: Axis, degrees: Mapping[str, int]) -> int:
    """Returns the number of a process along one axis."""
    later = AXES[AXES.index(axis) + 1 :]
    return rank // math.prod(degrees[other.name] for other in later) % degrees[axis.name]


def _chosen(axes: Sequence[Role | str]) -> list[Axis]:
    unknown = [axis for axis in axes if isinstance(axis, str) and axis not in {known.name for known in AXES}]
    if unknown:
        raise KeyError(f"no axis is called {unknown[0]!r}")
    return [axis for axis in AXES if axis.role in axes or axis.name in axes]
