"""Draws error against cost: what each predictor's forecasts miss, and what a step and a training of it cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sciml.core.duration import format_hours
from sciml.domain.score import Metric
from sciml.report.scores import Scores
from sciml.report.style import (
    INK,
    MODEL,
    add_titles,
    label_of,
    label_plainly,
    new_figure,
    save_png,
    style_of,
    suite_style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COSTS = {"step_s": ("step of one sample, ms", 1e3), "training_s": ("training, s", 1.0)}
"""Labels of the kinds of costs, and how many of their unit a second is."""
MOST_LEADS = 3
HEADROOM = 1.08
"""Height of a panel over the largest error in it, so that marks lie within."""
FREE = 0.01
"""Share of the dearest step below which one costs nothing, as persistence does; it is a line."""

Costs = Mapping[str, Mapping[str, float]]


def draw_error_against_cost(
    scores: Scores,
    metric: Metric,
    costs: Costs,
    source: str,
    path: Path,
    *,
    lead_text: Callable[[float], str] = format_hours,
) -> Path:
    """Draws the mean of a metric over variables against cost: a column for each lead time, a row for each kind of cost.

    A dashed line joins what nothing cheaper is better than.

    Args:
        scores: of which the first, a middle and the last lead time are shown.
        costs: by predictor.
        lead_text: writes a lead time of some hours.
    """
    leads = scores.lead_times(metric)
    chosen = [leads[at] for at in sorted({0, len(leads) // 2, len(leads) - 1})][:MOST_LEADS]
    kinds = [kind for kind in COSTS if sum(kind in cost for cost in costs.values()) > 1]
    with suite_style():
        figure = new_figure(max(4.1 * len(chosen), 6.0), 3.3 * len(kinds) + 0.7)
        grid = figure.subplots(len(kinds), len(chosen), squeeze=False, sharey="col")
        for row, kind in zip(grid, kinds, strict=True):
            for axes, lead in zip(row, chosen, strict=True):
                _panel(
                    axes,
                    scores,
                    metric,
                    lead,
                    {name: cost[kind] * COSTS[kind][1] for name, cost in costs.items() if kind in cost},
                )
                axes.set_xlabel(COSTS[kind][0])
            row[0].set_ylabel(f"mean {metric.label}")
        for axes, lead in zip(grid[0], chosen, strict=True):
            axes.set_title(f"{lead_text(lead)} ahead")
        entries = dict(zip(*reversed(grid[0, 0].get_legend_handles_labels()), strict=True))
        figure.legend(list(entries.values()), list(entries), loc="outside upper left", ncols=4)
        add_titles(figure, source=source)
        return save_png(figure, path)


def means(scores: Scores, metric: Metric, lead: float) -> dict[str, float]:
    """Returns the mean over variables of each predictor; of those alone that were scored on all of them."""
    lines = scores.lines(metric, lead)
    names = [name for name in lines[0].values if all(name in line.values for line in lines)] if lines else []
    return {name: float(np.mean([line.values[name] for line in lines])) for name in names}


def _panel(axes: Axes, scores: Scores, metric: Metric, lead: float, costs: Mapping[str, float]) -> None:
    """Draws a point for each predictor that costs something, a line for those that do not, and the front."""
    errors = {name: error for name, error in means(scores, metric, lead).items() if np.isfinite(error)}
    dearest = max(costs.values())
    points = []
    for name in sorted(errors.keys() & costs.keys(), key=lambda name: name == MODEL):
        look = style_of(name, scores.baselines)
        if costs[name] < FREE * dearest:
            axes.axhline(errors[name], color=look.color, linewidth=1.4, label=label_of(name), zorder=1)
            continue
        points.append((costs[name], errors[name]))
        axes.plot(
            costs[name], errors[name], color=look.color, marker=look.marker, linestyle="none",
            markersize=10 if name == MODEL else 8, markeredgecolor="white", label=label_of(name), zorder=3,
        )  # fmt: skip
    front = [
        (x, y)
        for x, y in sorted(points)
        if all(metric.shortfall(y) <= metric.shortfall(b) for a, b in points if a <= x)
    ]
    axes.step(*np.transpose(front), where="post", color=INK, linewidth=1.0, linestyle=(0, (4, 2)), zorder=2)
    axes.set_xscale("log")
    label_plainly(axes.xaxis)
    axes.set_xlim(min(x for x, _ in points) / 1.6, max(x for x, _ in points) * 1.6)
    axes.set_ylim(0, HEADROOM * max((errors[name] for name in errors.keys() & costs.keys()), default=1.0))
