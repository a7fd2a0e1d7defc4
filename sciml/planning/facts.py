"""What a plan needs to know of a model: parameters, work, messages and memory, by part and on any rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TypeVar

from sciml.distributed.communication import Count

FLOAT32 = 4
R = TypeVar("R", bound="Summable")

Messages = Mapping[tuple[str, str], Count]
"""What crosses ranks, by axes and kind of collective as :mod:`sciml.distributed.communication` names them."""


@dataclass(frozen=True)
class Line:
    """Something that grows with the samples of a micro-batch."""

    fixed: float = 0.0
    each: float = 0.0

    def __call__(self, samples: float) -> float:
        return self.fixed + self.each * samples

    def __add__(self, other: Line) -> Line:
        return Line(self.fixed + other.fixed, self.each + other.each)

    def __mul__(self, times: float) -> Line:
        return Line(self.fixed * times, self.each * times)

    @classmethod
    def through(cls, one: float, two: float) -> Line:
        """The line through the values at one and at two; it never falls."""
        return cls(one - max(two - one, 0.0), max(two - one, 0.0))


@dataclass(frozen=True)
class Parameters:
    """Parameters of a part of a model on one rank of ``tp``.

    Attributes:
        shapes: of the rank's parts, one a parameter.
        partial: of each, whether its gradient is summed over ``tp``.
    """

    shapes: tuple[tuple[int, ...], ...] = ()
    partial: tuple[bool, ...] = ()

    def __add__(self, other: Parameters) -> Parameters:
        return Parameters(self.shapes + other.shapes, self.partial + other.partial)

    @cached_property
    def numel(self) -> int:
        """Numbers before anything is sharded."""
        return sum(map(math.prod, self.shapes))

    @cached_property
    def largest(self) -> int:
        """Numbers of the largest parameter."""
        return max(map(math.prod, self.shapes), default=0)

    def padded(self, ranks: int) -> int:
        """Numbers of a shard over some ranks, which FSDP2 fills up to those of the largest: rows are shared."""
        return self._once("padded", ranks, 0, lambda: [-(-s[0] // ranks) * math.prod(s[1:]) for s in self.shapes])

    def shard(self, ranks: int, place: int = 0) -> int:
        """Numbers that one of some ranks truly holds."""
        return self._once("shard", ranks, place, lambda: [self._own(shape, ranks, place) for shape in self.shapes])

    def partial_shard(self, ranks: int, place: int = 0) -> int:
        """Those among them whose gradients are summed over ``tp``."""
        pairs = zip(self.shapes, self.partial, strict=True)
        return self._once(
            "partial", ranks, place, lambda: [self._own(shape, ranks, place) for shape, partial in pairs if partial]
        )

    def _once(self, what: str, ranks: int, place: int, rows: Callable[[], list[int]]) -> int:
        """A sum over the parameters, which a search asks for again and again."""
        key = what, ranks, place
        if key not in self._known:
            self._known[key] = sum(rows())
        return self._known[key]

    @cached_property
    def _known(self) -> dict[tuple[str, int, int], int]:
        return {}

    @staticmethod
    def _own(shape: tuple[int, ...], ranks: int, place: int) -> int:
        rows = -(-shape[0] // ranks)
        return max(0, min(rows, shape[0] - place * rows)) * math.prod(shape[1:])


class Summable:
    """A record whose fields can be added and multiplied, and so it can, too."""

    def __add__(self: R, other: R) -> R:
        return type(self)(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})  # type: ignore[arg-type]

    def __mul__(self: R, times: float) -> R:
        return type(self)(**{f.name: getattr(self, f.name) * times for f in fields(self)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Effort(Summable):
    """What a device has to do with a micro-batch.

    Attributes:
        flops: floating point operations of matrix products and attention, two for a multiplication and addition.
        operands: bytes that these read and write.
        moved: bytes that all other kernels read and write.
        kernels: how many there are of both.
    """

    flops: Line = Line()
    operands: Line = Line()
    moved: Line = Line()
    kernels: float = 0.0


@dataclass(frozen=True)
class Part:
    """What a part of a model does and keeps with a micro-batch, on one rank of ``tp`` x ``sp``.

    Attributes:
        forward, backward: the work; that of the backward pass includes what is computed again.
        sent_forward, sent_backward: what crosses ranks, of one sample.
        kept: bytes that the forward pass leaves for the backward pass.
        at_end: bytes when the forward pass ends, before autocast lets go of the weights that it has cast.
        more: the most bytes that a backward pass needs besides while it is at this part.
    """

    forward: Effort = Effort()
    backward: Effort = Effort()
    sent_forward: Messages = field(default_factory=dict)
    sent_backward: Messages = field(default_factory=dict)
    kept: Line = Line()
    at_end: Line = Line()
    more: Line = Line()


@dataclass(frozen=True)
class Rank:
    """A model on one rank of ``tp`` x ``sp``, in a precision and a way of computing again.

    Attributes:
        first, block, last: before the blocks, in each, and behind them.
        flow: bytes of each tensor between two blocks, of a sample.
    """

    first: Part
    block: Part
    last: Part
    flow: tuple[float, ...]


@dataclass(frozen=True)
class Layout:
    """Parameters on one rank of ``tp``.

    Attributes:
        first, blocks, last: before the blocks, in each of them, and behind.
        tied: those before the blocks that are needed behind them, too.
    """

    first: Parameters
    blocks: tuple[Parameters, ...]
    last: Parameters
    tied: Parameters = Parameters()


@dataclass(frozen=True)
class Accounting:
    """Bytes of a parameter where they are counted otherwise than this suite holds them.

    Attributes:
        weights: in all precisions, of which ``master`` are the optimizer's and sharded with it.
        gradients, moments: as the names say.
        other: whatever else is counted, with the weights.
        wire: of a gradient or weight on its way to other ranks.
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
