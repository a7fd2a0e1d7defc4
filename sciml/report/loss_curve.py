"""Draws the course of a training: loss, and skill against the baselines as it grew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciml.domain.protocol import NamedFigure
from sciml.domain.score import Baseline
from sciml.forecast.evaluation import SKILL_PREFIX
from sciml.report.scores import in_order
from sciml.report.style import INK, MODEL_COLOR, RUST, label_of, new_figure, save_png, style_of, suite_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

History = Sequence[Mapping[str, Any]]

LOG_SCALE_ABOVE = 8.0


def loss_curve(history: History, baselines: Sequence[Baseline] = ()) -> NamedFigure | None:
    """Returns the picture of a training, or None where fewer than two losses were logged."""
    if len(_losses(history, "train")) < 2:
        return None
    skill = " Beside it: one minus the validation error over the baseline's; above zero the model is better."
    return NamedFigure(
        "loss_curve",
        "Loss",
        "Training loss (thin: as logged; thick: running mean) and validation loss."
        + (skill if _skills(history, baselines) else "")
        + (" Last: learning rate, and the gradient's norm before it is clipped." if _has_rate(history) else ""),
        partial(draw_loss_curve, history, baselines),
    )


def draw_loss_curve(history: History, baselines: Sequence[Baseline], path: Path) -> Path:
    """Draws loss against step and, where validation has baselines, skill against each of them."""
    skills = _skills(history, baselines)
    with suite_style():
        count = 1 + bool(skills) + _has_rate(history)
        figure = new_figure({1: 6.5, 2: 10.5, 3: 13.5}[count], 3.5)
        panels = figure.subplots(1, count, squeeze=False)[0]
        _loss_panel(panels[0], history)
        if skills:
            _skill_panel(panels[1], skills, baselines)
        if _has_rate(history):
            _rate_panel(panels[-1], history)
        last = max(row["step"] for row in history)
        for axes in panels:
            axes.set_xlim(0, 1.03 * last)
            axes.xaxis.get_major_locator().set_params(integer=True)
        return save_png(figure, path)


def _loss_panel(axes: Axes, history: History) -> None:
    train, valid = _losses(history, "train"), _losses(history, "valid")
    width = max(1, len(train) // 25)
    smooth = np.convolve(train[:, 1], np.ones(width) / width, mode="valid")
    axes.plot(*train.T, color=MODEL_COLOR, linewidth=0.8, alpha=0.35)
    axes.plot(train[width - 1 :, 0], smooth, color=MODEL_COLOR, linewidth=2, label="training")
    if len(valid):
        dashes = (0, (4, 1.5))
        axes.plot(*valid.T, color=INK, linewidth=1.2, linestyle=dashes, marker="o", markersize=4, label="validation")
    values = np.concatenate([smooth, valid[:, 1] if len(valid) else smooth])
    if values.min() > 0 and values.max() / values.min() > LOG_SCALE_ABOVE:
        axes.set_yscale("log")
    axes.set(xlabel="step", title="loss")
    axes.legend(loc="best")


def _skill_panel(axes: Axes, skills: Mapping[str, np.ndarray], baselines: Sequence[Baseline]) -> None:
    axes.axhline(0, color=INK, linewidth=0.9)
    for name, points in skills.items():
        style = style_of(name, baselines)._asdict()
        axes.plot(*points.T, label=f"against {label_of(name)}", markersize=4, **style)
    every = np.concatenate([points[:, 1] for points in skills.values()])
    last = np.array([points[-1, 1] for points in skills.values()])
    known, last = every[np.isfinite(every)], last[np.isfinite(last)]
    if len(known):
        # A first validation long before any skill would flatten all that follows; where each curve ends is shown.
        bottom = min([max(known.min(), -1.0), *last, 0.0])
        axes.set_ylim(bottom - 0.06 * (max(known.max(), 0.0) - bottom), None)
    axes.set(xlabel="step", title="validation skill")
    axes.legend(loc="best", fontsize=9)


def _has_rate(history: History) -> bool:
    return len(_column(history, "lr")) > 1 and len(_column(history, "grad_norm")) > 1


def _rate_panel(axes: Axes, history: History) -> None:
    """Draws the learning rate to the left scale, the norm of the gradient to the right one, each in one color."""
    axes.plot(*_column(history, "lr").T, color=MODEL_COLOR)
    axes.set(xlabel="step", title="learning rate and gradient")
    axes.set_ylabel("learning rate", color=MODEL_COLOR)
    axes.tick_params(axis="y", labelcolor=MODEL_COLOR)
    right = axes.twinx()
    norms = _column(history, "grad_norm")
    right.plot(*norms.T, color=RUST, linewidth=0.9, alpha=0.8)
    right.set_ylabel("gradient norm", color=RUST)
    if norms[:, 1].min() > 0:
        right.set_yscale("log")
        right.yaxis.set_major_formatter("{x:g}")
        right.yaxis.set_minor_formatter("{x:g}")
    right.tick_params(axis="y", which="both", labelcolor=RUST)
    right.spines["right"].set_visible(True)
    right.grid(visible=False)


def _column(history: History, name: str) -> np.ndarray:
    rows = [(row["step"], row[name]) for row in history if row["split"] == "train" and row.get(name) is not None]
    return np.array([(step, value) for step, value in rows if np.isfinite(value)]).reshape(-1, 2)


def _losses(history: History, split: str) -> np.ndarray:
    """Returns finite losses of a split as (row, [step, loss])."""
    rows = [(row["step"], row["loss"]) for row in history if row["split"] == split and "loss" in row]
    table = np.array(rows, dtype=float).reshape(-1, 2)
    return table[np.isfinite(table[:, 1])]


def _skills(history: History, baselines: Sequence[Baseline]) -> dict[str, np.ndarray]:
    names = {key.removeprefix(SKILL_PREFIX) for row in history for key in row if key.startswith(SKILL_PREFIX)}
    return {
        name: np.array(
            [(row["step"], row[SKILL_PREFIX + name]) for row in history if SKILL_PREFIX + name in row], dtype=float
        )
        for name in in_order(names, baselines)
    }
