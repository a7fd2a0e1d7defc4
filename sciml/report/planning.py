"""Pictures of a plan: memory by part, step time over tensor and pipeline parallelism, scaling, schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciml.parallel.config import Schedule
from sciml.planning.cluster import GB
from sciml.planning.memory import Memory
from sciml.planning.pipeline import BACKWARD, FORWARD, INPUT, WEIGHT, Bar, idle_share
from sciml.planning.ranking import Candidate, Plan
from sciml.planning.scaling_curve import ScalingPoint
from sciml.planning.search import Search
from sciml.report.style import (
    AMBER,
    GREEN,
    INK,
    MODEL_COLOR,
    MUTED,
    RED,
    RUST,
    SKY,
    VIOLET,
    add_titles,
    new_figure,
    save_png,
    suite_style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS = ("weights", "gradients", "moments", "average", "activations", "buffers", "margin")
PART_COLORS = dict(
    zip(
        PARTS,
        (MODEL_COLOR, SKY, GREEN, VIOLET, AMBER, RUST, "#cfd5da"),
        strict=True,
    )
)  # fmt: skip
MOST_BARS = 8
MOST_PASSES = 3
"""Micro-batches of a timeline, for each rank."""
ACTION_COLORS = {
    FORWARD: MODEL_COLOR,
    BACKWARD: RUST,
    INPUT: AMBER,
    WEIGHT: GREEN,
}
ACTION_LABELS = {FORWARD: "forward", BACKWARD: "backward", INPUT: "backward: inputs", WEIGHT: "backward: weights"}
DARK = 0.55
"""Share of a color scale from which writing on it is white."""


def draw_plan(folder: Path, search: Search, plan: Plan, curve: Sequence[ScalingPoint]) -> list[Path]:
    """Writes all pictures of a plan."""
    with suite_style():
        paths = [memory_bars(folder / "memory", search, plan), heat_map(folder / "degrees", search, plan)]
        if sum(point.same_batch is not None for point in curve) > 1:
            paths.append(scaling(folder / "scaling", search, plan, curve))
        if plan.best.strategy.parallel.pp > 1:
            paths.append(schedules(folder / "schedules", search, plan))
    return paths


def _source(search: Search, plan: Plan) -> str:
    training = search.training
    return (
        f"{search.facts.name}, {search.facts.parameters / 1e9:.3g} B parameters on {plan.devices:,} devices of "
        f"{search.cluster.name}, {training.global_batch:g} samples a step; predicted"
    )


def memory_bars(stem: Path, search: Search, plan: Plan) -> Path:
    """Draws what fills a device's memory, for some stages of the pipeline."""
    strategy, room = plan.best.strategy, search.cluster.memory / GB
    pp = strategy.parallel.pp
    stages = sorted({round(n) for n in np.linspace(0, pp - 1, min(pp, MOST_BARS))})
    bars = {(f"stage {n}" if pp > 1 else "each device"): search.memory.at(strategy, n) for n in stages}
    figure = new_figure(9.0, 2.3 + 0.42 * len(bars))
    axes = figure.subplots()
    _stack(axes, bars)
    axes.axvline(room, color=INK, linewidth=1.4)
    most = max(room, *(memory.total / GB for memory in bars.values()))
    axes.set_xlim(0, most * 1.04)
    axes.text(room, -0.62, f"{room:g} GB ", ha="right", va="bottom", fontsize=9, color=INK)
    axes.set_xlabel("GB of a device at the most")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    figure.suptitle(f"{strategy.text}, {strategy.precision}, recompute {strategy.recompute}", fontsize=10, color=MUTED)
    add_titles(figure, source=_source(search, plan))
    return save_png(figure, stem)


