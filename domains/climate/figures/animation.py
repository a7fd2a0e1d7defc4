"""A forecast in motion beside the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from domains.climate.figures.maps import GLOBE_CHANNELS, Shading, draw_field, globe_view, map_figure
from domains.climate.figures.projection import Canvas
from domains.climate.figures.shown import shown
from domains.climate.forecast.example import WeatherExample, choose
from sciml.report.gif import draw_gif
from sciml.report.style import add_titles, suite_style

MAX_FRAMES = 24


def draw_forecast_animation(example: WeatherExample, path: Path) -> Path:
    """Draws a GIF from the initial state through all lead times: forecast and, where known, truth on the globe."""
    name = choose(example.schema.channels, GLOBE_CHANNELS, 1)[0]
    index = example.channel(name)
    runs = {label: shown(name).of(run[:, index]) for label, run in reversed(example.runs().items())}
    shading = Shading.of_values(name, *runs.values())
    # Contour lines would have to be drawn anew in each frame; the colors alone carry the motion.
    shading = Shading(shading.cmap, shading.low, shading.high)
    with suite_style():
        return _draw(example, name, runs, shading, path)


def _draw(
    example: WeatherExample,
    name: str,
    runs: dict[str, np.ndarray],
    shading: Shading,
    path: Path,
) -> Path:
    canvas = Canvas(example.schema, globe_view(example), height=400)
    figure, axes = map_figure(canvas, len(runs))
    pictures: list[Any] = []
    for ax, (label, run) in zip(axes, runs.items(), strict=True):
        pictures.append(draw_field(ax, canvas, run[0], shading, example.land_sea_mask))
        ax.set_title(label, loc="center", fontsize=12)
    bar = figure.colorbar(
        pictures[0], ax=axes, orientation="horizontal", fraction=0.05, pad=0.03, aspect=40, shrink=0.7,
        extend="both",
    )  # fmt: skip
    bar.set_label(f"{name}, {shown(name).unit}")
    hours = example.frame_times
    title = add_titles(figure, _title(example, name, hours[-1]), example.schema.title)

    def update(frame: int) -> None:
        for picture, run in zip(pictures, runs.values(), strict=True):
            picture.set_data(canvas.image(run[frame]))
        title.set_text(_title(example, name, hours[frame]))

    return draw_gif(figure, update, len(hours), [shading.cmap], path, most=MAX_FRAMES)


def _title(example: WeatherExample, name: str, lead_hours: float) -> str:
    return f"{shown(name).title}\n{example.valid_text(lead_hours)}"
