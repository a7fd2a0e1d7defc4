"""Finds the parts of whole parameters in the vectors that DeepSpeed's ZeRO hands its optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from sciml.distributed.axes import GRADIENTS
from sciml.parallel.placement import Placement


@dataclass(frozen=True)
class FlatParts:
    """Describes a parameter, perhaps cut already, whose flattened part is cut over the data-parallel ranks at any
    element.

    Attributes:
        placement: of the parameter before.
        size: elements of each rank's stretch.
        shift: where in the joined stretches of all ranks the parameter begins.
    """

    placement: Placement
    size: int
    shift: int = 0

    @cached_property
    def group(self) -> dist.ProcessGroup | None:
        """Returns all ranks that hold parts."""
        return self.placement.mesh.group(*GRADIENTS, *self.placement.cuts)

    @cached_property
    def bounds(self) -> list[tuple[int, int]]:
        """Returns the first element of each data-parallel rank's part of the flattened part, and the one behind
        its last.
        """
        numel = self.placement.sizes[0]
        firsts = [rank * self.size - self.shift for rank in range(self.placement.mesh.size(*GRADIENTS))]
        return [(min(max(first, 0), numel), min(max(first + self.size, 0), numel)) for first in firsts]

    @cached_property
    def sizes(self) -> list[int]:
        """Returns the number of elements of each rank's part."""
        return [last - first for first, last in self.bounds for _ in self.placement.sizes]

    def split(self, whole: Float[Tensor, "..."]) -> list[Tensor]:
        """Returns the part of each rank of the group, flattened; ranks that share matrices are neighbors."""
        flat = [part.flatten() for part in self.placement.split(whole)]
        return [part[first:last] for first, last in self.bounds for part in flat]

    def join(self, parts: list[Tensor]) -> Float[Tensor, "..."]:
        """Returns the whole of the parts of all ranks."""
        cuts = len(self.placement.sizes)
        return self.placement.join([torch.cat([part.flatten() for part in parts[n::cuts]]) for n in range(cuts)])