def _stack(axes: Axes, bars: dict[str, Memory]) -> None:
    places = np.arange(len(bars))
    left = np.zeros(len(bars))
    for part in PARTS:
        values = np.array([memory.parts()[part] / GB for memory in bars.values()])
        if values.any():
            axes.barh(places, values, left=left, height=0.66, color=PART_COLORS[part], label=part, zorder=2)
        left += values
    axes.set_yticks(places, list(bars))
    axes.set_ylim(len(bars) - 0.4, -0.7)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def heat_map(stem: Path, search: Search, plan: Plan) -> Path:
    """Draws the best step time of each ``tp`` and ``pp``; what does not fit says by how much."""
    from matplotlib.colors import LogNorm

    cells = plan.by_degrees()
    tps, pps = (sorted({key[axis] for key in cells}) for axis in (0, 1))
    times = np.full((len(pps), len(tps)), np.nan)
    for (tp, pp), one in cells.items():
        if isinstance(one, Candidate):
            times[pps.index(pp), tps.index(tp)] = one.step.total
    figure = new_figure(2.6 + 1.05 * len(tps), 2.2 + 0.56 * len(pps))
    axes = figure.subplots()
    low, high = np.nanmin(times), np.nanmax(times)
    norm = LogNorm(low, max(high, low * 1.01))
    image = axes.imshow(times, norm=norm, cmap="YlGnBu", aspect="auto", origin="lower")
    for (tp, pp), one in cells.items():
        cell = tps.index(tp), pps.index(pp)
        if isinstance(one, Candidate):
            dark = float(norm(one.step.total)) > DARK
            is_best = one is plan.best
            axes.text(*cell, f"{one.step.total:.3g}", ha="center", va="center", fontsize=9,
                      color="white" if dark else INK, fontweight="bold" if is_best else "normal")  # fmt: skip
            if is_best:
                axes.add_patch(_frame(cell))
        else:
            over = (one.needed - search.cluster.memory) / GB
            axes.text(*cell, f"+{over:.3g} GB", ha="center", va="center", fontsize=8, color=RED)
    axes.set_xticks(range(len(tps)), [str(tp) for tp in tps])
    axes.set_yticks(range(len(pps)), [str(pp) for pp in pps])
    axes.set_xlabel("tensor parallelism (tp)")
    axes.set_ylabel("pipeline stages (pp)")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, fraction=0.06, pad=0.03)
    bar.set_label("seconds a step")
    bar.ax.minorticks_off()
    ticks = [low, (low * high) ** 0.5, high] if high > low * 1.01 else [low]
    bar.set_ticks(ticks, labels=[f"{value:.3g}" for value in ticks])
    add_titles(figure, source=_source(search, plan))
    return save_png(figure, stem)


