"""Power by wavenumber: which scales a forecast keeps, loses or makes up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from sciml.report.skill import legend_entries
from sciml.report.style import add_titles, new_figure, pretty_unit, save_png, suite_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS, SHADES = "viridis_r", (0.2, 1.0)
SMALLEST_SHARE = 1e-8
"""The smallest share of the largest power that is shown: anything below is rounding."""


class Spectrum(NamedTuple):
    """Holds the power by wavenumber of one field, without the mean.

    Attributes:
        age: lead time as a share of the last one that is shown, 0 to 1; later ones are darker.
        is_truth: drawn as a thin dashed line.
    """

    label: str
    wavenumber: Float[np.ndarray, "wavenumber"]
    power: Float[np.ndarray, "wavenumber"]
    age: float
    is_truth: bool = False


class SpectrumPanel(NamedTuple):
    """Holds the spectra of one variable, and its unit."""

    spectra: Sequence[Spectrum]
    unit: str


def draw_spectra(
    panels: Mapping[str, SpectrumPanel],
    wavenumber_label: str,
    source: str,
    path: Path,
    *,
    decorate: Callable[[Axes], None] = lambda axes: None,
) -> Path:
    """Draws a panel for each variable: forecasts, darker the later, and truths as dashed lines.

    Args:
        panels: by name of the variable.
        source: what the data are.
        decorate: adds ticks and marks to a panel that is drawn.
    """
    with suite_style():
        figure = new_figure(max(3.6 * len(panels) + 0.4, 6.4), 4.2)
        for axes, (name, panel) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            _draw_lines(axes, panel.spectra)
            decorate(axes)
            axes.set_title(name)
            axes.set_xlabel(wavenumber_label)
            if unit := pretty_unit(panel.unit):
                axes.set_ylabel(f"power, ({unit})²" if " " in unit else f"power, {unit}²")
        handles, labels = legend_entries(figure)
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels) if len(labels) <= 4 else 3)
        add_titles(figure, source=source)
        return save_png(figure, path)


def _draw_lines(axes: Axes, spectra: Sequence[Spectrum]) -> None:
    from matplotlib import colormaps

    highest = []
    for label, wavenumber, power, age, is_truth in spectra:
        # What does not vary, as air at rest, has no place on a logarithmic scale.
        if not np.isfinite(power).all() or not power.any():
            continue
        color = colormaps[COLORS](np.interp(age, (0, 1), SHADES))
        width, dashes = (1.2, "--") if is_truth else (2.0, "-")
        axes.loglog(wavenumber, power, color=color, linewidth=width, linestyle=dashes, label=label)
        highest.append(power.max())
    if highest:
        axes.set_ylim(bottom=max(axes.get_ylim()[0], min(highest) * SMALLEST_SHARE))
