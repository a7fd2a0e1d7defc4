"""Pictures of an alloy against temperature: short-range order by pair, energy and heat capacity."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sciml.domain.protocol import NamedFigure
from sciml.report.style import (
    AMBER,
    BLUE,
    GREEN,
    INK,
    MUTED,
    OLIVE,
    PLUM,
    RED,
    RUST,
    SKY,
    VIOLET,
    add_titles,
    new_figure,
    save_png,
    suite_style,
)

if TYPE_CHECKING:
    from domains.materials.thermodynamics.thermodynamics import Results

HUES = (BLUE, RUST, GREEN, PLUM, AMBER, VIOLET, SKY, RED, OLIVE, INK)
MOST_PAIRS = 10


def thermodynamics_figures(results: Results, data: str) -> Iterator[NamedFigure]:
    """Yields the figures of a sampling.

    Args:
        data: what the model was trained on.
    """
    yield NamedFigure(
        "short_range_order",
        f"Short-range order of {results.formula}",
        "Warren-Cowley parameters: negative where two elements like to be neighbors. Bars are standard errors.",
        partial(draw_order, results, data),
    )
    if len(results.temperatures) > 1:
        yield NamedFigure(
            "heat_capacity",
            f"Energy and heat capacity of {results.formula}",
            "Of the arrangement of atoms alone, without vibrations. Bars are standard errors.",
            partial(draw_heat, results, data),
        )


def draw_order(results: Results, data: str, path: Path) -> Path:
    """Draws a panel for each shell; the pairs that are ordered most."""
    strength = np.abs(results.order.mean).max((0, 1))
    shown = sorted(np.argsort(-strength)[:MOST_PAIRS].tolist())
    num_shells = results.order.mean.shape[1]
    with suite_style():
        figure = new_figure(4.6 * num_shells, 3.9)
        add_titles(figure, source=data)
        panels = figure.subplots(1, num_shells, sharey=True, squeeze=False)[0]
        for shell, axes in enumerate(panels):
            for color, place in zip(HUES, shown, strict=False):
                values, errors = results.order.mean[:, shell, place], results.order.error[:, shell, place]
                axes.errorbar(
                    results.temperatures, values, errors, color=color, marker="o", ms=3.5, lw=1.5, capsize=2.5,
                    label=results.pairs[place],
                )  # fmt: skip
            axes.axhline(0, color=MUTED, lw=0.8)
            axes.set_title(("nearest", "second", "third")[shell] + " neighbors")
            axes.set_xlabel("temperature, K")
        panels[0].set_ylabel("Warren-Cowley parameter")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
        return save_png(figure, path)


def draw_heat(results: Results, data: str, path: Path) -> Path:
    """Draws energy and heat capacity side by side."""
    with suite_style():
        figure = new_figure(8.6, 3.6)
        add_titles(figure, source=data)
        left, right = figure.subplots(1, 2)
        curves = (
            (left, results.energy, 1e3, "energy above the lowest, meV/atom"),
            (right, results.heat_capacity, 1.0, "heat capacity, k/atom"),
        )
        for axes, estimate, scale, label in curves:
            base = estimate.mean.min() if axes is left else 0.0
            axes.errorbar(
                results.temperatures, scale * (estimate.mean - base), scale * estimate.error, color=BLUE, marker="o",
                ms=4, capsize=3,
            )  # fmt: skip
            axes.set(xlabel="temperature, K", ylabel=label)
        if results.ordering is not None:
            right.axvline(results.ordering[0], color=RUST, lw=1.2, ls="--", label=f"{results.ordering[0]:.0f} K")
            right.legend()
        return save_png(figure, path)
