"""Fields of a flow in their true proportions, as far as a page allows, with the model's mesh over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from domains.fluids.data.schema import DataSet
from domains.fluids.figures.mesh_lines import MeshLines
from domains.fluids.forecast.example import FlowExample
from sciml.report.scores import format_value
from sciml.report.shading import Shading
from sciml.report.style import INK, MUTED, add_titles, new_figure, save_png, suite_style

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OBSTACLE_COLOR = "#aab2ba"
MOST_VARIABLES = 4
WIDE_ABOVE = 2.6
"""Width over height from which panels are put one below the other."""
TALLEST, FLATTEST = 1 / 8, 16.0
"""Least and largest width over height that are drawn; what is narrower or flatter is stretched to them."""
LINE_POINTS = 0.6
LINE_SHARE = 0.1
"""Largest width of lines over that of their patches: many small patches would hide what they lie on."""
NARROW = 1.9
"""Inches below which titles are short."""
BAR_INCHES = 0.1
BAR_SHARE = 0.92
DPI = 150


class FieldPanel:
    """Shows a field that can be changed, for animations. z goes up from the bottom; obstacles are gray.

    Args:
        mesh: drawn over the field; None draws none.
        width: of the panel, in inches.
    """

    def __init__(
        self, axes: Axes, example: FlowExample, shading: Shading, width: float, mesh: MeshLines | None = None
    ) -> None:
        from matplotlib.collections import LineCollection

        self.example, self.mesh = example, mesh
        self.lines: list[Any] = []
        rows, columns = example.data_set.shape
        self.cell = np.array([example.data_set.dx, example.data_set.dz]) / length_unit(example.data_set)[1]
        low = np.array(example.data_set.lowest[::-1]) / length_unit(example.data_set)[1] - self.cell / 2
        (left, bottom), (right, top) = low, low + self.cell * (columns, rows)
        self.corner = low
        self.image = axes.imshow(
            np.zeros((rows, columns)), origin="lower", extent=(left, right, bottom, top), cmap=shading.cmap,
            vmin=shading.low, vmax=shading.high, interpolation="nearest" if example.fluid is not None else "bilinear",
            aspect=_true_aspect(example.data_set) / aspect(example.data_set),
        )  # fmt: skip
        axes.set_facecolor(OBSTACLE_COLOR)
        axes.grid(visible=False)
        axes.spines[:].set(visible=True, color=MUTED, linewidth=0.6)
        axes.locator_params("x", nbins=min(5, int(2 * width) + 1))
        axes.locator_params("y", nbins=min(5, max(1, int(8 * width / aspect(example.data_set)))))
        axes.tick_params(length=2.5, width=0.6)
        for level, size in enumerate(mesh.patch_sizes if mesh is not None else ()):
            points = min(LINE_POINTS * 0.75**level, LINE_SHARE * 72 * width * size / columns)
            collection = LineCollection([], linewidths=points, colors=INK, alpha=0.5, capstyle="butt")
            self.lines.append(axes.add_collection(collection, autolim=False))

    def show(self, field: Float[np.ndarray, "z x"], frame: int) -> None:
        """Draws a field and the mesh of its frame, see :meth:`MeshLines.levels`."""
        hidden = ~np.isfinite(field)
        if self.example.fluid is not None:
            hidden |= ~self.example.fluid
        self.image.set_data(np.ma.masked_array(field, hidden))
        if self.mesh is not None:
            for lines, ends in zip(self.lines, self.mesh.levels(frame), strict=False):
                lines.set_segments(self.corner + ends * self.cell)

    @property
    def changing(self) -> list[Artist]:
        """Returns what a field changes, and the frame that lies over it."""
        return [self.image, *self.lines, *self.image.axes.spines.values()]


def length_unit(data_set: DataSet) -> tuple[str, float]:
    """Returns the unit of lengths and how many m it has: km, and m in domains of less than one km; else what the data
    say, which may be nothing.
    """
    if data_set.units[0] != "m":
        return data_set.units[0], 1.0
    rows, columns = data_set.shape
    return ("km", 1000.0) if max(columns * data_set.dx, rows * data_set.dz) >= 1000 else ("m", 1.0)


def aspect(data_set: DataSet) -> float:
    """Returns the width over height in pictures: the domain's own, unless nothing could be seen so."""
    return min(max(_true_aspect(data_set), TALLEST), FLATTEST)


def _true_aspect(data_set: DataSet) -> float:
    rows, columns = data_set.shape
    return columns * data_set.dx / (rows * data_set.dz)


def panel_size(ratio: float, widest: float) -> tuple[float, float]:
    """Returns inches of a panel of an aspect; none is higher than twice what the widest is wide."""
    width = widest * min(1.0, 2 * ratio)
    return width, width / ratio


def label_axes(grid: np.ndarray, data_set: DataSet) -> None:
    """Names x below and z to the left of a grid of panels that show the same domain."""
    unit, _ = length_unit(data_set)
    for axes in grid[-1]:
        axes.set_xlabel(f"x, {unit}" if unit else "x", fontsize=9)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"z, {unit}" if unit else "z", fontsize=9)
    for axes in grid.flat:
        axes.label_outer()


