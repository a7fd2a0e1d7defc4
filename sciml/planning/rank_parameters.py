"""What one rank of a pipeline holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

from sciml.planning.facts import Layout, Parameters
from sciml.planning.strategy import Strategy, blocks_of_ranks


@dataclass(frozen=True, eq=False)
class Held:
    """The parameters of a rank, grouped as FSDP2 gathers them.

    Attributes:
        stage: the rank's place in the pipeline.
        blocks: of each block, in order.
        root: all that is in no block, together.
        tied: those among these that the other end of the pipeline holds, too.
        is_first, is_last: whether the rank has what stands before the blocks, and behind.
    """

    stage: int
    blocks: tuple[Parameters, ...]
    root: Parameters
    tied: Parameters
    is_first: bool
    is_last: bool

    @classmethod
    def of(cls, layout: Layout, strategy: Strategy, stage: int) -> Held:
        """That of a place in the pipeline."""
        p = strategy.parallel
        is_first, is_last = stage == 0, stage == p.pp - 1
        numbers = blocks_of_ranks(len(layout.blocks), p.pp, p.interleave)[stage] if layout.blocks else ()
        root = Parameters()
        root = root + layout.first if is_first else root
        root = root + layout.last if is_last else root
        tied = layout.tied if is_first != is_last and (is_first or is_last) else Parameters()
        root = root + tied if is_last else root
        return cls(stage, tuple(layout.blocks[n] for n in numbers), root, tied, is_first, is_last)

    @cached_property
    def units(self) -> tuple[Parameters, ...]:
        return (*self.blocks, self.root)

    @cached_property
    def numel(self) -> int:
        """Numbers before anything is sharded."""
        return sum(unit.numel for unit in self.units)

    @cached_property
    def largest_block(self) -> int:
        return max((block.numel for block in self.blocks), default=0)

    @cached_property
    def largest(self) -> int:
        return max(unit.largest for unit in self.units)

    def padded(self, ranks: int) -> int:
        """Numbers of the largest shard."""
        return sum(unit.padded(ranks) for unit in self.units)


@cache
def places(depth: int, pp: int, interleave: int) -> tuple[int, ...]:
    """The ranks of a pipeline that differ: the first, the last, and between them the first of each number of blocks."""
    numbers = [len(blocks) for blocks in blocks_of_ranks(depth, pp, interleave)] if depth else [0] * pp
    between = {number: stage for stage, number in reversed(list(enumerate(numbers))[1:-1])}
    return tuple(sorted({0, pp - 1, *between.values()}))
