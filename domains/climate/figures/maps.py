"""Forecast, truth and error on maps of the Earth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from domains.climate.data.variables import channel_unit, parse_channel
from domains.climate.figures.projection import (
    Canvas,
    EqualEarth,
    Orthographic,
    PlateCarree,
    Projection,
    covers_globe,
    world_map,
)
from domains.climate.figures.shown import Shown, shown
from domains.climate.forecast.example import WeatherExample, choose
from sciml.report.shading import Shading as PlainShading
from sciml.report.style import INK, MUTED, add_titles, new_figure, save_png, suite_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAP_CHANNELS = ("z500", "t850", "t2m", "msl", "u10")
GLOBE_CHANNELS = ("t850", "t2m", "z500", "msl")
COLORS_BY_UNIT = {
    "K": "inferno",
    "m2 s-2": "viridis",
    "Pa": "viridis",
    "m s-1": "PuOr_r",
    "Pa s-1": "PuOr_r",
    "s-1": "PuOr_r",
    "kg kg-1": "YlGnBu",
    "kg m-2": "YlGnBu",
    "m": "YlGnBu",
}
CENTERED_UNITS = frozenset({"m s-1", "Pa s-1", "s-1"})
CONTOURED = frozenset({"geopotential", "mean_sea_level_pressure"})
SIDE_LONGITUDE = 10.0
PARALLELS = (-60, -30, 0, 30, 60)
DPI = 130
HEADING_WIDTH = 7.2
"""Inches that initial and valid time take in a heading."""
WIDE = 2.0
"""Width over height from which maps stand one above the other."""


@dataclass(frozen=True)
class Shading(PlainShading):
    """Says how a channel's values become colors, the same for forecast and truth."""

    contour_step: float | None = None

    @classmethod
    def of_values(cls, channel: str, *maps: Float[np.ndarray, "..."]) -> Shading:
        """Returns colors that span nearly all values; centered at zero for winds."""
        unit = channel_unit(channel)
        shading = (cls.centered if unit in CENTERED_UNITS else cls.spanning)(COLORS_BY_UNIT.get(unit, "cividis"), *maps)
        contoured = parse_channel(channel).variable.name in CONTOURED
        return replace(shading, contour_step=(shading.high - shading.low) / 12) if contoured else shading


def draw_field(
    axes: Axes,
    canvas: Canvas,
    field: Float[np.ndarray, "latitude longitude"],
    shading: Shading,
    coast: Float[np.ndarray, "latitude longitude"] | None = None,
) -> Any:
    """Draws a field on a map with outline, graticule and, where a mask is given, coast lines.

    Returns:
        The image, for a colorbar.
    """
    from matplotlib.patches import Polygon

    image = canvas.image(field)
    outline = canvas.projection.outline()
    edge = Polygon(outline, closed=True, facecolor="none", edgecolor=MUTED, linewidth=0.9, zorder=5)
    edge.set_clip_on(False)
    axes.add_patch(edge)
    picture = axes.imshow(
        image, origin="lower", extent=canvas.extent, cmap=shading.cmap, vmin=shading.low, vmax=shading.high,
        interpolation="bilinear",
    )  # fmt: skip
    picture.set_clip_path(edge)
    if shading.contour_step:
        levels = np.arange(shading.low, shading.high, shading.contour_step)
        lines = axes.contour(canvas.x, canvas.y, image, levels, colors=[INK], linewidths=0.45, alpha=0.45)
        lines.set_clip_path(edge)
    if coast is not None:
        land = canvas.image(coast)
        level = (np.min(coast) + np.max(coast)) / 2  # one half of a share of land, and right for a scaled mask, too
        for color, width in (("white", 1.7), (INK, 0.8)):  # a pale rim keeps the line visible on dark colors
            coasts = axes.contour(
                canvas.x, canvas.y, land, [level], colors=[color], linewidths=width,
                alpha=0.55 if color == "white" else 0.9,
            )  # fmt: skip
            coasts.set_clip_path(edge)
    _graticule(axes, canvas.projection)
    axes.set_axis_off()
    axes.set_aspect("equal")
    (left, bottom), (right, top) = outline.min(axis=0), outline.max(axis=0)
    pad = 0.015 * (top - bottom)
    axes.set(xlim=(left - pad, right + pad), ylim=(bottom - pad, top + pad))
    return picture


