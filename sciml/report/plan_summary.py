"""A plan in words and tables, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType

from sciml.planning.cadence import Cadence
from sciml.planning.cluster import GB
from sciml.planning.dry_run import BuiltRank
from sciml.planning.parameters import MegatronMemory
from sciml.planning.ranking import TIE, Candidate, Plan, TooLarge
from sciml.planning.scaling_curve import ScalingPoint, why_slower
from sciml.planning.search import Search
from sciml.planning.strategy import TrainingSpec
from sciml.report.tables import Column, beside, count, duration, facts, render, table, with_prefix

LEAST_VOLUME = 1e5
"""Bytes of a step below which an axis is left out."""
MOST_REFUSALS = 4
PART_NAMES = {
    "compute": "forward and backward",
    "reduction": "gradient reduction",
    "bubble": "pipeline bubble",
    "update": "optimizer update",
}
RECOMPUTE = {"none": "no recomputation", "selective": "selective recomputation", "full": "full recomputation"}


def plan_text(search: Search, plan: Plan, curve: Sequence[ScalingPoint], built: Sequence[BuiltRank], rows: int) -> str:
    """Writes the plan for people."""
    parts = [_setting(search, plan), "", *_best(search, plan), "", *_ranking(search, plan, rows)]
    parts += [*_degrees(search, plan), *_refusals(plan)]
    if len(curve) > 1:
        parts += ["", _scaling(curve)]
    if built:
        parts += ["", *_dry_run(built, plan.devices)]
    return render(*parts)


def strategy_line(candidate: Candidate) -> str:
    """Describes a strategy in one line."""
    s = candidate.strategy
    return f"{s.text}, {s.precision}, micro-batches of {s.micro_batch}, {RECOMPUTE[s.recompute]}"


def _setting(search: Search, plan: Plan) -> RenderableType:
    """Lists the model, the cluster and the training that are planned."""
    model, cluster, training = search.facts, search.cluster, search.training
    forward, backward = model.sample_flops()
    attention = model.attention_flops()
    cut = model.cut_parameters() / model.parameters
    size = [f"{model.name}, {model.parameters:,} parameters"]
    if model.depth:
        size.append(f"{model.depth} blocks")
    if model.tokens:
        size.append(f"{model.tokens:,} tokens a sample")
    size.append(f"tensor parallelism cuts {cut:.0%} of the parameters")
    nodes = -(-plan.devices // cluster.devices_per_node)
    megatron = MegatronMemory.of(model.parameters)
    least = megatron.least_devices(cluster.memory / GB, cluster.devices_per_node)
    return facts(
        {
            "Model": ", ".join(size),
            "Work per sample": f"{with_prefix(forward, 'FLOP')} forward, {with_prefix(backward, 'FLOP')} backward"
            + (f"; attention is {attention / forward:.0%} of the forward pass" if attention else ""),
            "Cluster": f"{cluster.name}: {count(plan.devices, 'device')} on {count(nodes, 'node')}, "
            f"{cluster.memory_gb:g} GB each",
            "Training": f"{training.global_batch:g} samples a step, {_length(training, plan)}",
            "Megatron fp16": f"{with_prefix(megatron.total, 'B')} at 20 bytes a parameter, without activations: "
            f"{count(least, 'device')} or more",
        }
    )


def _length(training: TrainingSpec, plan: Plan) -> str:
    """Says how many steps the training has, or what its budget buys."""
    steps = count(training.steps_of(plan.best.step.total), "step")
    return steps if training.budget_s is None else f"{steps} in trainer.budget_s={training.budget_s:g} s"


def _best(search: Search, plan: Plan) -> list[RenderableType | str]:
    """Describes the best strategy: how to train with it, its time, memory and communication volume by part."""
    best, cluster = plan.best, search.cluster
    speed, memory = search.throughput.speed(best.strategy), best.memory
    pp = best.strategy.parallel.pp
    fullest = f"the fullest device (stage {memory.stage} of {pp})" if pp > 1 else "each device"
    training = [duration(speed.hours * 3600), f"{speed.device_hours:,.4g} device hours"]
    if speed.energy_kwh is not None:
        training.append(with_prefix(speed.energy_kwh * 1e3, "Wh"))
    if speed.cost is not None:
        training.append(f"a price of {speed.cost:,.4g}")
    figures = {
        "Step": f"{with_prefix(best.step.total, 's')}, {speed.samples_per_s:,.4g} samples/s",
        "Share of peak": f"{speed.model_flops:.1%} with model FLOPs (MFU), {speed.hardware_flops:.1%} with hardware "
        "FLOPs (HFU)",
        "Memory": f"{memory.total / GB:.1f} of {cluster.memory_gb:g} GB on {fullest}",
        "Whole training": ", ".join(training),
    }
    cadence = Cadence.of(cluster, plan.devices, search.training.checkpoint_bytes(search.facts.parameters))
    if cadence is not None:
        figures["Checkpoints"] = (
            f"every {duration(cadence.interval_s)}: one takes {with_prefix(cadence.write_s, 's')}, and a node fails "
            f"every {duration(cadence.failure_s)}; {cadence.lost:.1%} of the time is lost"
        )
    return [
        f"Best strategy: {strategy_line(best)}",
        f"  {' '.join(best.strategy.overrides())}",
        "",
        facts(figures),
        "",
        beside(*_parts(search, best)),
    ]


def _parts(search: Search, best: Candidate) -> list[RenderableType]:
    step, memory = best.step, best.memory
    times = [
        (PART_NAMES.get(name, f"waiting for {name}"), with_prefix(seconds, "s", 3), f"{seconds / step.total:.0%}")
        for name, seconds in step.parts().items()
        if seconds
    ]
    sizes = [
        (name, with_prefix(size, "B", 3), f"{size / memory.total:.0%}") for name, size in memory.parts().items() if size
    ]
    volumes = [
        (axes.replace("_", " + "), link, with_prefix(size, "B", 3)) for axes, link, size in _volumes(search, best)
    ]
    number = Column("", is_number=True, is_folded=False)
    return [
        table([Column("time of a step", is_folded=False), number, number], times),
        table([Column("memory of a device", is_folded=False), number, number], sizes),
        table(
            [Column("communication volume", is_folded=False), "link", Column("a step", True, False)],
            volumes or [("none", "", "")],
        ),
    ]


def _volumes(search: Search, candidate: Candidate) -> list[tuple[str, str, float]]:
    """Returns axes, slowest link and wire bytes of the fullest device in a step."""
    links, strategy = search.throughput.links, candidate.strategy
    volume = {axes: sum(c.wire_bytes for c in kinds.values()) for axes, kinds in volume_of(search, candidate).items()}
    return [(axes, links.level(strategy, axes), size) for axes, size in volume.items() if size > LEAST_VOLUME]


def volume_of(search: Search, candidate: Candidate) -> dict[str, dict[str, Any]]:
    """Returns what the fullest device of a strategy sends in a step, by axes and kind of collective."""
    parameters = search.memory.rank_parameters(candidate.strategy, candidate.memory.stage)
    return search.throughput.communication.volume(candidate.strategy, parameters)


def _ranking(search: Search, plan: Plan, rows: int) -> list[RenderableType | str]:
    """Ranks the best strategy of each mesh; strategies that differ only otherwise are left out."""
    best_of_mesh: dict[str, Candidate] = {}
    for candidate in plan.ranked:
        best_of_mesh.setdefault(candidate.strategy.text, candidate)
    columns: list[str | Column] = [
        Column("strategy", is_folded=False),
        Column("micro", True),
        "recompute",
        "type",
        Column("step", True, False),
        Column("GB", True),
        Column("MFU", True),
        "slower because of",
    ]
    cells = [
        (
            candidate.strategy.text,
            candidate.strategy.micro_batch,
            candidate.strategy.recompute,
            candidate.strategy.precision,
            with_prefix(candidate.step.total, "s"),
            f"{candidate.memory.total / GB:.1f}",
            f"{search.throughput.speed(candidate.strategy).model_flops:.1%}",
            None if candidate is plan.best else why_slower(plan.best, candidate, search),
        )
        for candidate in list(best_of_mesh.values())[:rows]
    ]
    parts: list[RenderableType | str] = [table(columns, cells)]
    if (ties := len(plan.ties)) > 1:
        parts.append(f"{ties:,} strategies lie within {TIE:.0%} of the best: a plan cannot rank them, short runs can.")
    return parts


def _degrees(search: Search, plan: Plan) -> list[RenderableType | str]:
    """Compares the best of each number of tensor-parallel ranks and pipeline stages with the best of all."""
    if plan.examined == 1:  # there is nothing to compare
        return []
    counts = {
        "fit and are ranked": len(plan.ranked),
        "are too large": plan.num_too_large,
        "recompute more than one that fits": plan.dominated,
        "take far longer": plan.pruned,
    }
    summary = ", ".join(f"{number:,} {what}" for what, number in counts.items() if number)
    room, best = search.cluster.memory, plan.best.step.total
    cells = []
    for (tp, pp), one in sorted(plan.by_degrees().items()):
        if isinstance(one, TooLarge):
            what = "parameters and optimizer alone" if one.only_state else "closest to fitting"
            behind, why = f"+{(one.needed - room) / GB:,.1f} GB", f"out of memory; {what}: {one.strategy.text}"
        elif one is plan.best:
            behind, why = "best", one.strategy.text
        else:
            behind, why = f"+{one.step.total / best - 1:.1%}", why_slower(plan.best, one, search)
        cells.append((tp, pp, behind, why))
    columns: list[str | Column] = [Column("tp", True), Column("pp", True), Column("to the best", True), "reason"]
    return ["", f"{plan.examined:,} strategies divide the work: {summary}.", "", table(columns, cells)]


def _refusals(plan: Plan) -> list[RenderableType | str]:
    refusals = sorted(plan.refused.items(), key=lambda item: -item[1])[:MOST_REFUSALS]
    if not refusals:
        return []
    return ["", table([Column("times", True), "impossible because"], ((f"{n:,}", reason) for reason, n in refusals))]


def _scaling(curve: Sequence[ScalingPoint]) -> RenderableType:
    """Lists the best strategy on fewer and more devices, with the same batch."""
    first = next((point for point in curve if point.same_batch is not None), None)
    cells: list[tuple[object, ...]] = []
    for point in curve:
        if point.same_batch is None or first is None or first.same_batch is None:
            cells.append((f"{point.devices:,}", None, None, "nothing fits, or divides the work"))
            continue
        seconds = point.same_batch.step.total
        efficiency = first.same_batch.step.total * first.devices / (seconds * point.devices)
        cells.append(
            (f"{point.devices:,}", with_prefix(seconds, "s"), f"{efficiency:.0%}", point.same_batch.strategy.text)
        )
    columns: list[str | Column] = [
        Column("devices", True),
        Column("step", True),
        Column("efficiency", True),
        "strategy, same batch",
    ]
    return table(columns, cells)


def _dry_run(built: Sequence[BuiltRank], devices: int) -> list[RenderableType | str]:
    seconds = sum(rank.seconds for rank in built)
    cells = [
        (
            f"{rank.rank:,}",
            " ".join(f"{axis} {n}" for axis, n in rank.coordinates.items()),
            f"{rank.parameters:,}",
            "  ".join(f"{axis} {n}" for axis, n in rank.nodes.items()) or None,
        )
        for rank in built
    ]
    columns: list[str | Column] = [
        Column("rank", True),
        "coordinates",
        Column("parameters", True),
        "nodes of its groups",
    ]
    return [
        f"Dry run: {count(len(built), 'rank')} of {devices:,} built in {seconds:.1f} s, each as planned.",
        "",
        table(columns, cells),
    ]
