"""Several models beside one another: means with confidence intervals over seeds and cases, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from sciml.core.duration import format_hours
from sciml.domain.score import Metric
from sciml.forecast.lead_time_sums import CONFIDENCE, FEWEST_GROUPS
from sciml.report.legend import legend_entries
from sciml.report.scores import TimeText
from sciml.report.style import INK, MODEL_COLOR, MUTED, label_of, label_plainly, new_figure, save_png, suite_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESAMPLES = 2000
FREE = 1e-3
"""Share of the dearest model's cost below which one costs nothing, as persistence does."""
LOG_SCALE_ABOVE = 4.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""
BEYOND = 1.3
"""Where the axis of errors ends, over the worst error of a trained model."""
LEGEND_INCHES, CHARACTER_INCHES = 0.75, 0.085
"""Width of an entry of a legend without its text, and of a character."""
FREE_STYLES = ("-", "--", ":", "-.")
COSTS = {"train_s": "CPU seconds of training", "infer_step_s": "CPU seconds of one step forward"}

Rows = Sequence[Mapping[str, Any]]


def compare_models(cases: Rows, costs: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Returns means of the first metric that was scored over variables, seeds and cases, at each lead time.

    Intervals are percentiles of a bootstrap that draws seeds, and groups of cases that depend on one another (such as
    those of one simulation), with replacement. What a model's mean is to that of the first one is drawn in pairs.
    Variables in different units have no mean: their errors are first divided by the first model's mean error of the
    same variable and lead time.

    Args:
        cases: rows with ``model``, ``seed``, ``case``, ``group`` and what a score has.
        costs: by model.

    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, ch. 8 and 13.
    """
    metric = Metric.from_row(cases[0])
    chosen: Rows = [row for row in cases if row["metric"] == metric.name]
    models = list(dict.fromkeys(row["model"] for row in chosen))
    has_units = len({row["unit"] for row in chosen}) > 1
    if has_units:
        chosen = _in_errors_of(models[0], chosen)
    rows = []
    for lead in sorted({row["lead_time_h"] for row in chosen}, key=lambda hours: hours or 0.0):
        at_lead = [row for row in chosen if row["lead_time_h"] == lead]
        groups = list(dict.fromkeys(row["group"] for row in at_lead))
        errors = {m: _by_seed_and_group(at_lead, m, groups) for m in models}
        for model in models:
            own, reference = errors[model], errors[models[0]]
            shared = min(len(own), len(reference))
            value, relative = _bootstrap(own), _bootstrap(own[:shared], reference[:shared])
            rows.append({"model": model, "lead_time_h": lead, "seeds": len(own), "value": value, "relative": relative})
    num_groups = len({row["group"] for row in chosen})
    return {
        **metric.to_row(), "reference": models[0], "in_errors_of_reference": has_units, "groups": num_groups,
        "scores": rows, "costs": dict(costs),
    }  # fmt: skip


def _in_errors_of(model: str, rows: Rows) -> Rows:
    """Returns rows whose values are divided by a model's mean error of the same variable at the same lead time."""
    own: dict[tuple[str, Any], list[float]] = {}
    for row in rows:
        if row["model"] == model:
            own.setdefault((row["variable"], row["lead_time_h"]), []).append(row["value"])
    return [{**row, "value": row["value"] / np.mean(own[row["variable"], row["lead_time_h"]])} for row in rows]


def _by_seed_and_group(rows: Rows, model: str, groups: Sequence[Any]) -> Float[np.ndarray, "seed group"]:
    errors: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        if row["model"] == model:
            errors.setdefault((row["seed"], groups.index(row["group"])), []).append(row["value"])
    seeds = sorted({seed for seed, _ in errors})
    return np.array([[np.mean(errors[seed, group]) for group in range(len(groups))] for seed in seeds])


def _bootstrap(
    errors: Float[np.ndarray, "seed group"], reference: Float[np.ndarray, "seed group"] | None = None
) -> list[float]:
    """Returns mean, or ratio of means, with the ends of its interval."""
    generator = np.random.default_rng(0)
    seeds = generator.integers(errors.shape[0], size=(RESAMPLES, errors.shape[0], 1))
    groups = generator.integers(errors.shape[1], size=(RESAMPLES, 1, errors.shape[1]))
    mean, drawn = errors.mean(), errors[seeds, groups].mean((1, 2))
    if reference is not None:
        mean, drawn = mean / reference.mean(), drawn / reference[seeds, groups].mean((1, 2))
    edge = 50 * (1 - CONFIDENCE)
    return [float(mean), *map(float, np.percentile(drawn, [edge, 100 - edge]))]


def markdown_table(document: Mapping[str, Any], time_text: TimeText = format_hours) -> str:
    """Returns the comparison as a table in Markdown.

    Args:
        time_text: writes a lead time of some hours.
    """
    metric, reference, costs = _metric_name(document), label_of(document["reference"]), document["costs"]
    leads = list(dict.fromkeys(row["lead_time_h"] for row in document["scores"]))
    names = ["" if lead is None else time_text(lead) for lead in leads]
    heads = ["model", "seeds", "parameters", "train step, ms", "training, s", "step forward, ms"]
    heads += [f"{metric} {name}".strip() for name in names]
    heads += [f"to {reference}'s {name}".strip() for name in names]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for model in dict.fromkeys(row["model"] for row in document["scores"]):
        rows = {row["lead_time_h"]: row for row in document["scores"] if row["model"] == model}
        cost = costs[model]
        cells = [label_of(model), str(next(iter(rows.values()))["seeds"]), f"{cost['parameters']:,.0f}"]
        cells += [f"{1e3 * cost['train_step_s']:.0f}", f"{cost['train_s']:.0f}", f"{1e3 * cost['infer_step_s']:.1f}"]
        shown = "{:.3f} ({:.3f}-{:.3f})" if document["groups"] >= FEWEST_GROUPS else "{:.3f}"
        cells += [shown.format(*rows[lead][kind]) for kind in ("value", "relative") for lead in leads]
        lines.append("| " + " | ".join(cells) + " |")
    cases = f"{document['groups']} independent case{'s' * (document['groups'] != 1)}"
    intervals = f"in parentheses the {CONFIDENCE:.0%} interval over seeds and cases (bootstrap)"
    if document["groups"] < FEWEST_GROUPS:
        intervals = f"an interval needs {FEWEST_GROUPS} of them"
    costs_note = "Costs: mean CPU time without the extremes, the models measured in turn."
    note = f"Mean over variables and {cases}; {intervals}. {costs_note}"
    return "\n".join([*lines, "", note, ""])


def draw_comparison(document: Mapping[str, Any], folder: Path, time_text: TimeText = format_hours) -> list[Path]:
    """Draws error against cost: a column for each lead time, a row for each kind of cost.

    Args:
        time_text: writes a lead time of some hours.
    """
    leads = list(dict.fromkeys(row["lead_time_h"] for row in document["scores"]))
    with suite_style():
        figure = new_figure(max(4.6 * len(leads) + 0.4, 6.2), 7.4)
        grid = figure.subplots(2, len(leads), squeeze=False, sharey="col", sharex="row")
        for row, (cost, label) in enumerate(COSTS.items()):
            drawn: list[float] = []
            for axes, lead in zip(grid[row], leads, strict=True):
                drawn += _pareto_panel(axes, document, lead, cost)
                axes.set_xlabel(label)
                if row == 0 and lead is not None:
                    axes.set_title(time_text(lead))
            for axes in grid[row]:
                _scale_costs(axes, drawn)
            grid[row, 0].set_ylabel(_metric_name(document))
        handles, labels = legend_entries(figure)
        widest = LEGEND_INCHES + CHARACTER_INCHES * max(map(len, labels))
        columns = max(1, min(len(labels), int(figure.get_figwidth() / widest)))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        return [save_png(figure, folder / "pareto")]


def _scale_costs(axes: Axes, costs: Sequence[float]) -> None:
    """Lets the costs of all panels of a row lie within the axis that they share."""
    if max(costs) > LOG_SCALE_ABOVE * min(costs):
        axes.set_xscale("log")
        label_plainly(axes.xaxis)
        axes.set_xlim(min(costs) / 1.4, max(costs) * 1.4)
    else:
        axes.set_xlim(0, max(costs) * 1.15)
        axes.locator_params(axis="x", nbins=6)


def _pareto_panel(axes: Axes, document: Mapping[str, Any], lead: float | None, cost: str) -> list[float]:
    """Draws numbered points with intervals, dark on the front of what none beats in both; lines for what is free.

    The axis of errors is that of trained models. What is far worse is named as beyond it.

    Returns:
        The costs of the points.
    """
    every = [row for row in document["scores"] if row["lead_time_h"] == lead]
    limit = _limit(document, every)
    dearest = max(document["costs"][row["model"]][cost] for row in every)
    rows = [row for row in every if document["costs"][row["model"]][cost] > FREE * dearest]
    for row, style in zip([row for row in every if row not in rows], cycle(FREE_STYLES), strict=False):
        name = f"{label_of(row['model'])}, free"
        if row["value"][0] > limit:
            axes.plot([], [], linestyle="none", label=f"{name}, beyond")
        else:
            axes.axhline(row["value"][0], color=INK, linewidth=1.1, linestyle=style, label=name)
    rows = [row for row in rows if row["value"][0] <= limit]
    points = [(document["costs"][row["model"]][cost], row["value"][0]) for row in rows]
    shortfall = Metric.from_row(document).shortfall
    front = [p for p in sorted(points) if not any(q[0] <= p[0] and shortfall(q[1]) < shortfall(p[1]) for q in points)]
    axes.step(*np.transpose(front), where="post", color=MUTED, linewidth=1.0, linestyle=(0, (4, 2)), zorder=1)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(row["model"] for row in document["scores"]))}
    for row, point in zip(rows, points, strict=True):
        is_own = row["model"] == document["reference"]
        color = MODEL_COLOR if is_own else INK if point in front else MUTED
        _draw_point(axes, point, row["value"][1:], color, numbers[row["model"]], label_of(row["model"]), filled=is_own)
    axes.margins(y=0.1)
    values = [value for row in every for value in row["value"] if row["value"][0] <= limit]
    if limit < math.inf:
        span = limit - min(values)
        axes.set_ylim(min(values) - 0.1 * span, limit + 0.06 * span)
    elif 0 < LOG_SCALE_ABOVE * min(values) < max(values):  # or what is far worse would press all others together
        axes.set_yscale("log")
        label_plainly(axes.yaxis)
    return [x for x, _ in points]


