"""The time that messages of a training step take on the links of a cluster."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from sciml.distributed.axes import axes_in
from sciml.distributed.communication import ring
from sciml.planning.cluster import GB, MICROSECONDS, ClusterConfig, Shares
from sciml.planning.communication import Message
from sciml.planning.costs import AffineCost
from sciml.planning.strategy import Strategy


class Links:
    """Predicts the time of a mesh's messages on the links of a cluster.

    Inside a node the ranks of a group pass their payload around a ring, and the slowest link among them sets the pace.
    Over nodes there is a ring for each rank that a node has in the group: each ring has a network port of its own and
    carries its part of the payload, so a group with k ranks a node is up to k times as fast, until the links inside are
    the slower ones. In an all-to-all every rank sends through its own port what goes to other nodes. Steps of rings
    take the latency of their link each; an all-reduce may take a tree over nodes instead.

    Source: what NCCL and RCCL count for rings and trees, src/graph/tuning.cc of https://github.com/NVIDIA/nccl.
    """

    def __init__(self, cluster: ClusterConfig, efficiency: Shares) -> None:
        self.cluster, self.efficiency = cluster, efficiency
        self._levels: dict[int, str] = {}
        self._rates: dict[tuple[Any, ...], tuple[float, float]] = {}

    def level(self, strategy: Strategy, axes: str) -> str:
        """Returns the name of the slowest link among the ranks along some axes."""
        span = max(strategy.span(axis.name) for axis in axes_in(axes))
        if span not in self._levels:
            self._levels[span] = self.cluster.level(span)
        return self._levels[span]

    def cost(self, strategy: Strategy, axes: str, kind: str, calls: float, wire_bytes: float) -> AffineCost:
        """Returns the seconds of some calls of a kind that put so many bytes of each sample on the wire together."""
        key = strategy.mesh, axes, kind
        if key not in self._rates:
            self._rates[key] = self._of_call(strategy, axes, kind)
        latency, seconds_per_byte = self._rates[key]
        return AffineCost(calls * latency, wire_bytes * seconds_per_byte)

    def _of_call(self, strategy: Strategy, axes: str, kind: str) -> tuple[float, float]:
        """Returns the seconds that a call takes besides its bytes, and those of a byte on the wire."""
        link = self.cluster.links[self.level(strategy, axes)]
        outside = link.gb_per_s * GB * self.efficiency.link
        latency = link.latency_us * MICROSECONDS
        ranks, inside = strategy.ranks(axes), strategy.ranks_of_node(axes, self.cluster.devices_per_node)
        if kind in ("send", "recv"):
            return latency, 1 / outside
        if link.devices is not None or inside == 1 or inside == ranks:
            steps = ranks - 1 if kind != "all_reduce" else min(2 * (ranks - 1), 2 * math.ceil(math.log2(ranks)))
            return steps * latency, 1 / outside
        near = self.cluster.links[self.cluster.level(self.cluster.devices_per_node)]
        within, near_latency = near.gb_per_s * GB * self.efficiency.link, near.latency_us * MICROSECONDS
        nodes = ranks / inside
        if kind == "all_to_all":
            share = (ranks - inside) / (ranks - 1)  # of the wire's bytes, to other nodes
            return (ranks - 1) * latency, max(share / outside, (1 - share) / within)
        passing: float = (ranks - nodes) * near_latency + nodes * latency
        if kind == "all_reduce":
            tree = (inside - 1) * near_latency + math.log2(nodes) * latency
            passing = 2 * min(passing, tree)
        return passing, 1 / min(inside * outside, within)

    def seconds(self, strategy: Strategy, messages: Iterable[Message]) -> float:
        """Returns the seconds of several messages, one after the other."""
        total = 0.0
        for axes, kind, calls, payload in messages:
            if calls:
                wire = calls * payload * ring(kind, strategy.ranks(axes))
                total += self.cost(strategy, axes, kind, calls, wire)(1)
        return total