def draw_forecast_maps(example: WeatherExample, lead_hours: float | None, path: Path) -> Path:
    """Draws rows: forecast, truth, error, error of persistence; columns: up to three variables."""
    lead = example.nearest_lead(lead_hours)
    names = choose(example.schema.channels, MAP_CHANNELS, 3)
    canvas = Canvas(example.schema, world_map(example.schema), height=300)
    rows = ["forecast", "truth", "forecast error", "persistence error"] if example.truth is not None else ["forecast"]
    width = 4.5
    with suite_style():
        figure = new_figure(
            max(0.35 + width * len(names), HEADING_WIDTH),
            1.2 + len(rows) * width / canvas.aspect + 0.75 * min(2, len(rows)),
        )
        axes = figure.subplots(len(rows), len(names), squeeze=False)
        for column, name in enumerate(names):
            _draw_column(figure, axes[:, column], example, canvas, name, lead)
            axes[0, column].set_title(shown(name).title, loc="center", fontsize=11, pad=7)
        for row, label in enumerate(rows):
            axes[row, 0].text(
                -0.02, 0.5, label, transform=axes[row, 0].transAxes, rotation=90, va="center", ha="right",
                fontsize=10.5, fontweight="bold",
            )  # fmt: skip
        add_titles(figure, example.valid_text(example.lead_times[lead]), example.schema.title)
        return save_png(figure, path, DPI)


def _draw_column(figure: Any, axes: Any, example: WeatherExample, canvas: Canvas, name: str, lead: int) -> None:
    index, kind, coast = example.channel(name), shown(name), example.land_sea_mask
    forecast = kind.of(example.forecast[lead, index])
    if example.truth is None:
        shading = Shading.of_values(name, forecast)
        _colorbar(figure, draw_field(axes[0], canvas, forecast, shading, coast), [axes[0]], kind.unit)
        return
    truth = kind.of(example.truth[lead, index])
    shading = Shading.of_values(name, forecast, truth)
    picture = [
        draw_field(ax, canvas, values, shading, coast) for ax, values in zip(axes[:2], (forecast, truth), strict=True)
    ]
    _colorbar(figure, picture[0], list(axes[:2]), f"{name}, {kind.unit}")
    errors = (forecast - truth, kind.of(example.initial[index]) - truth)
    shading = Shading.of_errors(*errors)
    for ax, error in zip(axes[2:], errors, strict=True):
        picture.append(draw_field(ax, canvas, error, shading, coast))
        _note(ax, f"RMSE {example.scored_part} {_rmse_text(example, kind, error)}".replace("  ", " "))
    _colorbar(figure, picture[-1], list(axes[2:]), f"error of {name}, {kind.unit}")


def _rmse_text(example: WeatherExample, kind: Shown, error: Float[np.ndarray, "latitude longitude"]) -> str:
    """Returns the RMSE of an error in the usual unit, and in that of the scores."""
    return kind.error_text(example.rmse(error) / kind.scale)


def draw_forecast_globes(example: WeatherExample, lead_hours: float | None, path: Path) -> Path:
    """Draws forecast, truth and error of one variable on the globe."""
    lead = example.nearest_lead(lead_hours)
    name = choose(example.schema.channels, GLOBE_CHANNELS, 1)[0]
    index, kind = example.channel(name), shown(name)
    forecast = kind.of(example.forecast[lead, index])
    maps = {"forecast": forecast}
    if example.truth is not None:
        truth = kind.of(example.truth[lead, index])
        maps |= {"truth": truth, "error": forecast - truth}
    canvas = Canvas(example.schema, globe_view(example), height=520)
    shading = Shading.of_values(name, *[values for label, values in maps.items() if label != "error"])
    with suite_style():
        figure, axes = map_figure(canvas, len(maps))
        pictures = []
        for ax, (label, values) in zip(axes, maps.items(), strict=True):
            colors = Shading.of_errors(values) if label == "error" else shading
            pictures.append(draw_field(ax, canvas, values, colors, example.land_sea_mask))
            ax.set_title(label, loc="center", fontsize=12)
        _colorbar(figure, pictures[0], axes[:2], f"{name}, {kind.unit}")
        if "error" in maps:
            _colorbar(figure, pictures[-1], [axes[2]], f"error of {name}, {kind.unit}")
            extent = "global RMSE" if covers_globe(example.schema) else f"RMSE {example.scored_part}".rstrip()
            after = "\n" if example.scored_part else " "
            number = _rmse_text(example, kind, maps["error"])
            axes[2].set_title(f"error{after}({extent} {number})", loc="center", fontsize=12)
        add_titles(figure, f"{kind.title}\n{example.valid_text(example.lead_times[lead])}", example.schema.title)
        return save_png(figure, path, DPI)


