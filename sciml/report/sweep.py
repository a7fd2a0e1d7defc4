"""The trainings of a sweep in one table and one picture: what each was given, and how good it became."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sciml.report.runs import SHOWN_VARIABLES, RunSummary
from sciml.report.style import INK, MODEL_COLOR, MUTED, new_figure, save_png, suite_style
from sciml.report.tables import Column, render, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Keys = Mapping[str, str]
ROW_INCHES = 0.36
LONGEST = 28
"""Characters of a value in a label; of a longer one, as of a path, the end is shown."""


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Returns the last part of each dotted key; the whole key where two end alike."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}


def labels_of(keys: Sequence[Keys]) -> list[str]:
    """Returns a short text of what each training was given."""
    names = short_names(list(dict.fromkeys(key for one in keys for key in one)))
    return [" ".join(f"{names[key]}={_shortened(value)}" for key, value in one.items()) for one in keys]


def _shortened(value: str) -> str:
    return value if len(value) <= LONGEST else f"...{value[3 - LONGEST :]}"


def ratios(run: RunSummary, first: RunSummary) -> dict[str, float]:
    """Returns a run's scores divided by another one's, by variable; nothing where they were scored differently."""
    if run.metric is None or run.metric != first.metric:
        return {}
    pairs = {name: (value, (first.values or {}).get(name)) for name, value in (run.values or {}).items()}
    found = {name: value / other for name, (value, other) in pairs.items() if other}
    return {name: ratio for name, ratio in found.items() if ratio > 0 and math.isfinite(ratio)}


def mean_ratio(run: RunSummary, first: RunSummary) -> float | None:
    """Returns the geometric mean over variables of a run's scores to another one's; None where there is none."""
    found = ratios(run, first)
    return math.exp(sum(map(math.log, found.values())) / len(found)) if found else None


def best_of(runs: Sequence[RunSummary]) -> int | None:
    """Returns the number of the run that is best on the mean over variables; None where fewer than two were scored."""
    scored = [(number, run) for number, run in enumerate(runs) if run.values and run.metric is not None]
    if len(scored) < 2:
        return None
    first = scored[0][1]
    means = {number: mean for number, run in scored if (mean := mean_ratio(run, first)) is not None}
    assert first.metric is not None
    chosen = max if first.metric.better == "higher" else min
    return chosen(means, key=means.__getitem__) if len(means) > 1 else None


def sweep_text(runs: Sequence[RunSummary], keys: Sequence[Keys]) -> str:
    """Returns a table with a line for each training.

    Args:
        keys: what each was given, by dotted key.
    """
    names = short_names(list(dict.fromkeys(key for one in keys for key in one)))
    scored = [run for run in runs if run.values and run.metric is not None]
    variables = list(dict.fromkeys(name for run in scored for name in run.values or {}))
    shown = variables[:SHOWN_VARIABLES]
    columns: list[str | Column] = ["run", *names.values(), "state", Column("to best baseline", True)]
    columns += [Column(name, True) for name in ("to the first", *shown)]
    rows = []
    for run, given in zip(runs, keys, strict=True):
        numbers = [run.against_best, mean_ratio(run, scored[0]) if scored else None]
        numbers += [(run.values or {}).get(name) for name in shown]
        cells = [None if number is None else f"{number:.4g}" for number in numbers]
        rows.append([run.path.name, *(given.get(key) for key in names), run.state, *cells])
    parts = [table(columns, rows)]
    if not scored:
        return render(*parts)
    metric = scored[0].metric
    assert metric is not None
    more = f" (of {len(variables)}, the first {len(shown)})" if len(variables) > len(shown) else ""
    note = f"{metric.label} of each variable{more}, {metric.direction}; ratios are geometric means over variables."
    return render(*parts, "", note)


def draw_sweep(runs: Sequence[RunSummary], keys: Sequence[Keys], path: Path) -> Path | None:
    """Draws the scores of runs relative to the first one's: a dot for each variable, and their geometric mean.

    Returns:
        The picture; None where fewer than two runs were scored on the same variables.
    """
    scored = [(label, run) for label, run in zip(labels_of(keys), runs, strict=True) if run.values]
    best = best_of([run for _, run in scored])
    if best is None:
        return None
    first = scored[0][1]
    metric = first.metric
    assert metric is not None
    with suite_style():
        longest = max(len(label) for label, _ in scored)
        figure = new_figure(6.0 + 0.075 * longest, 1.3 + ROW_INCHES * len(scored))
        axes = figure.subplots()
        for row, (_, run) in enumerate(scored):
            _draw_run(axes, row, ratios(run, first), is_best=row == best)
        if any(len(run.values or {}) > 1 for _, run in scored):
            axes.plot([], [], "o", color=MUTED, markersize=4, label="a variable")
        axes.plot([], [], "D", color=MODEL_COLOR, markersize=7, label="geometric mean")
        axes.axvline(1, color=INK, linewidth=0.9, zorder=1)
        axes.set_yticks(range(len(scored)), [label for label, _ in scored])
        axes.set_ylim(len(scored) - 0.5, -0.5)
        axes.margins(x=0.08)
        axes.set_xlabel(f"{metric.label} to that of the first ({metric.direction})")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper right", ncols=2)
        return save_png(figure, path)


def _draw_run(axes: Axes, row: int, values: Mapping[str, float], *, is_best: bool) -> None:
    """Draws the variables of a run, their mean, and its value beside all of them."""
    axes.plot(list(values.values()), [row] * len(values), "o", color=MUTED, markersize=4, alpha=0.7, zorder=2)
    if values:
        mean = math.exp(sum(map(math.log, values.values())) / len(values))
        axes.plot(mean, row, "D", color=MODEL_COLOR, markersize=7, markeredgecolor="white", zorder=3)
        axes.annotate(
            f"{mean:.3f}" + (" best" if is_best else ""), (1, row), (4, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", fontsize=9, fontweight="bold" if is_best else "normal",
        )  # fmt: skip
