"""A forecast of a flow in motion: truth, forecast, and the error under the model's mesh, of each variable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from domains.fluids.figures.mesh_lines import MeshLines
from domains.fluids.figures.panels import FieldPanel, VariablePanels, add_colorbar, label_axes
from domains.fluids.forecast.example import FlowExample
from sciml.report.gif import draw_gif
from sciml.report.shading import Shading
from sciml.report.style import add_titles, suite_style

if TYPE_CHECKING:
    from matplotlib.artist import Artist

WIDEST, WIDEST_ALONE = 2.6, 3.7
"""Inches of a panel, and of one of a single variable."""


def draw_animation(example: FlowExample, mesh: MeshLines | None, path: Path) -> Path:
    """Draws a GIF from the initial state through all lead times, of up to four variables."""
    times, time_text = example.frame_times, example.data_set.time_text
    widest = WIDEST_ALONE if len(example.variables(2)) == 1 else WIDEST
    with suite_style():
        layout = VariablePanels.of(example, len(example.runs()) + ("truth" in example.runs()), widest)
        shown = [_Moving(layout, name, example, mesh) for name in layout.panels]
        label_axes(layout.grid, example.data_set)
        title = add_titles(layout.figure, f"{layout.what}, {time_text(times[-1])}", example.title)

        def update(frame: int) -> list[Artist]:
            title.set_text(f"{layout.what}, {time_text(times[frame])}")
            return [title, *(artist for variable in shown for artist in variable.show(frame))]

        cmaps = list(dict.fromkeys(cmap for variable in shown for cmap in variable.cmaps))
        return draw_gif(layout.figure, update, len(times), cmaps, path)


class _Moving:
    """Shows one variable: what is forecast, and where the truth is known also this and the error.

    Args:
        layout: with the axes of its panels.
        mesh: drawn over the error, or over the forecast where there is none.
    """

    def __init__(self, layout: VariablePanels, name: str, example: FlowExample, mesh: MeshLines | None) -> None:
        quantity, size = example.quantity(name), layout.size
        fields = {label: example.values(run, name) for label, run in example.runs().items()}
        # a forecast that has run away must not wash out the truth
        shading = quantity.shading(fields.get("truth", fields["forecast"]))
        if "truth" in fields:
            fields["error"] = fields["forecast"] - fields["truth"]
        self.fields, self.panels = fields, {}
        for axes, label in zip(layout.panels[name], fields, strict=True):
            colors = Shading.of_errors(fields["error"]) if label == "error" else shading
            over = mesh if label == "error" or "error" not in fields else None
            self.panels[label] = FieldPanel(axes, example, colors, size[0], over)
            axes.set_title(f"{name}, {label}", loc="center", fontsize=10)
        row, count, upright = list(layout.panels[name]), len(example.runs()), layout.upright
        together = (size[0] * (count if upright else 1), size[1] * (1 if upright else count))
        bar = self.panels["forecast"]
        add_colorbar(layout.figure, bar, row[:count], quantity.label(name), together, upright=upright)
        if "error" in fields:
            panel = self.panels["error"]
            add_colorbar(layout.figure, panel, row[-1:], quantity.label("error"), size, upright=upright)

    @property
    def cmaps(self) -> list[str]:
        return [panel.image.get_cmap().name for panel in self.panels.values()]

    def show(self, frame: int) -> list[Artist]:
        """Shows the fields of a frame; returns what that changes."""
        for label, panel in self.panels.items():
            panel.show(self.fields[label][frame], frame)
        return [artist for panel in self.panels.values() for artist in panel.changing]
