"""Draws a model's scores as bars beside marks of its baselines, with the intervals of what the scores may be off by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sciml.domain.score import Baseline
from sciml.report.legend import draw_legend
from sciml.report.scores import ScoreLine, Scores, as_number, format_value, in_order, needs_log
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

Interval = tuple[float, float]

MOST_COLUMNS = 3
VALUE_WIDTH = 0.1
"""Width of a value that is written in a bar, as a share of the panel."""
MARK_WIDTH = 0.022
"""Half the width of a mark and a little room, as a share of the panel."""


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
        draw_legend(figure)
        add_titles(figure, source=scores.with_cases(source))
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


def _scale(axes: Axes, values: Sequence[float], ends: Sequence[float]) -> None:
    """Lets values, and the ends of their intervals, lie within the axis; values alone say what scale it has."""
    shown = [value for value in map(as_number, [*values, *ends]) if np.isfinite(value)]
    if needs_log(values):
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
        value = as_number(known.get(MODEL))
        drawn = [(share_of(v), share_of(v)) for v in map(as_number, known.values()) if np.isfinite(v)]
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
    values = np.array([as_number(known.get(name)) for known in scores.values()])
    return np.where(np.isfinite(values), values, np.nan)


def _text(value: float) -> str:
    if not np.isfinite(value):
        return "not finite"
    return f"{value:.2f}" if value < 100 else format_value(value)
