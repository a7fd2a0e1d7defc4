"""Time of messages between ranks, by the link that joins them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from sciml.distributed.axes import Role, axes_in
from sciml.distributed.communication import ring
from sciml.planning.cluster import GB, ClusterConfig
from sciml.planning.communication import Sent
from sciml.planning.facts import Line
from sciml.planning.strategy import Strategy

MICROSECONDS = 1e-6


@dataclass(frozen=True)
class Efficiency:
    """What is reached of the peaks.

    The first two are fitted, to the hardware throughput of the published runs of 175 B (36.14%) and 1 T parameters
    (31.96%) on Frontier, and to nothing else; the third is assumed. Strong and weak scaling and 22 B are predicted; see
    ``tests/unit/planning/test_published.py``.

    Source: Dash et al. (2023), https://doi.org/10.48550/arXiv.2312.12705.

    Attributes:
        compute: share of a device's peak that matrix products and attention reach.
        link: share of a link's bandwidth that messages reach.
        memory: share of a memory's bandwidth that all other kernels reach.
    """

    compute: float = 0.4202
    link: float = 0.5449
    memory: float = 0.8


class Links:
    """The links of a cluster under the messages of a mesh.

    The ranks of a group pass their payload around a ring, and the slowest link among them sets the pace; a call takes
    the link's latency once for each doubling of the ranks.
    """

    def __init__(self, cluster: ClusterConfig, efficiency: Efficiency) -> None:
        self.cluster, self.efficiency = cluster, efficiency
        self._levels: dict[int, str] = {}

    def level(self, strategy: Strategy, axes: str) -> str:
        """The name of the slowest link among the ranks along some axes."""
        span = max(strategy.span(axis.name) for axis in axes_in(axes))
        if span not in self._levels:
            self._levels[span] = self.cluster.level(span)
        return self._levels[span]

    def line(self, strategy: Strategy, axes: str, calls: float, each: float) -> Line:
        """Time of some calls that put so many bytes of each sample on the wire together."""
        link = self.cluster.links[self.level(strategy, axes)]
        ranks = strategy.ranks(axes)
        hops = 1.0 if {axis.role for axis in axes_in(axes)} == {Role.STAGE} else max(1.0, math.log2(ranks))
        rate = link.gb_per_s * GB * self.efficiency.link
        return Line(calls * hops * link.latency_us * MICROSECONDS, each / rate)

    def all_seconds(self, strategy: Strategy, messages: Iterable[Sent]) -> float:
        """Time of several kinds of messages, one after the other."""
        total = 0.0
        for axes, kind, calls, size in messages:
            if calls:
                ranks = strategy.ranks(axes)
                total += self.line(strategy, axes, calls, calls * size * ring(kind, ranks))(1)
        return total
