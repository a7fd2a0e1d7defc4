"""A forecast in motion beside the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from domains.climate.example import ForecastExample, choose, long_name
from domains.climate.maps import GLOBE_CHANNELS, Shading, draw_field, globe_view
from domains.climate.projection import Canvas
from domains.climate.variables import channel_unit
from sciml.report.style import add_titles, new_figure, pretty_unit, suite_style

MAX_FRAMES = 24
FRAME_MS = 260
PAUSE_MS = 1300
GRAYS = 24
DPI = 100


def draw_forecast_animation(example: ForecastExample, path: Path) -> Path:
    """A GIF from the initial state through all lead times: forecast and, where known, truth on the globe."""
    from PIL import Image

    name = choose(example.schema.channels, GLOBE_CHANNELS, 1)[0]
    index = example.channel(name)
    hours = np.concatenate([[0.0], example.lead_times])
    runs = {"forecast": np.concatenate([example.initial[None, index], example.forecast[:, index]])}
    if example.truth is not None:
        runs["truth"] = np.concatenate([example.initial[None, index], example.truth[:, index]])
    shown = np.unique(np.linspace(0, len(hours) - 1, min(len(hours), MAX_FRAMES)).round().astype(int))
    shading = Shading.of_values(name, *runs.values())
    # Contour lines would have to be drawn anew in each frame; the colors alone carry the motion.
    shading = Shading(shading.cmap, shading.low, shading.high)
    with suite_style():
        frames = _frames(example, name, {label: run[shown] for label, run in runs.items()}, hours[shown], shading)
    palette = _palette(shading.cmap)
    indexed = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    written = path.with_suffix(".gif")
    written.parent.mkdir(parents=True, exist_ok=True)
    durations = [PAUSE_MS, *[FRAME_MS] * (len(indexed) - 2), PAUSE_MS]
    indexed[0].save(written, save_all=True, append_images=indexed[1:], duration=durations, loop=0, optimize=False)
    return written


def _palette(cmap: str) -> Any:
    """The color map's own colors, and grays for the rest: nothing flickers between frames, nothing is banded."""
    from matplotlib import colormaps
    from PIL import Image

    colors = (colormaps[cmap](np.linspace(0, 1, 256 - GRAYS))[:, :3] * 255).round().astype(np.uint8)
    grays = np.linspace(0, 255, GRAYS).round().astype(np.uint8)[:, None].repeat(3, axis=1)
    image = Image.new("P", (1, 1))
    image.putpalette(np.concatenate([colors, grays]).tobytes())
    return image


def _frames(
    example: ForecastExample, name: str, runs: dict[str, np.ndarray], hours: np.ndarray, shading: Shading
) -> list[np.ndarray]:
    """RGB images of all times; the figure is laid out once and only its contents change."""
    canvas = Canvas(example.schema, globe_view(example), height=400)
    figure = new_figure(4.4 * len(runs), 5.8)
    figure.set_dpi(DPI)
    axes = figure.subplots(1, len(runs), squeeze=False)[0]
    pictures: list[Any] = []
    for ax, (label, run) in zip(axes, runs.items(), strict=True):
        pictures.append(draw_field(ax, canvas, run[0], shading, example.land_sea_mask))
        ax.set_title(label, loc="center", fontsize=12)
    unit = pretty_unit(channel_unit(name))
    bar = figure.colorbar(
        pictures[0], ax=list(axes), orientation="horizontal", fraction=0.05, pad=0.03, aspect=40, shrink=0.7,
        extend="both",
    )  # fmt: skip
    bar.set_label(f"{name}, {unit}")
    title = add_titles(figure, _title(example, name, hours[-1]), example.schema.title)
    figure.canvas.draw()
    figure.set_layout_engine("none")
    frames = []
    for step, lead in enumerate(hours):
        for picture, run in zip(pictures, runs.values(), strict=True):
            picture.set_data(canvas.image(run[step]))
        title.set_text(_title(example, name, lead))
        figure.canvas.draw()
        frames.append(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())  # type: ignore[attr-defined]
    return frames


def _title(example: ForecastExample, name: str, lead_hours: float) -> str:
    return f"{long_name(name)}, {example.valid_text(lead_hours)}"
