"""How good forecasts of flows are: VRMSE beside the baselines, and against lead time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path

from domains.fluids.forecast.metrics import VRMSE
from sciml.core.duration import format_hours
from sciml.report.scores import Scores
from sciml.report.skill import bars_beside_baselines, draw_scores_by_lead_time, legend_entries
from sciml.report.style import INK, add_titles, new_figure, save_png, suite_style

MOST_COLUMNS = 3
MOST_CURVES = 4


def draw_skill(scores: Scores, source: str, path: Path) -> Path:
    """A panel for each scored lead time: bars of the model's VRMSE, and a mark for each baseline."""
    tables = {hours: _by_variable(scores, hours) for hours in scores.lead_times(VRMSE)}
    columns = min(MOST_COLUMNS, len(tables))
    rows = math.ceil(len(tables) / columns)
    height = 0.95 + 0.36 * max(map(len, tables.values()))
    with suite_style():
        figure = new_figure(max(7.5, 4.0 * columns), height * rows + 0.55)
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        for number, (axes, (hours, table)) in enumerate(zip(grid, tables.items(), strict=False)):
            bars_beside_baselines(axes, table, scores.baselines)
            axes.axvline(1.0, color=INK, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
            axes.set_title(f"{format_hours(hours)} ahead")
            axes.set_xlabel("VRMSE (lower is better)")
            if number % columns and list(table) == list(list(tables.values())[number - 1]):
                axes.tick_params(labelleft=False)
        for axes in grid[len(tables) :]:
            axes.remove()
        handles, labels = legend_entries(figure)
        figure.legend(handles, labels, loc="outside upper left", ncols=6, columnspacing=1.3, handletextpad=0.5)
        add_titles(figure, source=source)
        return save_png(figure, path)


def draw_skill_by_lead_time(scores: Scores, source: str, path: Path) -> Path:
    """VRMSE against lead time, for up to four variables."""
    titles = {name: name for name in _telling(scores)[:MOST_CURVES]}
    return draw_scores_by_lead_time(scores, titles, [VRMSE], source, path, levels={VRMSE: 1.0})


def _telling(scores: Scores) -> list[str]:
    """The scored variables, one of each data set in turn, potential temperature first."""
    by_data_set: dict[str, list[str]] = {}
    for name in dict.fromkeys(row["variable"] for row in scores.rows if row["metric"] == VRMSE.name):
        by_data_set.setdefault(name.rpartition(".")[0], []).append(name)
    ranked = [sorted(names, key=lambda name: name.rpartition(".")[2] != "theta") for names in by_data_set.values()]
    return [name for turn in zip_longest(*ranked) for name in turn if name is not None]


def _by_variable(scores: Scores, hours: float) -> dict[str, Mapping[str, float]]:
    return {line.variable: line.values for line in scores.lines(VRMSE, hours)}
