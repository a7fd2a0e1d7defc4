"""Draws where the truth lies among the members of an ensemble."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from domains.climate.figures.curves import curves_of
from domains.climate.forecast.example import SHOWN_CHANNELS, choose
from domains.climate.forecast.ranks import RANKS
from sciml.report.scores import Scores
from sciml.report.style import INK, add_titles, new_figure, save_png, suite_style

MOST_VARIABLES = 4
COLORS, SHADES = "viridis_r", (0.2, 1.0)


def draw_rank_histograms(scores: Scores, source: str, path: Path) -> Path:
    """Draws the shares of ranks of up to four variables, a line for each of up to three lead times."""
    from matplotlib import colormaps

    curves = curves_of(scores, RANKS)
    names = choose(tuple(curves), SHOWN_CHANNELS, MOST_VARIABLES)
    with suite_style():
        figure = new_figure(max(3.0 * len(names) + 0.4, 6.4), 3.6)
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False, sharey=True)[0], names, strict=True):
            leads = sorted(curves[name])
            shown = [leads[number] for number in sorted({0, (len(leads) - 1) // 2, len(leads) - 1})]
            for lead, shade in zip(shown, np.linspace(*SHADES, len(shown)), strict=True):
                ranks, shares = curves[name][lead]["rank"], curves[name][lead]["share"]
                color = colormaps[COLORS](shade)
                axes.plot(ranks, shares, color=color, marker="o", markersize=4, label=f"{lead:g} h")
            axes.axhline(1 / len(ranks), linestyle="--", linewidth=1.2, color=INK, label="calibrated")
            axes.set_title(name)
            axes.set_xlabel("members below the truth")
        figure.axes[0].set_ylabel("share of area")
        figure.axes[0].set_ylim(bottom=0)  # of all panels, whose points are all there now
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
        add_titles(figure, source=source)
        return save_png(figure, path)
