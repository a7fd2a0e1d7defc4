"""Vorticity with streamlines: where a flow turns, and which way it goes, in truth and forecast."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from domains.fluids.amr.indicator_inputs import WINDS
from domains.fluids.figures.panels import WIDE_ABOVE, FieldPanel, add_colorbar, aspect, label_axes, panel_size
from domains.fluids.forecast.example import FIELD_COLORS, FlowExample
from sciml.nn.topology import Side
from sciml.report.shading import Shading
from sciml.report.style import INK, add_titles, new_figure, pretty_unit, save_png, suite_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STREAM_DENSITY = 0.9


def has_vorticity(example: FlowExample) -> bool:
    """Says whether both winds are among the variables."""
    return set(WINDS.values()) <= set(example.data_set.variables)


def vorticity(example: FlowExample, states: Float[np.ndarray, "*lead variable z x"]) -> Float[np.ndarray, "*lead z x"]:
    """Returns dw/dx - du/dz by central differences, one-sided at ends that do not meet; zero in obstacles."""
    uwnd, wwnd = (example.values(states, WINDS[axis]).astype(np.float64) for axis in ("x", "z"))
    data_set = example.data_set
    turning = _slope(wwnd, data_set.dx, -1, data_set.boundary.x[0]) - _slope(
        uwnd, data_set.dz, -2, data_set.boundary.z[0]
    )
    return turning if example.fluid is None else np.where(example.fluid, turning, 0.0)


def draw_vorticity(example: FlowExample, lead_hours: float | None, path: Path) -> Path:
    """Draws the vorticity of truth and forecast at one lead time in the same colors, with streamlines."""
    lead = example.nearest_lead(lead_hours)
    runs = {"truth": example.truth, "forecast": example.forecast}
    states = {label: run[lead] for label, run in runs.items() if run is not None}
    with np.errstate(invalid="ignore", over="ignore"):  # a forecast may have blown up
        fields = {label: vorticity(example, state) for label, state in states.items()}
    stacked = aspect(example.data_set) > WIDE_ABOVE
    size = panel_size(aspect(example.data_set), 8.0 if stacked else 4.6)
    count = len(fields)
    shading = Shading.centered(FIELD_COLORS, next(iter(fields.values())))
    with suite_style():
        if stacked:
            figure = new_figure(size[0] + 1.6, (size[1] + 0.4) * count + 0.9)
        else:
            figure = new_figure(max(size[0] * count + 1.4, 6.0), size[1] + 1.2)
        grid = figure.subplots(count if stacked else 1, 1 if stacked else count, squeeze=False)
        figure.set_layout_engine("compressed", wspace=0.03)
        for axes, (label, field) in zip(grid.flat, fields.items(), strict=True):
            panel = FieldPanel(axes, example, shading, size[0])
            panel.show(field, 0)
            _draw_streamlines(axes, example, states[label], panel)
            axes.set_title(label, loc="center", fontsize=10)
        unit = pretty_unit(f"{example.data_set.units[1]}-1") if example.data_set.units[1] else ""
        together = (size[0] * (1 if stacked else count), size[1] * (count if stacked else 1))
        label = f"vorticity, {unit}" if unit else "vorticity"
        add_colorbar(figure, panel, list(grid.flat), label, together, upright=True)
        label_axes(grid, example.data_set)
        ahead = example.data_set.time_text(example.lead_times[lead])
        add_titles(figure, f"Vorticity and streamlines, {ahead} ahead", example.title)
        return save_png(figure, path)


def _draw_streamlines(
    axes: Axes, example: FlowExample, state: Float[np.ndarray, "variable z x"], panel: FieldPanel
) -> None:
    uwnd, wwnd = (example.values(state, WINDS[axis]).astype(np.float64) for axis in ("x", "z"))
    if not (np.isfinite(uwnd).all() and np.isfinite(wwnd).all() and np.hypot(uwnd, wwnd).any()):
        return
    if example.fluid is not None:
        uwnd, wwnd = (np.ma.masked_array(wind, ~example.fluid) for wind in (uwnd, wwnd))
    rows, columns = uwnd.shape
    x, z = (
        corner + (np.arange(count) + 0.5) * cell
        for corner, count, cell in zip(panel.corner, (columns, rows), panel.cell, strict=True)
    )
    limits = axes.get_xlim(), axes.get_ylim()
    axes.streamplot(x, z, uwnd, wwnd, color=INK, linewidth=0.5, density=STREAM_DENSITY, arrowsize=0.6)
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])


def _slope(field: Float[np.ndarray, "... z x"], spacing: float, axis: int, side: Side) -> Float[np.ndarray, "... z x"]:
    if side is Side.PERIODIC:
        return (np.roll(field, -1, axis) - np.roll(field, 1, axis)) / (2 * spacing)
    return np.gradient(field, spacing, axis=axis)
