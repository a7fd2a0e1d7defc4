"""The best strategies on fewer and on more devices: strong and weak scaling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sciml.planning.search import Candidate, Plan, Search
from sciml.planning.strategy import Training


@dataclass(frozen=True)
class Point:
    """The best strategy on some number of devices; None where nothing fits, or no mesh divides them.

    Attributes:
        same: with the global batch that is planned for.
        growing: with one that grows with the devices.
    """

    devices: int
    same: Candidate | None
    growing: Candidate | None


def scaling_curve(search: Search, plan: Plan, numbers: Sequence[int]) -> list[Point]:
    """The best on each number of devices, in the precision that is best on those of the plan."""
    wishes = replace(search.wishes, precisions=(plan.best.strategy.precision,))

    def best(training: Training, devices: int) -> Candidate | None:
        if devices == plan.devices:
            return plan.best
        if not float(training.global_batch).is_integer():
            return None
        efficiency, margin = search.throughput.efficiency, search.memory.margin
        return Search(search.facts, search.cluster, training, wishes, efficiency, margin).fastest(devices)

    points = []
    for devices in numbers:
        grown = replace(search.training, global_batch=search.training.global_batch * devices / plan.devices)
        points.append(Point(devices, best(search.training, devices), best(grown, devices)))
    return points