def _limit(document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> float:
    """Returns the end of the axis where baselines are far worse than all trained models, else infinity."""
    trained = [row["value"][2] for row in rows if document["costs"][row["model"]]["train_s"] > 0]
    if not trained or Metric.from_row(document).better != "lower":
        return math.inf
    limit = BEYOND * max(trained)
    return limit if max(row["value"][2] for row in rows) > limit else math.inf


def _metric_name(document: Mapping[str, Any]) -> str:
    """Returns the label of the metric, and whose it is measured in where variables have units of their own."""
    return document["label"] + f" in {label_of(document['reference'])}'s" * document["in_errors_of_reference"]


def _draw_point(
    axes: Axes,
    point: tuple[float, float],
    interval: Sequence[float],
    color: str,
    number: int,
    label: str,
    *,
    filled: bool,
) -> None:
    """Draws a disk with the model's number in it, so that no one needs to tell colors apart."""
    (x, y), (low, high) = point, interval
    above = 3 if filled else 2
    axes.errorbar(
        x, y, yerr=[[max(y - low, 0)], [max(high - y, 0)]], color=color, elinewidth=1.1, linestyle="none",
        marker="o", markersize=12, markerfacecolor=color if filled else "white", markeredgecolor=color, zorder=above,
    )  # fmt: skip
    axes.plot(
        x, y, marker=f"${number}$", markersize=6 if number < 10 else 8, color="white" if filled else color,
        markeredgewidth=0.3, linestyle="none", zorder=above + 0.5,
    )  # fmt: skip
    axes.plot([], [], marker=f"${number}$", markersize=7, color=color, linestyle="none", label=label)