def add_colorbar(
    figure: Figure, panel: FieldPanel, axes: list[Axes], label: str, size: tuple[float, float], *, upright: bool
) -> None:
    """Draws a bar to the right of some panels, or below them, whose colors it explains.

    Args:
        size: inches along x and z of all these panels together.
    """
    width, length = size if upright else size[::-1]
    bar = figure.colorbar(
        panel.image, ax=axes, location="right" if upright else "bottom", fraction=BAR_INCHES / width, pad=0.1 / width,
        shrink=BAR_SHARE, aspect=BAR_SHARE * length / BAR_INCHES, extend="both", extendfrac=0.04,
    )  # fmt: skip
    bar.set_label(label, fontsize=9)
    bar.outline.set_linewidth(0.5)
    bar.ax.tick_params(length=2.5, width=0.6, labelsize=8)
    bar.ax.locator_params(nbins=5)


@dataclass(frozen=True)
class VariablePanels:
    """Holds a figure with some panels of each of up to four variables.

    Variables are rows; those of a wide and flat domain are columns.

    Attributes:
        grid: axes of all panels.
        panels: axes of each variable.
        size: of a panel, in inches.
        upright: whether the panels of a variable stand in a row, with bars of colors to their right.
        what: "One forecast", or the variable that it is of.
    """

    figure: Figure
    grid: np.ndarray
    panels: Mapping[str, np.ndarray]
    size: tuple[float, float]
    upright: bool
    what: str

    @classmethod
    def of(cls, example: FlowExample, count: int, widest: float = 2.75) -> VariablePanels:
        """Lays out so many panels of each variable.

        Args:
            widest: inches of a panel in a row.
        """
        names = example.variables(MOST_VARIABLES)
        flat = aspect(example.data_set) > WIDE_ABOVE
        size = panel_size(aspect(example.data_set), min(11.0 / len(names), 8.0) if flat else widest)
        if flat:
            figure = new_figure(size[0] * len(names) + 0.8, (size[1] + 0.4) * count + 0.6 * min(count, 2) + 0.8)
            grid = figure.subplots(count, len(names), squeeze=False)
        else:
            figure = new_figure(
                max(size[0] * count + 0.9 * min(count, 3) - 0.4, 5.0), (size[1] + 0.35) * len(names) + 0.7
            )
            grid = figure.subplots(len(names), count, squeeze=False)
        figure.set_layout_engine("compressed", wspace=0.03)
        panels = {name: grid[:, number] if flat else grid[number] for number, name in enumerate(names)}
        what = "One forecast" if len(names) > 1 else example.long_name(names[0]).capitalize()
        return cls(figure, grid, panels, size, not flat, what)


def error_title(example: FlowExample, field: np.ndarray, truth: np.ndarray) -> str:
    """Returns ``error, VRMSE 0.43``; ``error`` where the truth does not vary."""
    if not np.isfinite(field).all():
        return "error, not finite"
    value = example.vrmse(field, truth)
    return f"error, VRMSE {format_value(value)}" if np.isfinite(value) else "error"


def draw_forecast(example: FlowExample, mesh: MeshLines | None, lead_hours: float | None, path: Path) -> Path:
    """Draws initial state, truth, forecast and error of up to four variables at one lead time."""
    lead = example.nearest_lead(lead_hours)
    with suite_style():
        layout = VariablePanels.of(example, 2 if example.truth is None else 4)
        for name, panels in layout.panels.items():
            _draw_variable(layout.figure, panels, example, mesh, name, lead, layout.size, upright=layout.upright)
        label_axes(layout.grid, example.data_set)
        lead_time = example.data_set.time_text(example.lead_times[lead])
        add_titles(layout.figure, f"{layout.what}, {lead_time} ahead", example.title)
        return save_png(layout.figure, path, DPI)


def _draw_variable(
    figure: Figure,
    row: np.ndarray,
    example: FlowExample,
    mesh: MeshLines | None,
    name: str,
    lead: int,
    size: tuple[float, float],
    *,
    upright: bool,
) -> None:
    quantity = example.quantity(name)
    forecast = example.values(example.forecast[lead], name)
    fields = {"initial": example.values(example.initial, name)}
    if example.truth is not None:
        fields["truth"] = example.values(example.truth[lead], name)
    # A forecast that has run away must not wash out the truth.
    shading = quantity.shading(*(fields.values() if example.truth is not None else [*fields.values(), forecast]))
    fields["forecast"] = forecast
    panels = []
    for axes, (label, field) in zip(row, fields.items(), strict=False):
        panels.append(FieldPanel(axes, example, shading, size[0], mesh if label == "forecast" else None))
        panels[-1].show(field, lead + 1 if label == "forecast" else 0)
        axes.set_title(f"{name}, {label}" if size[0] > NARROW else label, loc="center", fontsize=10)
    together = (size[0] * (len(fields) if upright else 1), size[1] * (1 if upright else len(fields)))
    add_colorbar(figure, panels[0], list(row[: len(fields)]), quantity.label(name), together, upright=upright)
    if example.truth is not None:
        error = forecast - fields["truth"]
        panel = FieldPanel(row[-1], example, Shading.of_errors(error), size[0], mesh)
        panel.show(error, lead + 1)
        title = error_title(example, forecast, fields["truth"])
        row[-1].set_title(title if size[0] > NARROW else title.replace(", ", "\n"), loc="center", fontsize=10)
        add_colorbar(figure, panel, [row[-1]], quantity.label("error"), size, upright=upright)
