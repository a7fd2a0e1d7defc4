"""Profiles of a rank at any degrees, from those at small ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any, NamedTuple

from sciml.distributed.axes import RING, axes_in
from sciml.distributed.communication import Count, ring
from sciml.planning.costs import Messages, RankProfile, StageProfile

_MESSAGES = ("forward_messages", "backward_messages")
_OPERATIONS = ("forward", "backward")
_KINDS_OF_SHARDS = ("all_gather", "all_to_all")
"""Kinds whose payload is a rank's part of a whole, so that it shrinks as its own axis grows."""
SHORT, LONG = 2, 4
"""Ranks of the rings that are profiled."""


class Degrees(NamedTuple):
    """Holds the degrees that cut what a rank does with a sample.

    Attributes:
        tp, sp, cp: see :class:`sciml.parallel.config.ParallelConfig`.
    """

    tp: int = 1
    sp: int = 1
    cp: int = 1

    def ranks(self, axes: str) -> int:
        """Returns the number of ranks along the axes that some communication is named by."""
        return prod(getattr(self, axis.name) for axis in axes_in(axes))

    def has(self, axes: str) -> bool:
        """Says whether each of these axes has several ranks."""
        return all(getattr(self, axis.name) > 1 for axis in axes_in(axes))


@dataclass(frozen=True)
class DegreeInterpolation:
    """Interpolates between profiles at small degrees.

    Every tensor of a pass is whole, or cut by ``tp``, by ``sp``, or by both: its size is a + b/tp + c/sp + d/(tp sp),
    and so are sums of sizes and of operations. Profiles at four pairs of degrees give the four numbers. Exact for
    operations and messages, but for the padding of tokens that the ranks do not divide; memory along ``sp`` comes out a
    few percent too high, since one rank alone makes no copies for exchanges.

    What a ring does is e + f/cp in the same way, but for the number of its kernels and messages, which is e + f cp. Its
    two profiles are of rings, since one rank alone makes none.

    Attributes:
        degrees: those to interpolate at.
        base: the smallest degrees above 1 at which there are profiles.
    """

    degrees: Degrees
    base: Degrees

    @property
    def weights(self) -> dict[Degrees, float]:
        """Returns the weight of each triple of small degrees, without those of weight 0."""
        return self._weighted(self._share(1 / self.degrees.cp, 1 / SHORT, 1 / LONG))

    @property
    def times(self) -> dict[Degrees, float]:
        """Returns the same for what grows with the length of a ring."""
        return self._weighted(self._share(self.degrees.cp, SHORT, LONG))

    def _share(self, at: float, short: float, long: float) -> list[tuple[int, float]]:
        if self.degrees.cp == 1:
            return [(1, 1.0)]
        share = (at - long) / (short - long)
        return [(SHORT, share), (LONG, 1 - share)]

    def _weighted(self, rings: list[tuple[int, float]]) -> dict[Degrees, float]:
        along = []
        for degree, base in list(zip(self.degrees, self.base, strict=True))[:2]:
            weight = (1 - 1 / degree) / (1 - 1 / base)
            along.append([(1, 1 - weight), (base, weight)])
        tensors, tokens = along
        return {
            Degrees(a, b, c): wa * wb * wc for a, wa in tensors for b, wb in tokens for c, wc in rings if wa * wb * wc
        }

    def profile(self, exact: Callable[[Degrees], RankProfile]) -> RankProfile:
        """Combines the exact profiles of a rank at small degrees."""
        profiles = {degrees: exact(degrees) for degrees in {**self.weights, **self.times}}
        embed, block, head = (
            self._stage({degrees: getattr(profile, stage) for degrees, profile in profiles.items()})
            for stage in ("embed", "block", "head")
        )
        activations = zip(*(profiles[degrees].stage_activations for degrees in self.weights), strict=True)
        return RankProfile(embed, block, head, tuple(_mean(sizes, self.weights.values()) for sizes in activations))

    def _stage(self, stages: Mapping[Degrees, StageProfile]) -> StageProfile:
        combined: dict[str, Any] = {}
        for name in (f.name for f in fields(StageProfile)):
            values = {degrees: getattr(stage, name) for degrees, stage in stages.items()}
            if name in _MESSAGES:
                combined[name] = self._messages(values)
                continue
            combined[name] = _mean((values[degrees] for degrees in self.weights), self.weights.values())
            if name in _OPERATIONS:
                kernels = _mean((values[degrees].kernels for degrees in self.times), self.times.values())
                combined[name] = replace(combined[name], kernels=kernels)
        return StageProfile(**combined)

    def _messages(self, messages: Mapping[Degrees, Messages]) -> Messages:
        """Combines messages along axes from the profiles in which these have ranks."""
        active = [axis for axis, degree in self.degrees._asdict().items() if degree > 1]
        corners = [degrees for degrees in messages if degrees.has("_".join(active))] if active else []
        combined: dict[tuple[str, str], Count] = {}
        calls = {degrees: weight for degrees, weight in self.times.items() if degrees in corners}
        for axes, kind in {key for degrees in corners for key in messages[degrees]}:
            counts = {degrees: known.get((axes, kind), Count()) for degrees, known in messages.items()}
            weights = {degrees: weight for degrees, weight in self.weights.items() if degrees.has(axes)}
            size = _total(weights, {degrees: counts[degrees].bytes for degrees in weights})
            for axis in axes_in(axes):
                if kind in _KINDS_OF_SHARDS and axis.name != RING:  # around which two profiles tell
                    size *= getattr(self.base, axis.name) / getattr(self.degrees, axis.name)
            number = _total(calls, {degrees: counts[degrees].calls for degrees in calls})
            ranks = self.degrees.ranks(axes)
            combined[axes, kind] = Count(round(number), round(size), size * ring(kind, ranks))
        return combined


def _mean(values: Iterable[Any], weights: Iterable[float]) -> Any:
    first, *others = (value * weight for value, weight in zip(values, weights, strict=True))
    return sum(others, first)


def _total(weights: Mapping[Degrees, float], values: Mapping[Degrees, float]) -> float:
    """Returns the mean of values with weights whose sum need not be 1."""
    return sum(weight * values[degrees] for degrees, weight in weights.items()) / sum(weights.values())
