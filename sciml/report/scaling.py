"""Pictures and tables of how the error falls with size and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sciml.planning.scaling_law import CONFIDENCE, Point, ScalingStudy, crossing
from sciml.report.style import (
    MODEL_COLOR,
    MUTED,
    UNDECLARED_COLORS,
    label_of,
    new_figure,
    plain_ticks,
    save_png,
    suite_style,
)
from sciml.report.tables import Column, render, table, with_prefix

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Studies = Mapping[str, ScalingStudy]
COLORS = (MODEL_COLOR, *UNDECLARED_COLORS[::-1])
MARKERS = ("o", "s", "^", "D", "v")
SAME_BUDGET = 1.06
"""Ratio of operations up to which trainings are of one budget: of 20 steps, the fewest, half a one is a fortieth."""
STEPS = 200
"""Budgets along a curve."""


def scaling_text(studies: Studies, target: float) -> str:
    """Returns the laws, what they predict, how the check came out, and where one family overtakes another."""
    trainings = table(
        ["family", *(Column(name, True) for name in ("parameters", "samples", "operations", "loss"))],
        [
            (label_of(name), f"{p.parameters:,.0f}", f"{p.samples:,.0f}", with_prefix(p.flops, "FLOP"), f"{p.loss:.4g}")
            for name, study in studies.items()
            for p in study.points
        ],
    )
    laws = table(
        ["family", *(Column(name, True) for name in ("floor", "exponent of size", "exponent of samples"))],
        [
            (label_of(name), *(_with_ends(study.interval(value), "{:.3g}") for value in _LAW))
            for name, study in studies.items()
        ],
    )
    goals = table(
        ["family", Column(f"best size for {with_prefix(target, 'FLOP')}", True), Column("its loss", True)],
        [
            (
                label_of(name),
                _with_ends(study.interval(lambda law: law.best_size(target)), "{:.3g}"),
                _with_ends(study.interval(lambda law: law.best_loss(target)), "{:.4g}"),
            )
            for name, study in studies.items()
        ],
    )
    note = f"In parentheses the {CONFIDENCE:.0%} interval, of a bootstrap over the trainings."
    return render(
        trainings, "", laws, "", goals, note, "", *_at_edges(studies), *_checks(studies), *_crossings(studies)
    )


_LAW = (lambda law: law.floor, lambda law: law.alpha, lambda law: law.beta)


def _with_ends(interval: tuple[float, float, float], form: str) -> str:
    return "{} ({}-{})".format(*(form.format(value) for value in interval))


def _at_edges(studies: Studies) -> list[str]:
    """Says of which families no size in between was the best at any budget, so that their best sizes are guesses."""
    lines = []
    for name, study in studies.items():
        budgets = [sorted(points, key=lambda point: point.parameters) for points in of_budgets(study.points)]
        best = [points.index(min(points, key=lambda point: point.loss)) for points in budgets]
        for end, wanted, places in (
            ("smallest", "smaller", [0] * len(best)),
            ("largest", "larger", [len(points) - 1 for points in budgets]),
        ):
            if best == places:
                lines.append(
                    f"At every budget the {end} size of {label_of(name)} has the lowest loss: the best lies outside of "
                    f"those trained, and what the law says of it is a guess; add {wanted} factors to sizes."
                )
    return lines


def _checks(studies: Studies) -> list[str]:
    lines = []
    for name, study in studies.items():
        point = study.check
        if point is None:
            continue
        predicted = study.interval(lambda law, p=point: law.loss(p.parameters, p.samples))  # type: ignore[misc]
        error = predicted[0] / point.loss - 1
        lines.append(
            f"Check of {label_of(name)}: {point.parameters:,.0f} parameters for {with_prefix(point.flops, 'FLOP')} "
            f"came to {point.loss:.4g}, predicted {_with_ends(predicted, '{:.4g}')}, {error:+.1%}."
        )
    return lines


def _crossings(studies: Studies) -> list[str]:
    lines = []
    for (first, one), (second, two) in combinations(studies.items(), 2):
        reach = _budgets(studies)
        found = crossing(one.law, two.law, reach)
        ends = f"between {with_prefix(reach[0], 'FLOP', 2)} and {with_prefix(reach[-1], 'FLOP', 2)}"
        names = f"{label_of(first)} and {label_of(second)}"
        if found is None:
            better = first if one.law.best_loss(reach[-1]) < two.law.best_loss(reach[-1]) else second
            lines.append(f"The curves of {names} do not cross {ends}: {label_of(better)} is the better one.")
        else:
            lines.append(f"The curves of {names} cross at {with_prefix(found, 'FLOP', 3)}.")
    return lines


def _budgets(studies: Studies) -> np.ndarray:
    """Returns budgets from the least to a hundred times the largest that was trained."""
    flops = [point.flops for study in studies.values() for point in study.points]
    return np.geomspace(min(flops), 100 * max(flops), STEPS)


def draw_scaling(folder: Path, studies: Studies) -> list[Path]:
    """Draws the loss against size for each budget, and the best loss against the budget."""
    with suite_style():
        figure = new_figure(4.8 * len(studies) + 5.2, 4.6)
        axes = figure.subplots(1, len(studies) + 1, width_ratios=[1.0] * len(studies) + [1.15])
        for number, (name, study) in enumerate(studies.items()):
            _draw_sizes(axes[number], study)
            axes[number].set_title(label_of(name))
        axes[0].set_ylabel("validation loss")
        _draw_budgets(axes[-1], studies)
        return [save_png(figure, folder / "scaling")]


def _draw_sizes(axes: Axes, study: ScalingStudy) -> None:
    """Draws the trainings of each budget over their sizes, with the law's curve and its lowest point."""
    from matplotlib import colormaps

    groups = of_budgets(study.points)
    for shade, points in zip(np.linspace(0.85, 0.25, len(groups)), groups, strict=True):
        flops = float(np.exp(np.mean([np.log(point.flops) for point in points])))
        color = colormaps["viridis"](shade)
        sizes = np.geomspace(min(p.parameters for p in points) / 1.3, max(p.parameters for p in points) * 1.3, STEPS)
        axes.plot(sizes, [study.law.loss_at(size, flops) for size in sizes], color=color, linewidth=1.2)
        axes.plot([p.parameters for p in points], [p.loss for p in points], "o", color=color, markersize=5,
                  label=with_prefix(float(f"{flops:.2g}"), "FLOP", 3))  # fmt: skip
    _scale(axes)
    axes.set_xlabel("parameters")
    axes.legend(title="operations of training")


