"""Draws a model's scores and those of its baselines against lead time.

What the model's scores may be off by is drawn, too: the 95% interval over cases that do not depend on one another.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciml.domain.score import Baseline, Metric
from sciml.report.legend import draw_legend
from sciml.report.scores import Scores, as_number, needs_log
from sciml.report.style import (
    INK,
    INTERVAL,
    MODEL,
    MODEL_COLOR,
    add_titles,
    label_of,
    new_figure,
    save_png,
    style_of,
    suite_style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARK_HEIGHT = 0.04
"""Half the height of a mark, as a share of the panel."""


def _shade_interval(axes: Axes, scores: Scores, metric: Metric, variable: str, unit: tuple[str, float] | None) -> None:
    """Shades what the model's score may be against lead time."""
    hours = scores.lead_times(metric)
    lines = {lead: line for lead in hours for line in scores.lines(metric, lead) if line.variable == variable}
    known = [(lead, *line.interval) for lead, line in lines.items() if line.interval is not None]
    if known:
        lead, low, high = np.transpose(known)
        _, per_hour = unit or lead_unit(hours)
        axes.fill_between(
            lead * per_hour, low, high, color=MODEL_COLOR, alpha=0.22, linewidth=0, zorder=2, label=INTERVAL
        )


def draw_scores_by_lead_time(
    scores: Scores,
    variables: Mapping[str, str],
    metrics: Sequence[Metric],
    source: str,
    path: Path,
    *,
    hidden: Collection[tuple[Metric, Baseline]] = (),
    levels: Mapping[Metric, float] | None = None,
    unit: tuple[str, float] | None = None,
) -> Path:
    """Draws a row of panels for each metric, a column for each variable; in each the model and its baselines.

    Args:
        variables: those to show, and their titles.
        metrics: those to show.
        source: what the data are.
        hidden: pairs of a metric and a baseline that say nothing.
        levels: values to mark, by metric.
        unit: of lead times, and how many of it are an hour; None takes hours, or seconds where all are below one.
    """
    with suite_style():
        figure = new_figure(max(3.15 * len(variables) + 0.3, 5.0), 2.75 * len(metrics) + 0.7)
        grid = figure.subplots(len(metrics), len(variables), squeeze=False, sharex="col")
        for row, metric in zip(grid, metrics, strict=True):
            silent = {baseline.name for judged, baseline in hidden if judged == metric}
            for axes, variable in zip(row, variables, strict=True):
                curves = _curves(scores, metric, variable)
                shown = {name: curve for name, curve in curves.items() if name not in silent}
                _lead_time_panel(axes, shown, metric, scores.baselines, unit)
                _shade_interval(axes, scores, metric, variable, unit)
                if levels and metric in levels:
                    axes.axhline(levels[metric], color=INK, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
                _limit(axes, metric, shown)
            row[0].set_ylabel(metric.label)
        for axes, title in zip(grid[0], variables.values(), strict=True):
            axes.set_title(title)
        for axes, variable in zip(grid[-1], variables, strict=True):
            leads = [row["lead_time_h"] for row in scores.rows if row["variable"] == variable]
            axes.set_xlabel(f"lead time, {(unit or lead_unit(sorted(filter(None, leads))))[0]}")
        draw_legend(figure)
        add_titles(figure, source=scores.with_cases(source))
        return save_png(figure, path)


def lead_unit(hours: Sequence[float]) -> tuple[str, float]:
    """Returns the unit of lead times, and how many of it are an hour: seconds where all are below one hour."""
    return ("hours", 1.0) if hours and hours[-1] >= 1 else ("seconds", 3600.0)


def _curves(scores: Scores, metric: Metric, variable: str) -> dict[str, list[tuple[float, float]]]:
    """Returns lead times in hours and scores by predictor, the model first."""
    curves: dict[str, list[tuple[float, float]]] = {MODEL: []}
    for hours in scores.lead_times(metric):
        for line in scores.lines(metric, hours):
            if line.variable == variable:
                for predictor, value in line.values.items():
                    curves.setdefault(predictor, []).append((hours, value))
    return {name: points for name, points in curves.items() if points}


def _lead_time_panel(
    axes: Axes,
    curves: Mapping[str, list[tuple[float, float]]],
    metric: Metric,
    baselines: Sequence[Baseline],
    unit: tuple[str, float] | None = None,
) -> None:
    hours = sorted({hours for points in curves.values() for hours, _ in points})
    _, per_hour = unit or lead_unit(hours)
    for order, (predictor, points) in enumerate(curves.items()):
        lead, values = np.array(points, dtype=float).T
        axes.plot(
            lead * per_hour, np.where(np.isfinite(values), values, np.nan), label=label_of(predictor),
            linewidth=2.4 if predictor == MODEL else 1.5, zorder=20 - order, markeredgecolor="white",
            **style_of(predictor, baselines)._asdict(),
        )  # fmt: skip
    axes.xaxis.set_major_locator(_lead_ticks([lead * per_hour for lead in hours], in_hours=per_hour == 1))


def _limit(axes: Axes, metric: Metric, curves: Mapping[str, list[tuple[float, float]]]) -> None:
    """Lets the axis of scores begin or end at the perfect one, with all that was drawn and its marks inside."""
    values = [as_number(value) for points in curves.values() for _, value in points]
    if metric.better == "nearer" and metric.perfect is not None:
        axes.axhline(metric.perfect, color=INK, linewidth=0.9, zorder=1)
    elif metric.better != "higher" and needs_log(values):
        axes.set_yscale("log")
    elif metric.perfect is not None:
        bottom, top = axes.get_ylim()
        room = MARK_HEIGHT * (top - bottom)
        if metric.better == "higher":
            axes.set_ylim(top=max(metric.perfect, np.nanmax([*values, -np.inf]) + room))
        else:
            axes.set_ylim(bottom=min(metric.perfect, np.nanmin([*values, np.inf]) - room))


def _lead_ticks(leads: Sequence[float], *, in_hours: bool) -> Any:
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    if not in_hours or leads[-1] < 12:
        return MaxNLocator(nbins=6, steps=[1, 2, 5, 10])
    return MultipleLocator(next(step for step in (6, 12, 24, 48, 72, 120, 240, 1e9) if leads[-1] / step <= 7))
