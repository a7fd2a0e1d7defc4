"""Draws a model's scores beside those of its baselines: bars for one lead time, curves against lead time.

What the model's scores may be off by is drawn, too: the 95% interval over cases that do not depend on one another.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciml.domain.score import Baseline, Metric
from sciml.report.scores import ScoreLine, Scores, format_value, in_order
from sciml.report.style import (
    INK,
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
    from matplotlib.figure import Figure

Interval = tuple[float, float]

MOST_COLUMNS = 3
INTERVAL = "95% interval"
LEGEND_INCHES = 1.6
"""Approximate width of an entry of a legend."""
VALUE_WIDTH = 0.1
"""Width of a value that is written in a bar, as a share of the panel."""
MARK_WIDTH = 0.022
"""Half the width of a mark and a little room, as a share of the panel."""
MARK_HEIGHT = 0.04
"""Half the height of a mark, as a share of the panel."""
LOG_SCALE_ABOVE = 50.0
"""Ratio of the largest to the smallest score from which a linear scale shows only the largest."""


def draw_bars(
    panels: Mapping[str, Sequence[ScoreLine]],
    label: str,
    scores: Scores,
    source: str,
    path: Path,
    *,
    level_color: str = INK,
) -> Path:
    """Draws panels of bars beside marks of the baselines, see :func:`bars_beside_baselines`.

    Args:
        panels: by title, a line for each variable.
        label: of the axis of scores.
        scores: those that the lines are of.
        source: what the data are.
        level_color: of the line at 1, which the scores are seen from.
    """
    columns = min(MOST_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    height = 0.95 + 0.36 * max(map(len, panels.values()))
    with suite_style():
        figure = new_figure(max(7.5, 4.0 * columns), height * rows + 0.55)
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        names: list[str] = []
        for number, (axes, (title, lines)) in enumerate(zip(grid, panels.items(), strict=False)):
            table = {line.variable: line.values for line in lines}
            intervals = {line.variable: line.interval for line in lines if line.interval is not None}
            bars_beside_baselines(axes, table, scores.baselines, intervals)
            axes.axvline(1.0, color=level_color, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
            axes.set_title(title)
            axes.set_xlabel(label)
            axes.tick_params(labelleft=number % columns == 0 or list(table) != names)
            names = list(table)
        for axes in grid[len(panels) :]:
            axes.remove()
        _draw_legend(figure)
        add_titles(figure, source=_with_cases(source, scores))
        return save_png(figure, path)


def bars_beside_baselines(
    axes: Axes,
    scores: Mapping[str, Mapping[str, float]],
    baselines: Sequence[Baseline] = (),
    intervals: Mapping[str, Interval] | None = None,
) -> None:
    """Draws a bar of the model's score for each variable with its value in it, and a mark for each baseline.

    Args:
        scores: by variable and predictor; what is missing or not finite has no mark.
        baselines: of the domain, whose colors and markers are taken.
        intervals: by variable, what the model's score may be; drawn as a line from end to end.
    """
    intervals = intervals or {}
    rows = np.arange(len(scores))
    axes.barh(rows, _finite(scores, MODEL), height=0.62, color=MODEL_COLOR, label=MODEL, zorder=2)
    for name in in_order({name for known in scores.values() for name in known} - {MODEL}, baselines):
        color, marker = style_of(name, baselines)
        axes.scatter(
            _finite(scores, name), rows, marker=marker, s=62, zorder=3,
            color=color, edgecolor="white", linewidth=0.8, label=label_of(name),
        )  # fmt: skip
    _draw_intervals(axes, {row: intervals[name] for row, name in enumerate(scores) if name in intervals})
    ends = [end for interval in intervals.values() for end in interval]
    _scale(axes, [value for known in scores.values() for value in known.values()], ends)
    _write_values(axes, scores, intervals)
    axes.set_yticks(rows, list(scores))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def _draw_intervals(axes: Axes, intervals: Mapping[int, Interval]) -> None:
    """Draws a line from end to end of what the model's score may be, by row, and explains it once."""
    if intervals:
        low, high = np.transpose(list(intervals.values()))
        axes.hlines(list(intervals), low, high, color=INK, linewidth=1.6, zorder=3, label=INTERVAL)


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


