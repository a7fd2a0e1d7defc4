"""Pictures of a study of strategies: predicted against measured, what matters, and how the best was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciml.report.style import (
    AMBER,
    GREEN,
    INK,
    MODEL_COLOR,
    MUTED,
    PLUM,
    RED,
    RUST,
    SKY,
    VIOLET,
    add_titles,
    new_figure,
    plain_ticks,
    save_png,
    suite_style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]
MILLI = 1e3
FAILURE = RED
MESHES = (MODEL_COLOR, RUST, GREEN, PLUM, AMBER, SKY, VIOLET)
MARKERS = ("o", "s", "^", "D", "v")


def measured(rows: Sequence[Row]) -> list[Row]:
    """Returns the trials that have a step time."""
    return [row for row in rows if row["state"] == "measured"]


def spearman(one: Sequence[float], two: Sequence[float]) -> float | None:
    """Returns Spearman's correlation of ranks, where equal values share theirs; None below three values, or
    where all of one side are equal.
    """
    if len(one) < 3 or len(set(one)) == 1 or len(set(two)) == 1:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(one, two).statistic)


def draw_tuning(folder: Path, rows: Sequence[Row], shares: Mapping[str, float], source: str) -> list[Path]:
    """Writes the pictures of a study, as far as there is something to see.

    Args:
        rows: trials in their order, with ``state``, ``text``, ``predicted_s`` and ``step_s``.
        shares: importance of each axis.
        source: small print.
    """
    if not measured(rows):
        return []
    with suite_style():
        paths = [_predicted(folder / "predicted", rows, source), _best_so_far(folder / "best_so_far", rows, source)]
        if any(shares.values()):
            paths.append(_importance(folder / "importance", shares, source))
    return paths


def _looks(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """Returns a color and a marker for each mesh, in the order of its first trial."""
    meshes = dict.fromkeys(str(row["text"]) for row in rows)
    return {mesh: (MESHES[n % len(MESHES)], MARKERS[n % len(MARKERS)]) for n, mesh in enumerate(meshes)}


def _predicted(stem: Path, rows: Sequence[Row], source: str) -> Path:
    """Draws measured against predicted step time, on equal axes; failed trials stand at the upper edge."""
    figure = new_figure(7.6, 4.9)
    axes = figure.subplots()
    done = measured(rows)
    times = [row["predicted_s"] for row in rows] + [time for row in done for time in row["quartiles_s"]]
    limits = MILLI * min(times) / 1.15, MILLI * max(times) * 1.2
    axes.plot(limits, limits, color=MUTED, linestyle=":", linewidth=1.3, label="as predicted", zorder=1)
    for mesh, (color, marker) in _looks(done).items():
        own = [row for row in done if row["text"] == mesh]
        x, y = ([MILLI * row[key] for row in own] for key in ("predicted_s", "step_s"))
        ends = [[MILLI * abs(row["quartiles_s"][end] - row["step_s"]) for row in own] for end in (0, 1)]
        axes.errorbar(x, y, yerr=ends, fmt="none", ecolor=color, alpha=0.4, elinewidth=1.2, zorder=2)
        axes.scatter(x, y, s=40, color=color, marker=marker, label=mesh, linewidths=0.7, edgecolors="white", zorder=3)
    _mark_failures(axes, [MILLI * row["predicted_s"] for row in rows if row["state"] != "measured"])
    axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
    axes.set(xlabel="predicted, ms a step", ylabel="measured, ms a step")
    plain_ticks(axes.xaxis, *limits)
    plain_ticks(axes.yaxis, *limits)
    figure.legend(loc="outside right upper")
    correlation = spearman([row["predicted_s"] for row in done], [row["step_s"] for row in done])
    title = "" if correlation is None else f"Spearman's correlation {correlation:.2f} of {len(done)} strategies"
    axes.set_title(title, fontsize=9.5, fontweight="normal", color=INK)
    add_titles(figure, source=f"{source}; lines: quartiles of its steps")
    return save_png(figure, stem)


def _mark_failures(axes: Axes, places: Sequence[float]) -> None:
    """Crosses at the upper edge."""
    if places:
        edge, heights = axes.get_xaxis_transform(), [0.985] * len(places)
        axes.scatter(places, heights, marker="x", s=42, color=FAILURE, transform=edge, label="failed", zorder=4)


def _best_so_far(stem: Path, rows: Sequence[Row], source: str) -> Path:
    """Draws the step time of each trial, and of the best up to it."""
    figure = new_figure(7.6, 3.8)
    axes = figure.subplots()
    done = measured(rows)
    numbers = [row["trial"] for row in done]
    times = np.array([MILLI * row["step_s"] for row in done])
    best = np.minimum.accumulate(times)
    last = max(row["trial"] for row in rows)
    axes.step([*numbers, last], [*best, best[-1]], where="post", color=MODEL_COLOR, label="best so far", zorder=3)
    axes.scatter(numbers, times, s=30, color=MUTED, label="trial", zorder=2)
    _mark_failures(axes, [row["trial"] for row in rows if row["state"] != "measured"])
    limits = times.min() / 1.12, times.max() * 1.25
    axes.set(xlabel="trial", ylabel="ms a step", yscale="log", xlim=(0.5, last + 0.5), ylim=limits)
    plain_ticks(axes.yaxis, *limits)
    axes.set_xticks(range(1, last + 1, max(1, -(-last // 15))))
    figure.legend(loc="outside right upper")
    add_titles(figure, source=source)
    return save_png(figure, stem)


def _importance(stem: Path, shares: Mapping[str, float], source: str) -> Path:
    """Draws a bar for each axis."""
    figure = new_figure(7.0, 1.3 + 0.34 * len(shares))
    axes = figure.subplots()
    names, values = list(shares), [100 * share for share in shares.values()]
    axes.barh(range(len(names)), values, color=MODEL_COLOR, height=0.62, zorder=2)
    for position, value in enumerate(values):
        axes.text(value + 0.01 * max(values), position, f"{value:.0f}", va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(names)), [name.replace("_", "-") for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, max(values) * 1.1)
    axes.set_xlabel("importance for a fast step, % (PED-ANOVA)")
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    add_titles(figure, source=source)
    return save_png(figure, stem)
