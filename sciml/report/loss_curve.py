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
from sciml.report.style import INK, MODEL_COLOR, label_of, new_figure, save_png, style_of, suite_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

History = Sequence[Mapping[str, Any]]

LOG_SCALE_ABOVE = 8.0


def loss_curve(history: History, baselines: Sequence[Baseline] = ()) -> NamedFigure | None:
    """Returns the picture of a training, or None where fewer than two losses were logged."""
    if len(_losses(history, "train")) < 2:
        return None
    skill = " Right: one minus the validation error over the baseline's; above zero the model is better."
    return NamedFigure(
        "loss_curve",
        "Loss",
        "Training loss (thin: as logged; thick: running mean) and validation loss."
        + (skill if _skills(history, baselines) else ""),
        partial(draw_loss_curve, history, baselines),
    )


def draw_loss_curve(history: History, baselines: Sequence[Baseline], path: Path) -> Path:
    """Draws loss against step and, where validation has baselines, skill against each of them."""
    skills = _skills(history, baselines)
    with suite_style():
        figure = new_figure(10.5 if skills else 6.5, 3.5)
        panels = figure.subplots(1, 2 if skills else 1, squeeze=False)[0]
        _loss_panel(panels[0], history)
        if skills:
            _skill_panel(panels[1], skills, baselines)
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
    axes.legend(loc="upper right")


def _skill_panel(axes: Axes, skills: Mapping[str, np.ndarray], baselines: Sequence[Baseline]) -> None:
    axes.axhline(0, color=INK, linewidth=0.9)
    for name, points in skills.items():
        style = style_of(name, baselines)._asdict()
        axes.plot(*points.T, label=f"against {label_of(name)}", markersize=4, **style)
    last = np.concatenate([points[:, 1] for points in skills.values()])
    # A first validation long before any skill would flatten all that follows.
    axes.set_ylim(bottom=max(last.min(), -1.0) - 0.06)
    axes.set(xlabel="step", title="validation skill")
    axes.legend(loc="best", fontsize=9)


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
