"""Measures how well forecasts keep the mass and energy of a flow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from domains.fluids.forecast.example import FlowExample
from domains.fluids.solver import VARIABLES, totals
from sciml.report.legend import legend_entries
from sciml.report.skill import lead_unit
from sciml.report.style import GRID, INK, MODEL_COLOR, MUTED, add_titles, new_figure, save_png, suite_style

ROUNDING = 1e-7
"""Below, a change is rounding of states in float32, and drawn as none."""


def conservation_errors(
    example: FlowExample, states: Float[np.ndarray, "lead variable z x"]
) -> dict[str, Float[np.ndarray, "lead"]]:
    """Returns the change of ``mass`` and ``energy`` since the initial state over the amount there.

    Energy is kinetic, internal and potential, see :func:`domains.fluids.solver.totals`.
    """
    assert example.profiles is not None
    data_set = example.data_set
    order = [data_set.variables.index(name) for name in VARIABLES]
    fields = torch.from_numpy(np.concatenate([example.initial[None], states])[:, order])
    hy_dens, hy_theta = torch.from_numpy(example.profiles)
    total = totals(fields, hy_dens, hy_theta, data_set.dx, data_set.dz)
    amounts = {"mass": total.mass.numpy(), "energy": total.energy.numpy()}
    return {name: (values[1:] - values[0]) / values[0] for name, values in amounts.items()}


def draw_conservation(example: FlowExample, path: Path) -> Path:
    """Draws the sizes of the relative changes of mass and energy against lead time, of forecast and truth."""
    runs = {"forecast": example.forecast} | ({"truth": example.truth} if example.truth is not None else {})
    looks: dict[str, dict[str, Any]] = {
        "forecast": {"color": MODEL_COLOR, "linewidth": 2.2, "marker": "o", "markersize": 3},
        "truth": {"color": INK, "linestyle": "--"},
    }
    unit, per_hour = lead_unit(list(example.lead_times))
    with suite_style():
        figure = new_figure(9.0, 3.6)
        panels = dict(zip(("mass", "energy"), figure.subplots(1, 2), strict=True))
        for label, run in runs.items():
            for name, change in conservation_errors(example, run).items():
                sizes = np.maximum(np.abs(np.where(np.isfinite(change), change, np.nan)), ROUNDING)
                panels[name].semilogy(example.lead_times * per_hour, sizes, label=label, **looks[label])
        for name, axes in panels.items():
            axes.set(title=name, xlabel=f"lead time, {unit}", ylabel=f"relative change of {name}")
            axes.set_xlim(left=0)
            axes.set_ylim(ROUNDING / 2, max(axes.get_ylim()[1], 100 * ROUNDING))
            axes.axhspan(ROUNDING / 2, ROUNDING, color=GRID, zorder=0)
            axes.annotate(
                "rounding", (0.98, ROUNDING / 1.45), xycoords=("axes fraction", "data"), ha="right", va="center",
                fontsize=8, color=MUTED,
            )  # fmt: skip
        handles, labels = legend_entries(figure)
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
        add_titles(figure, source=example.title)
        return save_png(figure, path)
