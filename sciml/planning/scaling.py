"""From few pretended passes to any degrees of ``tp`` and ``sp``.

Every tensor of a pass is whole, or cut by ``tp``, by ``sp``, or by both: its size is a + b/tp + c/sp + d/(tp sp), and
so are sums of sizes and of operations. Passes at four corners tell the four numbers. Exact for work and messages, but
for the zeros that fill up tokens which the ranks do not divide; memory along ``sp`` comes out a few percent too high,
since one rank alone makes no copies for exchanges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from sciml.distributed.communication import Count, ring
from sciml.planning.facts import Messages, Part, Rank

PARTS_OF_A_WHOLE = ("all_gather", "all_to_all")
"""Kinds whose payload is a rank's part of a whole, so that it shrinks as its own axis grows."""


@dataclass(frozen=True)
class Corners:
    """Degrees of passes, and the weights with which they make up those of others.

    Args:
        tp, sp: wanted.
        least: the smallest degrees above 1 at which there are passes.
    """

    tp: int
    sp: int
    least: tuple[int, int]

    @property
    def weights(self) -> dict[tuple[int, int], float]:
        """By degrees of a corner; corners that count nothing are left out."""
        along = []
        for wanted, least in zip((self.tp, self.sp), self.least, strict=True):
            share = (1 - 1 / wanted) / (1 - 1 / least)
            along.append([(1, 1 - share), (least, share)])
        return {(a, b): wa * wb for a, wa in along[0] for b, wb in along[1] if wa * wb}

    def rank(self, there: Callable[[int, int], Rank]) -> Rank:
        """What a rank does and keeps, from what those at the corners do."""
        ranks = {place: there(*place) for place in self.weights}
        first, block, last = (
            self._part({place: getattr(rank, part) for place, rank in ranks.items()})
            for part in ("first", "block", "last")
        )
        flow = zip(*(rank.flow for rank in ranks.values()), strict=True)
        return Rank(first, block, last, tuple(self._mean(sizes) for sizes in flow))

    def _mean(self, values: Iterable[Any]) -> Any:
        first, *others = (value * weight for value, weight in zip(values, self.weights.values(), strict=True))
        return sum(others, first)

    def _part(self, parts: Mapping[tuple[int, int], Part]) -> Part:
        found: dict[str, Any] = {}
        for name in (f.name for f in fields(Part)):
            values = {place: getattr(part, name) for place, part in parts.items()}
            found[name] = self._messages(values) if name.startswith("sent") else self._mean(values.values())
        return Part(**found)

    def _messages(self, sent: Mapping[tuple[int, int], Messages]) -> dict[tuple[str, str], Count]:
        found = {}
        for axis, mine, wanted in (("tp", 0, self.tp), ("sp", 1, self.sp)):
            least = self.least[mine]
            if wanted == 1:
                continue
            # Where the axis has ranks, and the other one has some or none.
            other = {place: weight for place, weight in self.weights.items() if place[mine] == least}
            share = sum(other.values())
            for key in {key for place in other for key in sent[place] if key[0] == axis}:
                counts = [(sent[place].get(key, Count()), weight / share) for place, weight in other.items()]
                size = sum(weight * count.bytes for count, weight in counts)
                size *= least / wanted if key[1] in PARTS_OF_A_WHOLE else 1.0
                found[key] = Count(max(c.calls for c, _ in counts), round(size), size * ring(key[1], wanted))
        return found
