"""A plan as a document, for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sciml.planning.cluster import GB
from sciml.planning.dry_run import BuiltRank
from sciml.planning.parameters import MegatronMemory
from sciml.planning.ranking import Candidate, Plan, TooLarge
from sciml.planning.scaling_curve import ScalingPoint, why_slower
from sciml.planning.search import Search
from sciml.report.plan_summary import volume_of

MOST_STRATEGIES = 50
"""Strategies in the document, the fastest first."""


def plan_document(
    search: Search, plan: Plan, curve: Sequence[ScalingPoint], built: Sequence[BuiltRank]
) -> dict[str, Any]:
    """Makes the plan for programs; bytes, seconds and FLOPs without any prefix."""
    model = search.facts
    forward, backward = model.sample_flops()
    megatron = MegatronMemory.of(model.parameters)
    return {
        "model": {
            "name": model.name,
            "parameters": model.parameters,
            "cut_parameters": model.cut_parameters(),
            "blocks": model.depth,
            "tokens": model.tokens,
            "forward_flops": forward,
            "backward_flops": backward,
            "attention_flops": model.attention_flops(),
        },
        "cluster": asdict(search.cluster),
        "devices": plan.devices,
        "training": asdict(search.training),
        "efficiency": search.throughput.efficiency._asdict(),
        "best": _candidate(search, plan.best),
        "strategies": [_candidate(search, candidate) for candidate in plan.ranked[:MOST_STRATEGIES]],
        "ties": [_candidate(search, candidate) for candidate in plan.ties[:50]],
        "by_degrees": [
            {"tp": tp, "pp": pp, **_either(search, plan, one)} for (tp, pp), one in sorted(plan.by_degrees().items())
        ],
        "examined": plan.examined,
        "ranked": len(plan.ranked),
        "too_large": plan.num_too_large,
        "pruned": plan.pruned,
        "dominated": plan.dominated,
        "refused": plan.refused,
        "scaling": [
            {
                "devices": point.devices,
                "same_batch": point.same_batch and _candidate(search, point.same_batch, with_speed=False),
                "growing_batch": point.growing_batch and _candidate(search, point.growing_batch, with_speed=False),
            }
            for point in curve
        ],
        "dry_run": [asdict(rank) for rank in built],
        "megatron_fp16": {**asdict(megatron), "least_devices": megatron.least_devices(search.cluster.memory / GB)},
    }


def _candidate(search: Search, candidate: Candidate, *, with_speed: bool = True) -> dict[str, Any]:
    strategy = candidate.strategy
    document = {
        "strategy": strategy.text,
        "overrides": strategy.overrides(),
        "step_s": candidate.step.total,
        "step_parts_s": candidate.step.parts(),
        "memory": candidate.memory.total,
        "memory_parts": candidate.memory.parts(),
        "stage": candidate.memory.stage,
    }
    if not with_speed:
        return document
    speed = asdict(search.throughput.speed(strategy))
    del speed["step"]
    volume = {
        axes: {kind: asdict(count) for kind, count in kinds.items()}
        for axes, kinds in volume_of(search, candidate).items()
    }
    return {**document, **speed, "communication": volume}


def _either(search: Search, plan: Plan, one: Candidate | TooLarge) -> dict[str, Any]:
    if isinstance(one, TooLarge):
        needed = {"strategy": one.strategy.text, "needed": one.needed, "over": one.needed - search.cluster.memory}
        return {**needed, "only_state": one.only_state}
    why = "" if one is plan.best else why_slower(plan.best, one, search)
    return {**_candidate(search, one, with_speed=False), "slower_because_of": why}
