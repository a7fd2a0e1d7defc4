"""How good forecasts are: beside the baselines, against lead time, and by scale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from domains.climate.data.variables import channel_unit
from domains.climate.figures.spectra import zonal_power_spectrum
from domains.climate.forecast.baselines import CLIMATOLOGY, PERSISTENCE
from domains.climate.forecast.example import ForecastExample, choose
from domains.climate.forecast.metrics import ACC, RMSE
from sciml.report.scores import Scores
from sciml.report.skill import bars_beside_baselines, draw_scores_by_lead_time, legend_entries
from sciml.report.style import (
    INK,
    MODEL_COLOR,
    add_titles,
    label_of,
    new_figure,
    pretty_unit,
    save_png,
    style_of,
    suite_style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SKILL_CHANNELS = ("z500", "t850", "t2m", "u10", "msl")
REFERENCES = (CLIMATOLOGY.name, PERSISTENCE.name)
MIDDLE_LATITUDES = ((30.0, 60.0), (-60.0, -30.0))


def draw_skill_beside_baselines(scores: Scores, lead_hours: float | None, source: str, path: Path) -> Path:
    """Draw a bar of the model's RMSE per variable in units of climatology's, and a mark for each baseline."""
    lines = scores.lines(RMSE, lead_hours)
    reference = next(name for name in (*REFERENCES, *scores.predictors) if all(name in li.values for li in lines))
    with suite_style():
        figure = new_figure(8.2, 1.75 + 0.36 * len(lines))
        axes = figure.add_subplot()
        ratios = {
            line.variable: {name: v / line.values[reference] for name, v in line.values.items()} for line in lines
        }
        bars_beside_baselines(axes, ratios, scores.baselines)
        color = style_of(reference, scores.baselines).color
        axes.axvline(1.0, color=color, linewidth=1.3, linestyle=(0, (4, 2)), zorder=1)
        axes.set_xlabel(f"RMSE, in units of {label_of(reference)}'s (left is better)")
        when = "" if lead_hours is None else f" {lead_hours:g} h ahead"
        axes.set_title(f"Error{when} beside the baselines", pad=28)
        axes.legend(
            *legend_entries(figure), loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=6, columnspacing=1.3,
            handletextpad=0.5,
        )  # fmt: skip
        add_titles(figure, source=source)
        return save_png(figure, path)


def draw_skill_by_lead_time(scores: Scores, source: str, path: Path) -> Path:
    """Draw RMSE above, ACC below, against lead time, for up to four variables."""
    units = {name: pretty_unit(channel_unit(name)) for name in choose(tuple(scores.variables), SKILL_CHANNELS, 4)}
    return draw_scores_by_lead_time(
        scores,
        {name: f"{name}, {unit}" if unit else name for name, unit in units.items()},
        [metric for metric in (RMSE, ACC) if len(scores.lead_times(metric)) > 1],
        source,
        path,
        hidden={(ACC, CLIMATOLOGY)},  # its anomaly is zero: the correlation says nothing
    )


def draw_spectra(example: ForecastExample, lead_hours: float | None, path: Path) -> Path:
    """Power by zonal wavenumber in the middle latitudes: forecasts against truth, up to three variables."""
    names = choose(example.schema.channels, SKILL_CHANNELS, 3)
    last = example.nearest_lead(lead_hours)
    leads = sorted({0, last // 2, last})
    with suite_style():
        figure = new_figure(3.9 * len(names) + 0.3, 4.1)
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            index = example.channel(name)
            fields: dict[str, Float[np.ndarray, "latitude longitude"]] = {
                f"forecast, {example.lead_times[lead]:g} h": example.forecast[lead, index] for lead in leads
            }
            reference = example.initial if example.truth is None else example.truth[last]
            fields["analysis" if example.truth is None else "truth"] = reference[index]
            _spectrum_panel(axes, example, fields)
            unit = pretty_unit(channel_unit(name))
            axes.set_title(name)
            axes.set_ylabel(f"power, ({unit})²" if " " in unit else f"power, {unit}²")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
        add_titles(figure, source=example.schema.title)
        return save_png(figure, path)


def _spectrum_panel(axes: Axes, example: ForecastExample, fields: Mapping[str, np.ndarray]) -> None:
    for position, (label, field) in enumerate(fields.items()):
        power = np.mean(
            [zonal_power_spectrum(field, example.schema.latitude, band) for band in MIDDLE_LATITUDES], axis=0
        )
        wavenumber = np.arange(1, len(power))
        reference = position == len(fields) - 1
        shade = 0.35 + 0.65 * (position + 1) / max(1, len(fields) - 1)
        axes.loglog(
            wavenumber, power[1:], label=label, color=INK if reference else MODEL_COLOR,
            alpha=1.0 if reference else min(shade, 1.0), linewidth=1.5 if reference else 2.0,
            linestyle=(0, (4, 1.5)) if reference else "-",
        )  # fmt: skip
    axes.set_xlabel("zonal wavenumber")
    ticks = [tick for tick in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if tick < len(power)]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
