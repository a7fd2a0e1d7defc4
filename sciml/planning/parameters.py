"""Parameters of a model, those of one rank of a pipeline, and the bytes that each counts for."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import compress
from typing import Any

from sciml.parallel.config import ParallelConfig
from sciml.planning.cluster import GB
from sciml.planning.pipeline import blocks_of_ranks


@dataclass(frozen=True)
class Parameters:
    """Counts the parameters of a stage of a model on one rank of ``tp``.

    Attributes:
        shapes: the shape of each parameter on the rank.
        partial: for each parameter, whether its gradient is summed over ``tp``.
        cut_dims: for each parameter, the dim that ``tp`` cuts, if any.
        learns: for each parameter, whether it is trained; those that are frozen have weights alone.
    """

    shapes: tuple[tuple[int, ...], ...] = ()
    partial: tuple[bool, ...] = ()
    cut_dims: tuple[int | None, ...] = ()
    learns: tuple[bool, ...] = ()

    def __add__(self, other: Parameters) -> Parameters:
        return Parameters(*(mine + others for mine, others in zip(self._columns, other._columns, strict=True)))

    @property
    def _columns(self) -> tuple[tuple[Any, ...], ...]:
        return self.shapes, self.partial, self.cut_dims, self.learns

    def matrices(self) -> Parameters:
        """Selects the 2-D parameters."""
        return self._where([len(shape) == 2 for shape in self.shapes])

    @cached_property
    def trained(self) -> Parameters:
        """Selects those that are trained, which have gradients and the optimizer's state."""
        return self if all(self.learns) else self._where(self.learns)

    def _where(self, chosen: Sequence[bool]) -> Parameters:
        rows = list(compress(zip(*self._columns, strict=True), chosen))
        return Parameters(*zip(*rows, strict=True)) if rows else Parameters()

    @cached_property
    def only_matrices(self) -> Parameters:
        """Returns the 2-D parameters, once."""
        return self.matrices()

    @cached_property
    def kinds(self) -> Counter[tuple[tuple[int, ...], int | None]]:
        """Counts the parameters of each shape that are cut along each dim, or not at all."""
        return Counter(zip(self.shapes, self.cut_dims, strict=True))

    @cached_property
    def numel(self) -> int:
        """Counts the elements before anything is sharded."""
        return sum(map(math.prod, self.shapes))

    @cached_property
    def largest(self) -> int:
        """Counts the elements of the largest parameter."""
        return max(map(math.prod, self.shapes), default=0)

    def padded(self, ranks: int) -> int:
        """Counts the elements of a shard over some ranks; FSDP2 shards rows and pads every shard to the largest."""
        return self._once("padded", ranks, 0, lambda: [-(-s[0] // ranks) * math.prod(s[1:]) for s in self.shapes])

    def shard(self, ranks: int, index: int = 0) -> int:
        """Counts the elements of one of some shards, without padding."""
        return self._once("shard", ranks, index, lambda: [self._own(shape, ranks, index) for shape in self.shapes])

    def partial_shard(self, ranks: int, index: int = 0) -> int:
        """Counts the elements of a shard whose gradients are summed over ``tp``."""
        pairs = zip(self.shapes, self.partial, strict=True)
        return self._once(
            "partial", ranks, index, lambda: [self._own(shape, ranks, index) for shape, partial in pairs if partial]
        )

    def _once(self, what: str, ranks: int, index: int, rows: Callable[[], list[int]]) -> int:
        """Remembers a sum over the parameters, which a search asks for again and again."""
        key = what, ranks, index
        if key not in self._known:
            self._known[key] = sum(rows())
        return self._known[key]

    @cached_property
    def _known(self) -> dict[tuple[str, int, int], int]:
        return {}

    @staticmethod
    def _own(shape: tuple[int, ...], ranks: int, index: int) -> int:
        rows = -(-shape[0] // ranks)
        return max(0, min(rows, shape[0] - index * rows)) * math.prod(shape[1:])


@dataclass(frozen=True)
class ParameterLayout:
    """Counts the parameters of a whole model on one rank of ``tp``, by stage.

    Attributes:
        embed, blocks, head: before the blocks, in each of them, and behind.
        tied: those of ``embed`` that ``head`` needs, too.
    """

    embed: Parameters
    blocks: tuple[Parameters, ...]
    head: Parameters
    tied: Parameters = Parameters()


@dataclass(frozen=True, eq=False)
class RankParameters:
    """Counts the parameters of one rank of a pipeline, grouped as FSDP2 gathers them.

    Attributes:
        stage: the rank's position in the pipeline.
        blocks: parameters of each block, in order.
        root: all parameters outside the blocks, together.
        tied: those among these that the other end of the pipeline holds, too.
        is_first, is_last: whether the rank has the stages before the blocks, and those behind.
    """

    stage: int
    blocks: tuple[Parameters, ...]
    root: Parameters
    tied: Parameters
    is_first: bool
    is_last: bool

    @classmethod
    def of(cls, layout: ParameterLayout, parallel: ParallelConfig, stage: int) -> RankParameters:
        """Selects the parameters of a position in the pipeline."""
        p = parallel
        is_first, is_last = stage == 0, stage == p.pp - 1
        numbers = blocks_of_ranks(len(layout.blocks), p.pp, p.interleave)[stage] if layout.blocks else ()
        root = Parameters()
        root = root + layout.embed if is_first else root
        root = root + layout.head if is_last else root
        tied = layout.tied if is_first != is_last and (is_first or is_last) else Parameters()
        root = root + tied if is_last else root
        return cls(stage, tuple(layout.blocks[n] for n in numbers), root, tied, is_first, is_last)

    @cached_property
    def trained(self) -> RankParameters:
        """Selects the parameters that are trained; equal blocks stay one."""
        blocks = tuple(block.trained for block in self.blocks)
        root, tied = self.root.trained, self.tied.trained
        if root is self.root and tied is self.tied and all(map(operator.is_, blocks, self.blocks)):
            return self
        return replace(self, blocks=blocks, root=root, tied=tied)

    @cached_property
    def stage_counts(self) -> tuple[int, int, int]:
        """Returns how often the rank has the stages before the blocks, a block, and the stages behind."""
        return int(self.is_first), len(self.blocks), int(self.is_last)

    @cached_property
    def alike(self) -> tuple[tuple[Parameters, int], ...]:
        """Returns the blocks that differ, and how many there are of each."""
        counts = Counter(map(id, self.blocks))
        return tuple((block, counts[key]) for key, block in {id(block): block for block in self.blocks}.items())

    @cached_property
    def fsdp_units(self) -> tuple[Parameters, ...]:
        """Returns the groups that FSDP2 gathers together: each block, and all else."""
        return (*self.blocks, self.root)

    @cached_property
    def numel(self) -> int:
        """Counts the elements before anything is sharded."""
        return sum(times * block.numel for block, times in self.alike) + self.root.numel

    @cached_property
    def matrices(self) -> Parameters:
        """Returns the 2-D parameters inside of blocks, which some optimizers treat apart."""
        return sum((block.matrices() for block in self.blocks), Parameters())

    def updated(self, ranks: int) -> tuple[int, int]:
        """Counts the elements of the largest shard over some ranks, of matrices and of others."""
        matrices = sum(times * block.only_matrices.padded(ranks) for block, times in self.alike)
        return matrices, self.padded(ranks) - matrices

    @cached_property
    def largest_block(self) -> int:
        """Counts the elements of the largest block."""
        return max((block.numel for block, _ in self.alike), default=0)

    @cached_property
    def largest(self) -> int:
        """Counts the elements of the largest parameter."""
        return max(self.root.largest, *(block.largest for block, _ in self.alike), 0)

    def padded(self, ranks: int) -> int:
        """Counts the elements of the largest shard."""
        if ranks not in self._padded:
            self._padded[ranks] = sum(times * unit.padded(ranks) for unit, times in self.alike) + self.root.padded(
                ranks
            )
        return self._padded[ranks]

    @cached_property
    def _padded(self) -> dict[int, int]:
        return {}


@cache
def distinct_stages(depth: int, pp: int, interleave: int) -> tuple[int, ...]:
    """Returns the ranks of a pipeline that differ: both ends, and between them one for each number of blocks."""
    numbers = [len(blocks) for blocks in blocks_of_ranks(depth, pp, interleave)] if depth else [0] * pp
    between = {number: stage for stage, number in reversed(list(enumerate(numbers))[1:-1])}
    return tuple(sorted({0, pp - 1, *between.values()}))


@dataclass(frozen=True)
class Accounting:
    """Says how many bytes each parameter counts for in another program than this suite.

    Attributes:
        weights: in all precisions, of which ``master`` are the optimizer's and sharded with it.
        gradients, moments: as the names say.
        other: whatever else is counted, with the weights.
        wire: bytes of a gradient or weight on its way to other ranks.
    """

    weights: float
    master: float
    gradients: float
    moments: float
    other: float
    wire: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.moments + self.other


MEGATRON_FP16 = Accounting(weights=6, master=4, gradients=4, moments=8, other=2, wire=2)
"""Training in half precision with Megatron-DeepSpeed: weights in half precision and float32, gradients in float32, two
moments, and 2 bytes that the source names only in the sum.

Source: the table "Resources of LLM-like models" of the talk that this suite re-creates (P. Balaprakash, ORNL).
"""


@dataclass(frozen=True)
class MegatronMemory:
    """Counts the bytes of a whole model by :data:`MEGATRON_FP16`, which leaves out activations and buffers."""

    weights: float
    gradients: float
    optimizer: float
    total: float

    @classmethod
    def of(cls, parameters: float) -> MegatronMemory:
        """Counts the bytes of so many parameters."""
        a = MEGATRON_FP16
        return cls(parameters * a.weights, parameters * a.gradients, parameters * a.moments, parameters * a.total)

    def least_devices(self, memory_gb: float = 64, devices_per_node: int = 8) -> int:
        """Returns the number of devices that hold it all, sharded evenly: at least a node.

        The source names 8, 55 and 313 for 22 B, 175 B and 1 T parameters on devices of 64 GB. The last two are the
        bytes over 64e9; for the first this would give 6.9, so the 8 is taken to be the node, the least that a
        scheduler gives out.
        """
        return max(devices_per_node, math.ceil(self.total / (memory_gb * GB)))
