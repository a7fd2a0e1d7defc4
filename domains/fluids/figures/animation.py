"""A forecast of a flow in motion: truth, forecast, and the error under the model's mesh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from domains.fluids.amr.indicator_inputs import WINDS
from domains.fluids.figures.mesh_lines import MeshLines
from domains.fluids.figures.panels import WIDE_ABOVE, FieldPanel, add_colorbar, aspect, label_axes, panel_size
from domains.fluids.forecast.example import FlowExample, Quantity
from sciml.report.gif import draw_gif
from sciml.report.shading import Shading
from sciml.report.style import add_titles, new_figure, suite_style

SPEED = "speed"


def draw_animation(example: FlowExample, mesh: MeshLines | None, path: Path) -> Path:
    """Draws a GIF from the initial state through all lead times, of one variable."""
    times = example.frame_times
    quantity, runs = moving(example)
    shading = quantity.shading(runs.get("truth", runs["forecast"]))
    fields = dict(runs)
    if "truth" in runs:
        fields["error"] = runs["forecast"] - runs["truth"]
    stacked = aspect(example.data_set) > WIDE_ABOVE
    count = len(fields)
    size = panel_size(aspect(example.data_set), 8.0 if stacked else 3.7 if count > 1 else 6.0)
    with suite_style():
        if stacked:
            figure = new_figure(size[0] + 1.6, (size[1] + 0.4) * count + 0.9)
        else:
            figure = new_figure(max(size[0] * count + 0.9 * min(count, 2) + 0.5, 6.0), size[1] + 1.3)
        grid = figure.subplots(count if stacked else 1, 1 if stacked else count, squeeze=False)
        figure.set_layout_engine("compressed", wspace=0.03)
        panels: dict[str, FieldPanel] = {}
        for axes, label in zip(grid.flat, fields, strict=True):
            colors = Shading.of_errors(fields["error"]) if label == "error" else shading
            over = mesh if label == "error" or "error" not in fields else None
            panels[label] = FieldPanel(axes, example, colors, size[0], over)
            axes.set_title(label, loc="center", fontsize=11)
        shared = [axes for axes, label in zip(grid.flat, fields, strict=True) if label != "error"]
        together = (size[0] * (1 if stacked else len(shared)), size[1] * (len(shared) if stacked else 1))
        add_colorbar(figure, panels["forecast"], shared, quantity.label(quantity.name), together, upright=True)
        if "error" in fields:
            add_colorbar(figure, panels["error"], [grid.flat[-1]], quantity.label("error"), size, upright=True)
        label_axes(grid, example.data_set)
        name = example.long_name(quantity.name).capitalize()
        title = add_titles(figure, f"{name}, {example.data_set.time_text(times[-1])}", example.title)

        def update(frame: int) -> None:
            for label, panel in panels.items():
                panel.show(fields[label][frame], frame)
            title.set_text(f"{name}, {example.data_set.time_text(times[frame])}")

        cmaps = list(dict.fromkeys(panel.image.get_cmap().name for panel in panels.values()))
        return draw_gif(figure, update, len(times), cmaps, path)


def moving(example: FlowExample) -> tuple[Quantity, dict[str, Any]]:
    """Returns what moves and its fields (frame, z, x): potential temperature, else speed, else the first variable."""
    names = example.data_set.variables
    runs = example.runs()
    if "theta" not in names and set(WINDS.values()) <= set(names):
        both = [{label: example.values(run, wind) for label, run in runs.items()} for wind in WINDS.values()]
        unit = example.quantity(WINDS["x"]).unit
        return Quantity(SPEED, unit, signed=False), {label: np.hypot(*(run[label] for run in both)) for label in runs}
    name = example.variables(1)[0]
    return example.quantity(name), {label: example.values(run, name) for label, run in runs.items()}
