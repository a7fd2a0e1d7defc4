"""Describes the part of a whole parameter that a rank holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from sciml.distributed.axes import AXES, Role, axes_of
from sciml.distributed.mesh import Mesh
from sciml.parallel.data import local


class Parts(Protocol):
    """Says how the ranks of a group share a whole tensor."""

    @property
    def group(self) -> dist.ProcessGroup | None:
        """Returns the ranks that hold parts; None where this one holds all of it."""
        ...

    def split(self, whole: Shaped[Tensor, "..."]) -> list[Tensor]:
        """Returns the part of each rank of the group."""
        ...

    def join(self, parts: list[Tensor]) -> Shaped[Tensor, "..."]:
        """Returns the whole of the parts of all ranks; they may be flattened."""
        ...

    @property
    def sizes(self) -> Sequence[int]:
        """Returns the number of elements of each rank's part."""
        ...


@dataclass(frozen=True)
class Placement:
    """Describes a parameter's placement on the mesh.

    Attributes:
        mesh: the ranks.
        shape: of the whole parameter.
        cuts: roles of the axes along which it is cut, in this order, and the dim that each cuts, as torch.chunk does.
        in_block: whether the parameter belongs to one of the model's blocks, or to a module outside of them that is
            ``is_inner``: that maps features to features as they do.
    """

    mesh: Mesh
    shape: tuple[int, ...]
    cuts: Mapping[Role, int] = field(default_factory=dict)
    in_block: bool = False

    @cached_property
    def group(self) -> dist.ProcessGroup | None:
        """Returns the ranks that hold parts; None where this one holds all of it."""
        return self.mesh.group(*self.cuts) if self.cuts else None

    @cached_property
    def regions(self) -> list[tuple[slice, ...]]:
        """Returns the part of each rank of the group, as slices of the whole."""
        roles = list(dict.fromkeys(axis.role for axis in axes_of(*self.cuts)))  # in the order of the group's ranks
        ranks = torch.cartesian_prod(*(torch.arange(self.mesh.size(role)) for role in roles)).view(-1, len(roles))
        return [self._region(dict(zip(roles, position, strict=True))) for position in ranks.tolist()]

    @property
    def region(self) -> tuple[slice, ...]:
        """Returns this rank's part, as slices of the whole."""
        return self._region({role: self.mesh.rank(role) for role in self.cuts})

    def _region(self, position: Mapping[Role, int]) -> tuple[slice, ...]:
        bounds = [(0, size) for size in self.shape]
        for role, dim in self.cuts.items():
            first, last = bounds[dim]
            size = -(-(last - first) // self.mesh.size(role))
            begin = min(last, first + position[role] * size)
            bounds[dim] = begin, min(last, begin + size)
        return tuple(slice(*bound) for bound in bounds)

    @cached_property
    def part_shape(self) -> tuple[int, ...]:
        """Returns the shape of this rank's part."""
        return tuple(bound.stop - bound.start for bound in self.region)

    def part(self, whole: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Returns a view of this rank's part."""
        return whole[self.region]

    def split(self, whole: Shaped[Tensor, "..."]) -> list[Tensor]:
        """Returns a view of the part of each rank of the group."""
        return [whole[region] for region in self.regions] if self.cuts else [whole]

    def join(self, parts: list[Tensor]) -> Shaped[Tensor, "..."]:
        """Returns the whole of the parts of all ranks; they may be flattened."""
        if not self.cuts:
            return parts[0].view(self.shape)
        whole = parts[0].new_empty(self.shape)
        for region, part in zip(self.regions, parts, strict=True):
            target = whole[region]
            target.copy_(part.view(target.shape))
        return whole

    @cached_property
    def sizes(self) -> list[int]:
        """Returns the number of elements of each rank's part."""
        whole = torch.empty(self.shape, device="meta")
        return [part.numel() for part in self.split(whole)]

    def distributed(self, part: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Returns this rank's part as it goes into a checkpoint: a DTensor that knows which part of what it is."""
        part = local(part)
        if not self.cuts:
            return part
        from torch.distributed.tensor import DTensor, Shard

        return DTensor.from_local(
            part,
            layout_mesh(self.mesh, tuple(self.cuts)),
            [Shard(dim) for dim in self.cuts.values()],
            run_check=False,
            shape=torch.Size(self.shape),
            stride=torch.empty(self.shape, device="meta").stride(),
        )


@dataclass(frozen=True)
class Fragment:
    """Says which part of a whole parameter a flattened tensor holds.

    Attributes:
        first: where in the tensor this rank's part begins.
        parts: how ranks share the parameter.
    """

    first: int
    parts: Parts


def layout_mesh(mesh: Mesh, roles: tuple[Role, ...]) -> DeviceMesh:
    """Returns the axes of some roles, one dim a role in the given order, as a torch mesh that only describes.

    It holds no process groups.
    """
    ranks = torch.arange(mesh.world.size).view(*(mesh.degrees[axis.name] for axis in AXES))
    here = tuple(slice(None) if axis.role in roles else mesh.rank(axis.name) for axis in AXES)
    axes = axes_of(*roles)
    order = [axes.index(axis) for role in roles for axis in axes_of(role)]
    arranged = ranks[here].permute(*order).reshape(*(mesh.size(role) for role in roles)).contiguous()
    names = tuple(role.value for role in roles)
    return DeviceMesh(mesh.device.type, arranged, mesh_dim_names=names, _init_backend=False, _rank=mesh.world.rank)