def _with_cases(source: str, scores: Scores) -> str:
    return f"{source} \u00b7 {scores.cases}" if scores.cases else source


def _draw_legend(figure: Figure) -> None:
    """Draws one legend of all panels above them, in as many columns as the figure is wide."""
    handles, labels = legend_entries(figure)
    columns = min(len(labels), int(figure.get_figwidth() / LEGEND_INCHES))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, columnspacing=1.3, handletextpad=0.5)


def legend_entries(figure: Figure) -> tuple[list[Any], list[str]]:
    """Returns handles and labels of all panels, each label once, the model first."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    labels = sorted(entries, key=lambda label: label != MODEL)
    return [entries[label] for label in labels], labels


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
        _draw_legend(figure)
        add_titles(figure, source=_with_cases(source, scores))
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
    values = [_number(value) for points in curves.values() for _, value in points]
    if metric.better == "nearer" and metric.perfect is not None:
        axes.axhline(metric.perfect, color=INK, linewidth=0.9, zorder=1)
    elif metric.better != "higher" and _needs_log(values):
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


def _needs_log(values: Sequence[float]) -> bool:
    known = [value for value in map(_number, values) if np.isfinite(value) and value > 0]
    return bool(known) and max(known) / min(known) > LOG_SCALE_ABOVE


def _scale(axes: Axes, values: Sequence[float], ends: Sequence[float]) -> None:
    """Lets values, and the ends of their intervals, lie within the axis; values alone say what scale it has."""
    shown = [value for value in map(_number, [*values, *ends]) if np.isfinite(value)]
    if _needs_log(values):
        smallest = min(value for value in shown if value > 0)
        axes.set_xscale("log")
        axes.set_xlim(smallest / 4, 1.5 * max(shown))
    else:
        axes.set_xlim(1.06 * min([*shown, 0.0]), 1.06 * max([*shown, 1e-9]))


def _write_values(axes: Axes, scores: Mapping[str, Mapping[str, float]], intervals: Mapping[str, Interval]) -> None:
    """Writes values in the bars, in the first gap between marks; beside bars that are too short or too full."""

    def share_of(value: float) -> float:
        return axes.transAxes.inverted().transform(axes.transData.transform((value, 0)))[0]

    for row, (name, known) in enumerate(scores.items()):
        value = _number(known.get(MODEL))
        drawn = [(share_of(v), share_of(v)) for v in map(_number, known.values()) if np.isfinite(v)]
        if name in intervals:
            low, high = intervals[name]
            drawn.append((share_of(low), share_of(high)))
        left = -0.01  # there is no mark at the left end, so that the text stands closer to it
        for begin, end in sorted(drawn):
            if begin - left > VALUE_WIDTH + 2 * MARK_WIDTH:
                break
            left = max(left, end)
        left += MARK_WIDTH
        inside = np.isfinite(value) and left < share_of(value)
        axes.text(
            left, row, _text(value), va="center", color="white" if inside else MODEL_COLOR,
            fontsize=8.5, fontweight="bold", transform=axes.get_yaxis_transform(), zorder=4,
        )  # fmt: skip


def _finite(scores: Mapping[str, Mapping[str, float]], name: str) -> np.ndarray:
    """Returns a predictor's scores, nan where they are missing or infinite."""
    values = np.array([_number(known.get(name)) for known in scores.values()])
    return np.where(np.isfinite(values), values, np.nan)


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _text(value: float) -> str:
    if not np.isfinite(value):
        return "not finite"
    return f"{value:.2f}" if value < 100 else format_value(value)