def _frame(place: tuple[int, int]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((place[0] - 0.5, place[1] - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=2.2)


def scaling(stem: Path, search: Search, plan: Plan, curve: Sequence[ScalingPoint]) -> Path:
    """Draws samples a second and efficiency over devices, with the same batch and with one that grows."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    figure = new_figure(10.0, 4.0)
    left, right = figure.subplots(1, 2)
    series = (
        ("same batch (strong)", MODEL_COLOR, "o", [(p.devices, p.same_batch, 1.0) for p in curve]),
        ("batch grows (weak)", GREEN, "s", [(p.devices, p.growing_batch, p.devices / plan.devices) for p in curve]),
    )
    batch = search.training.global_batch
    for label, color, marker, points in series:
        known = [(n, batch * grown / c.step.total) for n, c, grown in points if c is not None]
        if not known:
            continue
        devices, rates = (np.array(values, dtype=float) for values in zip(*known, strict=True))
        left.plot(devices, rates, color=color, marker=marker, label=label, zorder=3)
        right.plot(devices, 100 * rates / rates[0] * devices[0] / devices, color=color, marker=marker, zorder=3)
    first = next(p for p in curve if p.same_batch is not None)
    assert first.same_batch is not None
    numbers = np.array([p.devices for p in curve], dtype=float)
    rate = batch / first.same_batch.step.total / first.devices
    left.plot(numbers, rate * numbers, color=MUTED, linestyle=":", linewidth=1.3, label="ideal", zorder=2)
    left.set(xscale="log", yscale="log", xlabel="devices", ylabel="samples a second")
    right.set(xscale="log", xlabel="devices", ylabel="efficiency, % of the fewest devices")
    right.set_ylim(0, max(105.0, right.get_ylim()[1]))
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    for axes in (left, right):
        axes.set_xticks(numbers, [f"{int(n):,}" for n in numbers])
        axes.minorticks_off()
    left.legend()
    add_titles(figure, source=_source(search, plan))
    return save_png(figure, stem)


def schedules(stem: Path, search: Search, plan: Plan) -> Path:
    """Draws what each rank of a pipeline does when, by each schedule that there is for the best strategy's mesh."""
    best, model = plan.best.strategy, search.throughput
    p = best.parallel
    passes = max(p.pp, min(int(best.micro_batches(search.training)), MOST_PASSES * p.pp) // p.pp * p.pp)
    rows = {}
    for name, interleave in _orders(p.schedule, p.interleave, search.facts.depth // p.pp):
        chosen = replace(best, parallel=replace(p, schedule=name, interleave=interleave, zero=1 if p.zero == 1 else 2))
        rows[f"{name} x {interleave}" if interleave > 1 else name] = model.timeline(chosen, passes)
    longest = max(bar.end for bars in rows.values() for bar in bars)
    figure = new_figure(11.0, 1.2 + len(rows) * (0.55 + 0.13 * p.pp))
    for axes, (title, bars) in zip(
        np.atleast_1d(figure.subplots(len(rows), 1, sharex=True)), rows.items(), strict=True
    ):
        _gantt(axes, bars, p.pp)
        seconds, idle = max(bar.end for bar in bars), idle_share(bars)
        axes.set_title(f"{title}: {seconds:.3g} s, {idle:.0%} idle", loc="left", fontsize=10)
        axes.set_xlim(0, longest)
    axes.set_xlabel("seconds")
    handles = [_patch(ACTION_COLORS[kind], label) for kind, label in ACTION_LABELS.items()]
    figure.legend(handles=handles, loc="outside right upper")
    caption = (
        f"{best.text}, micro-batches of {best.micro_batch}; {passes} of {best.micro_batches(search.training):g} shown"
    )
    figure.suptitle(caption, fontsize=10, color=MUTED)
    add_titles(figure, source=_source(search, plan))
    return save_png(figure, stem)


def _orders(schedule: Schedule, interleave: int, blocks: int) -> list[tuple[Schedule, int]]:
    """Schedules with one stage a rank, and with several where blocks can be cut so."""
    several = interleave if interleave > 1 else next((v for v in range(2, blocks + 1) if blocks % v == 0), 1)
    orders: list[tuple[Schedule, int]] = [
        ("gpipe", 1),
        ("1f1b", 1),
        ("interleaved", several),
        ("zero_bubble", 1),
        ("zero_bubble", several),
    ]
    return list(dict.fromkeys(pair for pair in orders if pair[0] != "interleaved" or pair[1] > 1))


def _gantt(axes: Axes, bars: Sequence[Bar], pp: int) -> None:
    from matplotlib.collections import PolyCollection

    last = max(bar.action.stage for bar in bars) // pp
    for kind, color in ACTION_COLORS.items():
        chosen = [bar for bar in bars if bar.action.kind == kind]
        ends = np.array([(bar.start, bar.end) for bar in chosen]).reshape(-1, 2)
        ranks = np.array([bar.rank for bar in chosen])[:, None] + np.array([-0.42, -0.42, 0.42, 0.42])
        corners = np.stack([ends[:, [0, 1, 1, 0]], ranks], axis=-1)  # one array: a picture may have 50,000 bars
        # Of several stages on a rank later ones are darker.
        colors = [_shade(color, 1 - 0.55 * (bar.action.stage // pp) / max(1, last)) for bar in chosen]
        axes.add_collection(PolyCollection(list(corners), facecolor=colors, edgecolor="white", linewidth=0.4))
    axes.set_ylim(pp - 0.4, -0.6)
    axes.set_yticks(sorted({0, pp - 1}), [f"rank {rank}" for rank in sorted({0, pp - 1})])
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0)


def _shade(color: str, lightness: float) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    red, green, blue = (channel * lightness for channel in to_rgb(color))
    return red, green, blue


def _patch(color: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=color, label=label)
