"""Paths of cyclones on a map, those of a forecast beside those of the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from domains.climate.figures.maps import Shading, draw_field
from domains.climate.figures.projection import Canvas, Projection, world_map
from domains.climate.figures.shown import shown
from domains.climate.forecast.example import WeatherExample
from domains.climate.forecast.tracks import ComparedTracks, Track
from sciml.report.style import INK, MODEL_COLOR, add_titles, new_figure, save_png, suite_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 130


def tracks_in_words(compared: ComparedTracks) -> str:
    """Says how many cyclones are followed, and how far apart forecast and truth end."""
    if not compared.truth:
        return f"{len(compared.forecast)} are followed through the forecast."
    words = f"{len(compared.forecast)} are followed through the forecast and {len(compared.truth)} through the truth."
    distances = compared.distances()
    if not distances:
        return f"{words} None that is there at the beginning is followed through both."
    last = max(distances)
    count = len(distances[last])
    begun = f"{words} {len(compared.pairs)} begin together; {last:g} h ahead"
    apart = f"{np.mean(distances[last]):.0f} km apart"
    return f"{begun} {count} of them are {apart} in the mean." if count > 1 else f"{begun} one of them is {apart}."


def draw_tracks(example: WeatherExample, compared: ComparedTracks, path: Path) -> Path:
    """Draws the tracks of a forecast, and of the truth where it is known, over the state that they begin from."""
    kind, projection = shown(compared.name), world_map(example.schema)
    initial = kind.of(example.initial[example.channel(compared.name)])
    with suite_style():
        figure = new_figure(9.6, 5.6)
        axes = figure.subplots()
        picture = draw_field(
            axes, Canvas(example.schema, projection), initial, Shading.of_values(compared.name, initial),
            example.land_sea_mask,
        )  # fmt: skip
        picture.set_alpha(0.35)
        handles = []
        if compared.truth:
            handles.append(_draw(axes, projection, compared.truth, color=INK, label="truth", marker="s"))
        handles.append(_draw(axes, projection, compared.forecast, color=MODEL_COLOR, label="forecast", marker="o"))
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        add_titles(figure, f"Tracks of minima, {kind.title.lower()}\n{example.valid_text(example.lead_times[-1])}")
        return save_png(figure, path, DPI)


def _draw(axes: Axes, projection: Projection, tracks: list[Track], **look: Any) -> Any:
    """Draws tracks with a dot at each time, a larger one at the end; returns what stands for them in a legend."""
    marker, line = look.pop("marker"), None
    for track in tracks:
        for latitude, longitude in _pieces(np.array(track.latitude), np.array(track.longitude), projection):
            x, y = projection.forward(latitude, longitude)
            (line,) = axes.plot(x, y, marker=marker, markersize=3, linewidth=1.6, zorder=6, **look)
        axes.plot(x[-1], y[-1], marker=marker, markersize=7, zorder=7, **look)
    if line is None:
        (line,) = axes.plot([], [], marker=marker, linewidth=1.6, **look)
    return line


def _pieces(
    latitude: Float[np.ndarray, "point"], longitude: Float[np.ndarray, "point"], projection: Projection
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cuts a track where the map is cut, so that no line runs across all of it."""
    around = (longitude - getattr(projection, "longitude", 0.0) + 180) % 360
    cuts = np.flatnonzero(np.abs(np.diff(around)) > 180) + 1
    return list(zip(np.split(latitude, cuts), np.split(longitude, cuts), strict=True))
