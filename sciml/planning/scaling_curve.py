"""The best strategy on fewer and on more devices, and why others are slower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sciml.distributed.axes import SAMPLES, Role, axes_of
from sciml.planning.ranking import Candidate, Plan
from sciml.planning.search import Search
from sciml.planning.strategy import Strategy, TrainingSpec


@dataclass(frozen=True)
class ScalingPoint:
    """Holds the best strategy on some number of devices; None where nothing fits, or no mesh divides them.

    Attributes:
        same_batch: with the global batch that is planned for.
        growing_batch: with one that grows with the devices.
    """

    devices: int
    same_batch: Candidate | None
    growing_batch: Candidate | None


def scaling_curve(search: Search, plan: Plan, numbers: Sequence[int]) -> list[ScalingPoint]:
    """Finds the best on each number of devices, in the precision that is best on those of the plan.

    Matrices and tokens are cut as they are there, unless nothing fits so.
    """
    constraints = replace(search.constraints, precisions=(plan.best.strategy.precision,))

    cuts = {axis.name: plan.best.strategy.sizes[axis.name] for axis in axes_of(Role.TOKEN, Role.MATRIX)}
    alike = replace(constraints, fixed={**cuts, **constraints.fixed})

    def best(training: TrainingSpec, devices: int) -> Candidate | None:
        if devices == plan.devices:
            return plan.best
        if not float(training.global_batch).is_integer():
            return None
        margin = search.memory.margin
        for allowed in (alike, constraints):
            narrow = Search(search.facts, search.cluster, training, allowed, search.efficiency, margin)
            found = narrow.fastest(devices)
            if found is not None:
                return found
        return None

    points = []
    for devices in numbers:
        grown = replace(search.training, global_batch=search.training.global_batch * devices / plan.devices)
        points.append(ScalingPoint(devices, best(search.training, devices), best(grown, devices)))
    return points


def why_slower(best: Candidate, other: Candidate, search: Search) -> str:
    """Names the main reason why a strategy takes longer than the best."""
    more = {name: value - best.step.parts()[name] for name, value in other.step.parts().items()}
    name = max(more, key=lambda part: more[part])
    share = more[name] / best.step.total
    if share < 1e-3:
        return "as fast"
    strategy, first, depth = other.strategy, best.strategy, search.facts.depth
    words = {
        "compute": _why_computes_longer(strategy, first, depth),
        "bubble": f"the bubble of {strategy.parallel.pp} stages",
        "update": "updating more parameters on each device",
    }
    if name in words:
        return f"{words[name]} (+{share:.0%})"
    axis = name if name != "reduction" else max((a.name for a in axes_of(*SAMPLES)), key=lambda a: strategy.sizes[a])
    level = search.cluster.level(strategy.span(axis))
    what = "gradients and weights" if name == "reduction" else name
    return f"{what} over {level} (+{share:.0%})"


def _why_computes_longer(strategy: Strategy, first: Strategy, depth: int) -> str:
    """Names the main reason why a strategy computes longer than the best."""
    if strategy.precision != first.precision:
        return f"computing in {strategy.precision}"
    if strategy.recompute == "full" and first.recompute != "full":
        return "recomputed activations"
    if strategy.micro_batch < first.micro_batch:
        return "smaller micro-batches"
    if depth and depth % strategy.parallel.num_stages:
        return "stages with more blocks than others"
    return "more computing on each device"