def of_budgets(points: Sequence[Point]) -> list[list[Point]]:
    """Returns the trainings of each budget, smallest first; whole numbers of steps come to somewhat more or less."""
    groups: list[list[Point]] = []
    for point in sorted(points, key=lambda point: point.flops):
        if not groups or point.flops > SAME_BUDGET * groups[-1][-1].flops:
            groups.append([])
        groups[-1].append(point)
    return groups


def _scale(axes: Axes) -> None:
    """Makes both axes logarithmic, with losses written as plain numbers; called when all is drawn."""
    from matplotlib.ticker import NullFormatter

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    plain_ticks(axes.yaxis, *axes.get_ylim())


def _draw_budgets(axes: Axes, studies: Studies) -> None:
    """Draws each family's best loss over the budget, with its interval and the training outside the fit."""
    flops = _budgets(studies)
    for (name, study), color, marker in zip(
        studies.items(), COLORS * len(studies), MARKERS * len(studies), strict=False
    ):
        edge = 50 * (1 - CONFIDENCE)
        drawn = np.array([[law.best_loss(c) for c in flops] for law in study.drawn])
        low, high = np.percentile(drawn, [edge, 100 - edge], axis=0)
        axes.fill_between(flops, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(flops, [study.law.best_loss(c) for c in flops], color=color, label=label_of(name))
        axes.plot([p.flops for p in study.points], [p.loss for p in study.points], marker, color=color, markersize=4,
                  alpha=0.5)  # fmt: skip
        if study.check is not None:
            axes.plot([study.check.flops], [study.check.loss], marker, color=color, markersize=9, markeredgecolor=MUTED,
                      label=f"{label_of(name)}, not fitted")  # fmt: skip
    _scale(axes)
    axes.set_xlabel("operations of training")
    axes.set_title("best size at each budget")
    axes.legend()