def map_figure(canvas: Canvas, count: int) -> tuple[Figure, list[Axes]]:
    """Returns a figure for some maps, side by side or, where they are wide, one above the other; as high as they are,
    and no narrower than its heading.
    """
    stacked = canvas.aspect > WIDE
    if stacked:
        height = count * (HEADING_WIDTH / canvas.aspect + 0.45) + 0.75 * min(2, count)
        figure = new_figure(HEADING_WIDTH, height + 1.0)
    else:
        figure = new_figure(max(4.3 * count, HEADING_WIDTH), min(4.3, 4.3 / canvas.aspect) + 1.6)
    rows, columns = (count, 1) if stacked else (1, count)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def globe_view(example: WeatherExample) -> Projection:
    """Returns the globe as seen from the northern middle latitudes; a plain map for a regional grid."""
    return Orthographic(38.0, SIDE_LONGITUDE) if covers_globe(example.schema) else world_map(example.schema)


def _graticule(axes: Axes, projection: Projection) -> None:
    """Draws parallels and meridians, and writes their degrees where they meet the edge of a flat map."""
    if isinstance(projection, PlateCarree):
        _label_region(axes, projection)
        return
    along = np.linspace(-180, 180, 361)
    parallels = [(np.full_like(along, latitude), along) for latitude in PARALLELS]
    meridians = [(along / 2 * 0.999, np.full_like(along, longitude)) for longitude in range(-150, 180, 30)]
    for latitude, longitude in parallels + meridians:
        lines = longitude * 0.99999 + getattr(projection, "longitude", 0.0) * (longitude is along)
        x, y = projection.forward(latitude, lines)
        axes.plot(x, y, color=INK, linewidth=0.35, alpha=0.22, zorder=4)
    if isinstance(projection, EqualEarth):
        for north in PARALLELS:
            x, y = projection.forward(np.array([north]), np.array([projection.longitude + 179.999]))
            clear = {60: "bottom", -60: "top"}.get(north, "center")  # of the outline, which leans there
            _label(axes, float(x[0]) + 0.05, float(y[0]), degrees(north, "N", "S"), ha="left", va=clear)
        for east in (-120, -60, 0, 60, 120):
            x, y = projection.forward(np.array([0.0]), np.array([east]))
            _label(axes, float(x[0]), float(y[0]), degrees(east, "E", "W"))


def _label_region(axes: Axes, projection: PlateCarree) -> None:
    """Draws and labels the graticule of a region at round degrees."""
    from matplotlib.ticker import MaxNLocator

    nice = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10])
    south, north, west, east = projection.south, projection.north, projection.west, projection.east
    for latitude in nice.tick_values(south, north):
        if south < latitude < north:
            x, y = projection.forward(np.array([latitude, latitude]), np.array([west, east]))
            axes.plot(x, y, color=INK, linewidth=0.35, alpha=0.3, zorder=4)
            _label(axes, x[1], y[1], f" {degrees(latitude, 'N', 'S')}", ha="left")
    for longitude in nice.tick_values(west, east):
        if west < longitude < east:
            x, y = projection.forward(np.array([south, north]), np.array([longitude, longitude]))
            axes.plot(x, y, color=INK, linewidth=0.35, alpha=0.3, zorder=4)
            _label(axes, x[1], y[1], degrees((longitude + 180) % 360 - 180, "E", "W"), va="bottom")


def degrees(angle: float, positive: str, negative: str) -> str:
    """Returns an angle as on a map: ``30°N``, ``120°W``, ``0°``."""
    side = "" if angle in (0, 180, -180) else positive if angle > 0 else negative
    return f"{abs(angle):g}\u00b0{side}"


def _label(axes: Axes, x: float, y: float, text: str, ha: str = "center", va: str = "center") -> None:
    axes.text(x, y, text, ha=ha, va=va, fontsize=7, color=MUTED, zorder=6)


def _colorbar(figure: Any, picture: Any, axes: list[Any], label: str) -> None:
    columns = len({ax.get_subplotspec().colspan.start for ax in axes})
    bar = figure.colorbar(
        picture, ax=axes, orientation="horizontal", fraction=0.05, pad=0.02, aspect=32 * columns, shrink=0.8,
        extend="both",
    )  # fmt: skip
    bar.set_label(label, fontsize=9.5)
    bar.outline.set_linewidth(0.5)
    bar.ax.tick_params(length=2.5, width=0.6)
    bar.ax.locator_params(nbins=6)


def _note(axes: Axes, text: str) -> None:
    axes.text(0.5, -0.02, text, transform=axes.transAxes, ha="center", va="top", fontsize=9, color=MUTED)
