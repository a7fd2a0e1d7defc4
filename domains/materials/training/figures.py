"""Pictures of a materials run: predicted against true values, and errors by element and by composition order."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from domains.materials.training.baselines import COMPOSITION
from domains.materials.training.calibration import COVERAGE_68, COVERAGE_95, ENCE
from domains.materials.training.metrics import BY_KIND, DISPLAY, GPA
from sciml.domain.protocol import NamedFigure, RunResult
from sciml.report.style import INK, MODEL_COLOR, add_titles, new_figure, pretty_unit, save_png, suite_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_COLUMNS = 3
BINS = 12
FEWEST_SHADES = 10
"""Values that the darkest shade stands for at least, so that single ones are light."""
AXES = {"element": "element", "order": "elements of the alloy", "branch": "data set"}
"""Words on the axes of errors that are told apart by one of these."""
ERROR_COLOR = "#D62718"


def materials_figures(result: RunResult) -> Iterator[NamedFigure]:
    """Yields the pictures of a run, from its files."""
    labels = [name.removesuffix(".true") for name in result.example if name.endswith(".true")]
    if labels:
        yield NamedFigure(
            "parity",
            "Predicted and true",
            "Values of test structures that the model has not seen: on the line it is right; darker where more of them "
            "lie. Below, the errors: the red lines are their median, and what 5 and 95 of 100 lie below.",
            partial(draw_parity, result.example, result.schema, labels),
        )
    uncertain = [name for name in labels if f"{name}.spread" in result.example]
    if uncertain:
        yield NamedFigure(
            "calibration",
            "Spread and error",
            "Predictions of test structures, gathered by the spread that the model gives itself: on the line their "
            "errors are as large as it says. Spreads are scaled by one factor a label, found on the validation split.",
            partial(draw_calibration, result.example, result.schema, uncertain, result.scores),
        )
    kinds = {"element": "Errors by element", "order": "Errors by number of elements", "branch": "Errors by data set"}
    for kind, title in kinds.items():
        rows = [row for row in result.scores if row["metric"] == BY_KIND[kind].name]
        if rows:
            yield NamedFigure(
                f"errors_by_{kind}",
                title,
                "Mean absolute error on the test structures: the model, and what composition alone tells.",
                partial(draw_bars, rows, result.schema, AXES[kind]),
            )


def draw_parity(
    example: Mapping[str, np.ndarray], schema: Mapping[str, Any], labels: Sequence[str], path: Path
) -> Path:
    """Draws how many values lie where, a column for each label: predicted against true, and the errors below."""
    columns = min(len(labels), MOST_COLUMNS)
    rows = math.ceil(len(labels) / columns)
    with suite_style():
        figure = new_figure(4.1 * columns, 6.0 * rows + 0.4)
        add_titles(figure, source=str(schema.get("title", "")))
        grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[3, 2] * rows)
        for number, label in enumerate(labels):
            above, below = grid[2 * (number // columns) :, number % columns][:2]
            shades = _draw_parity_of(above, below, example, schema, label)
            bar = figure.colorbar(shades, ax=[above, below], aspect=45, pad=0.02)
            bar.ax.yaxis.set_major_formatter("{x:g}")
            bar.ax.yaxis.set_minor_formatter("")
            bar.set_label("values" if number % columns == columns - 1 or number == len(labels) - 1 else "")
        for number in range(len(labels), rows * columns):
            for axes in grid[2 * (number // columns) :, number % columns][:2]:
                axes.remove()
        return save_png(figure, path)


def _draw_parity_of(
    above: Axes, below: Axes, example: Mapping[str, np.ndarray], schema: Mapping[str, Any], label: str
) -> Any:
    """Draws one label's values and errors; returns what shows the colors of the counts."""
    from matplotlib.colors import LogNorm

    unit = "GPa" if label == "stress" else schema["labels"][label]["unit"] + "/atom" * (label == "energy")
    factor = GPA if label == "stress" else 1.0
    true, predicted = (factor * example[f"{label}.{key}"].astype(float) for key in ("true", "predicted"))
    scale, small = DISPLAY.get(label, (1.0, unit))
    errors = scale / factor * (predicted - true)
    look: dict[str, Any] = {"gridsize": 55, "mincnt": 1, "cmap": "viridis_r", "norm": LogNorm(), "linewidths": 0.1}
    shades = above.hexbin(true, predicted, **look)
    shades.set_clim(1, max(FEWEST_SHADES, float(np.max(np.asarray(shades.get_array())))))
    above.axline((true.min(), true.min()), slope=1, color=INK, lw=0.9)
    above.text(0.04, 0.95, f"MAE {np.abs(errors).mean():.3g} {pretty_unit(small)}", transform=above.transAxes, va="top")
    above.set(ylabel=_axis("predicted", unit), title=label.replace("_", " "))
    below.hexbin(true, errors, **{**look, "norm": shades.norm, "gridsize": (55, 24)})
    below.axhline(0, color=INK, lw=0.9)
    parts = np.array_split(np.argsort(true), min(BINS, max(len(true) // 20, 1)))
    middles = [np.median(true[few]) for few in parts]
    for share, style in ((50, "-"), (5, ":"), (95, ":")):
        below.plot(middles, [np.percentile(errors[few], share) for few in parts], style, color=ERROR_COLOR, lw=1.6)
    reach = 1.1 * np.percentile(np.abs(errors), 99.5) or 1.0
    below.set(xlabel=_axis("true", unit), ylabel=_axis("error", small), ylim=(-reach, reach))
    for axes in (above, below):
        axes.locator_params(nbins=5)
    return shades


def _axis(words: str, unit: str) -> str:
    """Returns what an axis says: with the unit, where there is one."""
    return f"{words}, {pretty}" if (pretty := pretty_unit(unit)) else words


def draw_calibration(
    example: Mapping[str, np.ndarray],
    schema: Mapping[str, Any],
    labels: Sequence[str],
    scores: Sequence[Mapping[str, Any]],
    path: Path,
) -> Path:
    """Draws rms of errors over rms of spreads, in bins of as many values, a panel for each label."""
    values_of = {(row["variable"], row["metric"]): row["value"] for row in scores}
    with suite_style():
        from matplotlib.ticker import LogLocator, NullLocator

        figure = new_figure(4.0 * len(labels), 4.2)
        add_titles(figure, source=str(schema.get("title", "")))
        for axes, label in zip(figure.subplots(1, len(labels), squeeze=False)[0], labels, strict=True):
            scale, unit = DISPLAY.get(label, (1.0, schema["labels"][label]["unit"]))
            error = scale * (example[f"{label}.predicted"] - example[f"{label}.true"]).astype(float)
            spread = scale * example[f"{label}.spread"].astype(float)
            bins = np.array_split(np.argsort(spread), min(BINS, max(len(spread) // 8, 1)))
            points = np.array([[np.sqrt(np.mean(values[few] ** 2)) for values in (spread, error)] for few in bins])
            axes.loglog(*points.T, "o-", color=MODEL_COLOR)
            ends = [points.min() / 1.3, points.max() * 1.3]
            axes.plot(ends, ends, color=INK, lw=0.9)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter("{x:g}")
                axis.set_minor_locator(NullLocator())
            axes.set(
                xlim=ends, ylim=ends, xlabel=_axis("spread", unit), ylabel="rms error", title=label.replace("_", " ")
            )
            shares = [("within 1 std", COVERAGE_68), ("within 1.96", COVERAGE_95)]
            lines = [
                f"{name} {values_of[label, metric.name]:.0%} ({metric.perfect:.0%})"
                for name, metric in shares
                if (label, metric.name) in values_of
            ]
            lines += [f"ENCE {values_of[label, ENCE.name]:.2f}"] if (label, ENCE.name) in values_of else []
            axes.text(0.04, 0.96, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=9)
        return save_png(figure, path)


def draw_bars(rows: Sequence[Mapping[str, Any]], schema: Mapping[str, Any], kind: str, path: Path) -> Path:
    """Draws bars of the model beside those of the baseline, a panel for each label.

    Args:
        kind: what there is a bar for each of, as the axis says it.
    """
    table: dict[str, list[tuple[str, float, float, str]]] = {}
    for row in rows:
        match = re.fullmatch(r"(.+)\[(.+)\]", row["variable"])
        if match:
            baseline = row["baseline"].get(COMPOSITION.name, math.nan)
            table.setdefault(match[1], []).append(
                (match[2].removeprefix("order "), row["value"], baseline, row["unit"])
            )
    with suite_style():
        figure = new_figure(4.2 * len(table), 3.3)
        add_titles(figure, source=str(schema.get("title", "")))
        for axes, (label, bars) in zip(figure.subplots(1, len(table), squeeze=False)[0], table.items(), strict=True):
            names, values, baselines, units = zip(*bars, strict=True)
            positions = np.arange(len(names))
            axes.bar(positions - 0.2, baselines, 0.38, color=COMPOSITION.color, label="composition alone")
            axes.bar(positions + 0.2, values, 0.38, color=MODEL_COLOR, label="model")
            axes.set(title=label.replace("_", " "), xlabel=kind, ylabel=_axis("MAE", units[0]))
            axes.set_xticks(positions, names)
            axes.grid(axis="x", visible=False)
            axes.margins(y=0.3)
            axes.set_ylim(bottom=0)
        figure.axes[0].legend(loc="upper right")
        return save_png(figure, path)
