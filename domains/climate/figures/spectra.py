"""Draws the mean power at each zonal wavenumber, where blurred forecasts lack some."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from domains.climate.data.variables import channel_unit
from domains.climate.figures.curves import curves_of
from domains.climate.forecast.example import SHOWN_CHANNELS, choose
from domains.climate.forecast.power import POWER
from sciml.report.scores import Scores
from sciml.report.spectra import Spectrum, SpectrumPanel, draw_spectra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_VARIABLES = 3


def draw_zonal_spectra(panels: Mapping[str, SpectrumPanel], source: str, path: Path) -> Path:
    """Draws power by zonal wavenumber in the middle latitudes: forecasts against truth."""
    return draw_spectra(panels, "zonal wavenumber", source, path, decorate=_powers_of_two)


def zonal_panels(scores: Scores) -> dict[str, SpectrumPanel]:
    """Returns the mean spectra of up to three variables by name: forecasts up to the lead time of headlines, and the
    truth there; none where the scores have no spectra.
    """
    curves = curves_of(scores, POWER)
    panels = {}
    for name in choose(tuple(curves), SHOWN_CHANNELS, MOST_VARIABLES):
        leads = sorted(lead for lead in curves[name] if lead <= (scores.main_lead_time or np.inf))
        if not leads:
            continue
        shown = [leads[number] for number in sorted({0, (len(leads) - 1) // 2, len(leads) - 1})]
        spectra = []
        for lead, age in zip(shown, np.linspace(0, 1, len(shown)), strict=True):
            curve = curves[name][lead]
            spectra.append(Spectrum(f"forecast, {lead:g} h", curve["wavenumber"], curve["forecast"], age))
        last = curves[name][shown[-1]]
        truth = Spectrum(f"truth, {shown[-1]:g} h", last["wavenumber"], last["truth"], 1.0, is_truth=True)
        panels[name] = SpectrumPanel([*spectra, truth], channel_unit(name))
    return panels


def _powers_of_two(axes: Axes) -> None:
    ticks = [2**n for n in range(10) if 2**n <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
