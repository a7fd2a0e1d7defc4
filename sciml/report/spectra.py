"""Power by wavenumber: which scales a forecast keeps, loses or makes up."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from sciml.report.legend import legend_entries
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


def power_in_words(panels: Sequence[SpectrumPanel]) -> str:
    """Says in a sentence how much of the truth's power the latest forecast has on long, middle and short waves.

    Returns:
        The geometric mean over the variables of each band; nothing where the truth is not known or has no power.
    """
    ratios: dict[str, list[float]] = {}
    for panel in panels:
        truths = [spectrum for spectrum in panel.spectra if spectrum.is_truth]
        forecasts = [spectrum for spectrum in panel.spectra if not spectrum.is_truth]
        if not truths or not forecasts or len(truths[-1].power) < len(BANDS):
            continue
        for name, wanted in zip(_band_names(truths[-1].wavenumber), _bands(truths[-1].wavenumber), strict=True):
            truth, forecast = truths[-1].power[wanted].sum(), forecasts[-1].power[wanted].sum()
            if truth > 0 and forecast > 0:
                ratios.setdefault(name, []).append(float(np.log(forecast / truth)))
    if not ratios:
        return ""
    means = {name: np.exp(np.mean(logs)) for name, logs in ratios.items()}
    parts = ", ".join(f"{mean:.2g} times at wavenumbers {name}" for name, mean in means.items())
    least, most = min(means.values()), max(means.values())
    meaning = [
        "what it lacks it has smoothed away" if least < NEAR[0] else "",
        "what it has too much is noise" if most > NEAR[1] else "",
    ]
    ending = f": {', '.join(filter(None, meaning))}" if any(meaning) else ", as sharp as the truth"
    return f"The latest forecast shown has the truth's power {parts}{ending}."


BANDS = (0.25, 0.5, 1.0)
"""Ends of the bands of waves, as shares of the largest wavenumber."""
FEW_DECADES = 300
"""Largest over smallest wavenumber up to which some numbers stand between powers of ten."""
NEAR = (0.9, 1.1)
"""Shares of the truth's power that count as the truth's."""


def _bands(wavenumber: Float[np.ndarray, "wavenumber"]) -> list[np.ndarray]:
    edges = [0.0, *(share * wavenumber.max() for share in BANDS)]
    return [(wavenumber > low) & (wavenumber <= high) for low, high in itertools.pairwise(edges)]


def _band_names(wavenumber: Float[np.ndarray, "wavenumber"]) -> list[str]:
    return [f"{wavenumber[band].min():g} to {wavenumber[band].max():g}" for band in _bands(wavenumber)]


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
            _number_wavenumbers(axes)
            decorate(axes)
            axes.set_title(name)
            axes.set_xlabel(wavenumber_label)
            if unit := pretty_unit(panel.unit):
                axes.set_ylabel(f"power, ({unit})²" if " " in unit else f"power, {unit}²")
        handles, labels = legend_entries(figure)
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels) if len(labels) <= 4 else 3)
        add_titles(figure, source=source)
        return save_png(figure, path)


def _number_wavenumbers(axes: Axes) -> None:
    """Writes few plain numbers below: within a decade or two matplotlib's own run into one another."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < FEW_DECADES * low else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


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
