"""Costs of a model on one rank: operations, messages and memory, as functions of the micro-batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from sciml.distributed.communication import Count

FLOAT32 = 4
"""Bytes."""
Messages = Mapping[tuple[str, str], Count]
"""Communication volume by axes and kind of collective, as :mod:`sciml.distributed.communication` names them."""
T = TypeVar("T", bound="Summable")


@dataclass(frozen=True)
class AffineCost:
    """Holds a cost that grows with the samples of a micro-batch: a fixed part and one for each sample."""

    fixed: float = 0.0
    per_sample: float = 0.0

    def __call__(self, samples: float) -> float:
        return self.fixed + self.per_sample * samples

    def __add__(self, other: AffineCost) -> AffineCost:
        return AffineCost(self.fixed + other.fixed, self.per_sample + other.per_sample)

    def __mul__(self, times: float) -> AffineCost:
        return AffineCost(self.fixed * times, self.per_sample * times)

    @classmethod
    def through(cls, one: float, two: float) -> AffineCost:
        """Returns the cost with these values at one and at two samples; it never falls."""
        return cls(one - max(two - one, 0.0), max(two - one, 0.0))


class Summable:
    """Lets a record be added and multiplied, because its fields can be."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __add__(self: T, other: T) -> T:
        return type(self)(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def __mul__(self: T, times: float) -> T:
        return type(self)(*(getattr(self, name) * times for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class OpCost(Summable):
    """Counts the operations on a micro-batch.

    Attributes:
        flops: floating point operations of matrix products and attention, two for a multiplication and addition.
        products: those of matrix products alone.
        attention: those that attention carries out, which is half of what it counts for where it is causal.
        operand_bytes: bytes that matrix products read and write.
        other_bytes: bytes that all other kernels read and write.
        cast_bytes: of weights that autocast reads in one precision and writes in another.
        kernels: number of kernels of both kinds.
    """

    flops: AffineCost = AffineCost()
    products: AffineCost = AffineCost()
    attention: AffineCost = AffineCost()
    operand_bytes: AffineCost = AffineCost()
    other_bytes: AffineCost = AffineCost()
    cast_bytes: AffineCost = AffineCost()
    kernels: float = 0.0

    def without_casts(self) -> OpCost:
        """Returns the same operations where weights come in the precision in which they are used."""
        return replace(self, cast_bytes=AffineCost())


@dataclass(frozen=True)
class StageProfile:
    """Holds the costs of one stage of a model, such as a block, on one rank of ``tp`` x ``sp``.

    Attributes:
        forward, backward: operations; those of the backward pass include recomputation.
        forward_messages, backward_messages: communication volume of one sample.
        saved_activations: bytes that the forward pass saves for the backward pass.
        cast_weights: bytes of weights that autocast has cast, where they are held in another precision.
        backward_workspace: the most bytes that the backward pass needs besides while it is in this stage.
    """

    forward: OpCost = OpCost()
    backward: OpCost = OpCost()
    forward_messages: Messages = field(default_factory=dict)
    backward_messages: Messages = field(default_factory=dict)
    saved_activations: AffineCost = AffineCost()
    cast_weights: AffineCost = AffineCost()
    backward_workspace: AffineCost = AffineCost()

    def mixed(self, other: StageProfile, share: float) -> StageProfile:
        """Returns the mean of this stage and of another one, of which a share are like this; workspaces are its own."""

        def mean(name: str) -> Any:
            return getattr(self, name) * share + getattr(other, name) * (1 - share)

        def messages(name: str) -> Messages:
            own, others = getattr(self, name), getattr(other, name)
            pairs = {key: (own.get(key, Count()), others.get(key, Count())) for key in {*own, *others}}
            return {
                key: Count(
                    round(a.calls * share + b.calls * (1 - share)),
                    round(a.bytes * share + b.bytes * (1 - share)),
                    a.wire_bytes * share + b.wire_bytes * (1 - share),
                )
                for key, (a, b) in pairs.items()
            }

        return replace(
            self,
            forward=mean("forward"),
            backward=mean("backward"),
            forward_messages=messages("forward_messages"),
            backward_messages=messages("backward_messages"),
            saved_activations=mean("saved_activations"),
            cast_weights=mean("cast_weights"),
        )


@dataclass(frozen=True)
class RankProfile:
    """Holds the costs of a model on one rank of ``tp`` x ``sp``, for a precision and a way of recomputing activations.

    Attributes:
        embed, block, head: the stages before the blocks, each block, and the stages behind them.
        stage_activations: bytes of each tensor that passes from one block to the next, for one sample.
    """

    embed: StageProfile
    block: StageProfile
    head: StageProfile
    stage_activations: tuple[float, ...]

    def stages(self, embeds: int, blocks: int, heads: int) -> tuple[tuple[StageProfile, int], ...]:
        """Pairs each stage with how often a rank has it."""
        return (self.embed, embeds), (self.block, blocks), (self.head, heads)
