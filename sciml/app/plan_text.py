"""A plan in words and numbers: for people, and as a document for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sciml.planning.cluster import GB
from sciml.planning.curve import Point
from sciml.planning.dry_run import BuiltRank
from sciml.planning.megatron_fp16 import TalkMemory
from sciml.planning.model_facts import ModelFacts
from sciml.planning.search import TIE, Candidate, Plan, Search, TooLarge, why_slower

TERA = 1e12
WORTH_TELLING = 1e5
"""Bytes of a step below which an axis is left out."""


def plan_text(
    facts: ModelFacts, search: Search, plan: Plan, curve: Sequence[Point], built: Sequence[BuiltRank], rows: int
) -> str:
    """The plan for people."""
    lines = [*_about(facts, search, plan), "", *_best(search, plan), "", *_table(search, plan, rows), ""]
    lines += [*_losers(search, plan)]
    if len(curve) > 1:
        lines += ["", *_curve(curve)]
    if built:
        lines += ["", *_dry_run(built, plan.devices)]
    return "\n".join(lines)


def _about(facts: ModelFacts, search: Search, plan: Plan) -> list[str]:
    cluster, training = search.cluster, search.training
    forward, backward = facts.sample_flops()
    cut = facts.cut_parameters() / facts.parameters
    blocks = f", {facts.depth} blocks" if facts.depth else ""
    tokens = f", {facts.tokens:,} tokens a sample" if facts.tokens else ""
    nodes = -(-plan.devices // cluster.devices_per_node)
    talk = TalkMemory.of(facts.parameters)
    least = talk.least_devices(cluster.memory / GB, cluster.devices_per_node)
    attention = f" ({facts.attention_flops() / forward:.0%} of it attention)" if facts.attention_flops() else ""
    return [
        f"model    {facts.name}: {facts.parameters:,} parameters ({cut:.0%} cut by tp){blocks}{tokens}",
        f"work     {forward / TERA:,.4g} TFLOP a sample forward{attention}, {backward / forward:.2f} times it backward",
        f"cluster  {cluster.name}: {plan.devices:,} devices on {_count(nodes, 'node')}, {cluster.memory_gb:g} GB each",
        f"training {training.global_batch:g} samples a step, {_count(training.steps, 'step')}",
        f"talk     by its 20 bytes a parameter, without activations: {talk.total / GB:,.4g} GB, {least:,} devices",
    ]


def _best(search: Search, plan: Plan) -> list[str]:
    best = plan.best
    speed, strategy, memory = search.throughput.speed(best.strategy), best.strategy, best.memory
    uses = [f"{speed.hours:,.3g} h", f"{speed.device_hours:,.4g} device hours"]
    if speed.energy_kwh is not None:
        uses.append(f"{speed.energy_kwh:,.4g} kWh")
    if speed.cost is not None:
        uses.append(f"{speed.cost:,.4g} in price")
    place = f"stage {memory.stage} of {strategy.parallel.pp}" if strategy.parallel.pp > 1 else "any"
    parts = "  ".join(f"{name} {value / GB:.2f}" for name, value in memory.parts().items() if value)
    seconds = "  ".join(f"{name} {value:.3g}" for name, value in best.step.parts().items() if value)
    held = search.memory.held(strategy, memory.stage)
    links, table = search.throughput.links, search.throughput.traffic.table(strategy, held)
    volumes = {axes: sum(count.wire_bytes for count in kinds.values()) for axes, kinds in table.items()}
    sent = "  ".join(
        f"{axes} {volume / GB:.3g} over {links.level(strategy, axes)}"
        for axes, volume in volumes.items()
        if volume > WORTH_TELLING
    )
    return [
        f"best     {strategy.text}, {strategy.precision}, micro-batches of {strategy.micro_batch}, recompute "
        f"{strategy.recompute}",
        f"         {' '.join(strategy.overrides())}",
        f"step     {best.step.total:.4g} s, {speed.samples_per_s:,.4g} samples/s, "
        f"MFU {speed.model_flops:.1%}, HFU {speed.hardware_flops:.1%} (model and hardware FLOPs of peak)",
        f"         s: {seconds}",
        f"memory   {memory.total / GB:.1f} of {search.cluster.memory_gb:g} GB on the fullest device ({place})",
        f"         GB: {parts}",
        f"traffic  GB a device and step: {sent or 'none'}",
        f"training {', '.join(uses)}",
    ]


def _table(search: Search, plan: Plan, rows: int) -> list[str]:
    ties = len(plan.ties)
    chosen = _different(plan)[:rows]
    width = max(8, *(len(c.strategy.text) for c in chosen))
    head = f"{'strategy':<{width}}  {'micro':>5}  {'recompute':<9}  {'type':<4}  {'s/step':>8}  {'GB':>6}  {'MFU':>6}"
    lines = [f"{head}  behind by"]
    for candidate in chosen:
        strategy = candidate.strategy
        mfu = search.throughput.speed(strategy).model_flops
        why = "" if candidate is plan.best else why_slower(plan.best, candidate, search)
        lines.append(
            f"{strategy.text:<{width}}  {strategy.micro_batch:>5}  {strategy.recompute:<9}  {strategy.precision:<4}  "
            f"{candidate.step.total:>8.4g}  {candidate.memory.total / GB:>6.1f}  {mfu:>6.1%}  {why}".rstrip()
        )
    if ties > 1:
        lines.append(f"{ties:,} strategies lie within {TIE:.0%} of the best: no plan tells them apart, short runs do")
    return lines


def _different(plan: Plan) -> list[Candidate]:
    """The best of each mesh: what differs in micro-batch, recomputation or precision alone is left out."""
    found: dict[str, Candidate] = {}
    for candidate in plan.ranked:
        found.setdefault(candidate.strategy.text, candidate)
    return list(found.values())


def _losers(search: Search, plan: Plan) -> list[str]:
    counts = {
        "fit and are ranked": len(plan.ranked),
        "are too large": plan.num_too_large,
        "only compute again what fits": plan.dominated,
        "take far longer": plan.bounded,
    }
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    lines = [f"strategies that divide the work: {plan.looked_at:,}; {told}"]
    room = search.cluster.memory
    best = plan.best.step.total
    for (tp, pp), one in sorted(plan.by_degrees().items()):
        name = f"tp {tp} x pp {pp}"
        if isinstance(one, TooLarge):
            what = "state alone" if one.only_state else "closest"
            lines.append(
                f"  {name:<16} out of memory by {(one.needed - room) / GB:.1f} GB ({what}: {one.strategy.text})"
            )
        elif one is not plan.best:
            why = why_slower(plan.best, one, search)
            lines.append(f"  {name:<16} {one.step.total / best - 1:>7.1%} slower: {why}")
    left_out = sorted(plan.refused.items(), key=lambda item: -item[1])[:4]
    if left_out:
        lines.append("not possible:")
        lines += [f"  {times:>5} x {reason}" for reason, times in left_out]
    return lines


def _curve(curve: Sequence[Point]) -> list[str]:
    lines = [f"{'devices':>8}  {'s/step':>8}  strategy, same batch"]
    for point in curve:
        if point.same is None:
            lines.append(f"{point.devices:>8,}  {'-':>8}  nothing fits or divides")
        else:
            lines.append(f"{point.devices:>8,}  {point.same.step.total:>8.4g}  {point.same.strategy.text}")
    return lines


def _dry_run(built: Sequence[BuiltRank], devices: int) -> list[str]:
    seconds = sum(rank.seconds for rank in built)
    lines = [
        f"dry run: {_count(len(built), 'rank')} of {devices:,} built in {seconds:.1f} s, each holds what is planned",
        f"{'rank':>7}  {'place':<42}  {'parameters':>14}  nodes of its groups",
    ]
    for rank in built:
        place = " ".join(f"{axis} {n}" for axis, n in rank.place.items())
        nodes = "  ".join(f"{axis} {n}" for axis, n in rank.nodes.items())
        lines.append(f"{rank.rank:>7}  {place:<42}  {rank.parameters:>14,}  {nodes}")
    return lines


def plan_document(
    facts: ModelFacts, search: Search, plan: Plan, curve: Sequence[Point], built: Sequence[BuiltRank]
) -> dict[str, Any]:
    """The plan for programs; bytes, seconds and operations without any prefix."""
    forward, backward = facts.sample_flops()
    talk = TalkMemory.of(facts.parameters)
    return {
        "model": {
            "name": facts.name,
            "parameters": facts.parameters,
            "cut_parameters": facts.cut_parameters(),
            "blocks": facts.depth,
            "tokens": facts.tokens,
            "forward_flops": forward,
            "backward_flops": backward,
            "attention_flops": facts.attention_flops(),
        },
        "cluster": asdict(search.cluster),
        "devices": plan.devices,
        "training": asdict(search.training),
        "efficiency": asdict(search.throughput.efficiency),
        "best": _candidate(search, plan.best),
        "ties": [_candidate(search, candidate) for candidate in plan.ties[:50]],
        "by_degrees": [
            {"tp": tp, "pp": pp, **_either(search, plan, one)} for (tp, pp), one in sorted(plan.by_degrees().items())
        ],
        "looked_at": plan.looked_at,
        "fit and are ranked": len(plan.ranked),
        "too_large": plan.num_too_large,
        "bounded": plan.bounded,
        "dominated": plan.dominated,
        "refused": plan.refused,
        "scaling": [
            {
                "devices": point.devices,
                "same_batch": point.same and _candidate(search, point.same, with_speed=False),
                "growing_batch": point.growing and _candidate(search, point.growing, with_speed=False),
            }
            for point in curve
        ],
        "dry_run": [asdict(rank) for rank in built],
        "talk_20_bytes": {**asdict(talk), "least_devices": talk.least_devices(search.cluster.memory / GB)},
    }


def _candidate(search: Search, candidate: Candidate, *, with_speed: bool = True) -> dict[str, Any]:
    strategy = candidate.strategy
    found = {
        "strategy": strategy.text,
        "overrides": strategy.overrides(),
        "step_s": candidate.step.total,
        "step_parts_s": candidate.step.parts(),
        "memory": candidate.memory.total,
        "memory_parts": candidate.memory.parts(),
        "stage": candidate.memory.stage,
    }
    if not with_speed:
        return found
    speed = asdict(search.throughput.speed(strategy))
    del speed["step"]
    held = search.memory.held(strategy, candidate.memory.stage)
    traffic = {
        axes: {kind: asdict(count) for kind, count in kinds.items()}
        for axes, kinds in search.throughput.traffic.table(strategy, held).items()
    }
    return {**found, **speed, "traffic": traffic}


def _either(search: Search, plan: Plan, one: Candidate | TooLarge) -> dict[str, Any]:
    if isinstance(one, TooLarge):
        needed = {"strategy": one.strategy.text, "needed": one.needed, "over": one.needed - search.cluster.memory}
        return {**needed, "only_state": one.only_state}
    why = "" if one is plan.best else why_slower(plan.best, one, search)
    return {**_candidate(search, one, with_speed=False), "behind": why}


def _count(number: float, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
