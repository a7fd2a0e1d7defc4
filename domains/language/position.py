"""Draws how well bytes are predicted against how much of the text before them is seen."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

from domains.language.task import BASELINES
from sciml.report.legend import legend_entries
from sciml.report.style import MODEL, MODEL_COLOR, add_titles, label_of, new_figure, save_png, suite_style

BINS_PER_DOUBLING = 2


def draw_bits_by_position(example: Mapping[str, np.ndarray], source: str, path: Path) -> Path:
    """Draws bits per byte of the model along the context, in bins that widen, and a level for each baseline."""
    bits = example["bits_model"]
    levels = {each: float(example[f"bits_{each.name}"].mean()) for each in BASELINES if f"bits_{each.name}" in example}
    with suite_style():
        figure = new_figure(7.0, 3.9)
        axes = figure.subplots()
        for baseline, level in levels.items():
            label = f"{label_of(baseline.name)}, {level:.2f}"
            axes.axhline(level, color=baseline.color, linewidth=1.5, linestyle=(0, (4, 2)), zorder=1, label=label)
        edges = bin_edges(len(bits))
        seen = [np.sqrt(first * (last - 1)) for first, last in pairwise(edges)]
        means = [bits[first - 1 : last - 1].mean() for first, last in pairwise(edges)]
        label = f"{MODEL}, {bits.mean():.2f} over all"
        axes.plot(seen, means, color=MODEL_COLOR, marker="o", markeredgecolor="white", linewidth=2.4, label=label)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_ylim(0, 1.1 * max([*means, *levels.values()]))
        axes.set_xlabel("bytes seen")
        axes.set_ylabel("bits per byte (lower is better)")
        figure.legend(*legend_entries(figure), loc="outside upper left", ncols=1 + len(levels))
        add_titles(figure, source=source)
        return save_png(figure, path)


def bin_edges(context: int) -> list[int]:
    """Returns numbers of bytes seen at which bins begin, from 1 on, and the end of the last; ever wider ones."""
    edges = 2 ** (np.arange(BINS_PER_DOUBLING * int(np.ceil(np.log2(context + 1))) + 1) / BINS_PER_DOUBLING)
    return sorted({1, *(round(edge) for edge in edges if edge <= context), context + 1})
