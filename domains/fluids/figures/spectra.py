"""How much of a field's variance stands at each wavenumber of the plane: what blurred forecasts lack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from domains.fluids.data.boundary import Boundary, Side
from domains.fluids.figures.mesh_lines import MeshLines
from domains.fluids.figures.panels import MOST_VARIABLES, length_unit
from domains.fluids.forecast.flow_example import FlowExample, lead_text
from sciml.report.skill import legend_entries
from sciml.report.style import MUTED, add_titles, new_figure, pretty_unit, save_png, suite_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS, SHADES = "Blues", (0.45, 1.0)
MIN_ANNULI = 4
SMALLEST_SHARE = 1e-8
"""Of the largest power that is still shown: what is below is rounding."""


def power_by_wavenumber(
    fields: Float[np.ndarray, "... z x"], dx: float, dz: float, boundary: Boundary
) -> tuple[Float[np.ndarray, "annulus"], Float[np.ndarray, "... annulus"]]:
    """Power in annuli of the plane of wavenumbers, all as wide as the coarser of the axes resolves.

    The powers are means of squares (Parseval): over all wavenumbers they add up to the mean square of the field, in the
    square of its unit. Only whole annuli are returned, up to the smaller of the two Nyquist wavenumbers, and so not the
    corners beyond. The first is the disk around zero, with the mean.

    Args:
        fields: on evenly spaced cells.
        dx, dz: spacing, m.
        boundary: along an axis that is not periodic a field is continued by its mirror image. The Fourier transform
            takes it for periodic, and the jump from one side to the other would put power at all wavenumbers.

    Returns:
        The wavenumber in the middle of each annulus (cycles per m), and its power.
    """
    values = np.asarray(fields, np.float64)
    for axis, sides in ((-1, boundary.x), (-2, boundary.z)):
        if sides[0] is not Side.PERIODIC:
            values = np.concatenate([values, np.flip(values, axis)], axis=axis)
    rows, columns = values.shape[-2:]
    power = np.abs(np.fft.fft2(values, norm="forward")) ** 2
    size = np.hypot(np.fft.fftfreq(rows, dz)[:, None], np.fft.fftfreq(columns, dx)[None])
    width = max(1 / (rows * dz), 1 / (columns * dx))
    count = int(min(0.5 / dz, 0.5 / dx) / width + 0.5 + 1e-9)  # the last one ends at the Nyquist wavenumber or before
    annulus = np.floor(size / width + 0.5 + 1e-9).astype(int)
    sums = np.zeros((*power.shape[:-2], count))
    for number in range(count):
        sums[..., number] = power[..., annulus == number].sum(-1)
    return np.arange(count) * width, sums


def draw_spectra(example: FlowExample, mesh: MeshLines | None, path: Path) -> Path:
    """Power of up to four variables at the first, the middle and the last lead time, of forecast and truth.

    Where the model has a mesh, the wavenumbers of one cycle per patch are marked: there its seams are seen.
    """
    last = len(example.lead_times) - 1
    leads = sorted({0, last // 2, last})
    names = example.variables(MOST_VARIABLES)
    unit, meters = length_unit(example.data_set)
    with suite_style():
        figure = new_figure(max(3.3 * len(names) + 0.4, 6.4), 4.2)
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            _panel(axes, example, name, leads)
            for size in mesh.patch_sizes if mesh is not None else ():
                for spacing in {example.data_set.dx, example.data_set.dz}:
                    seams = meters / (size * spacing)
                    if axes.get_xlim()[0] < seams < axes.get_xlim()[1]:
                        axes.axvline(seams, color=MUTED, linewidth=0.8, linestyle=":")
            axes.set_xlabel(f"wavenumber, cycles per {unit}")
        handles, labels = legend_entries(figure)
        figure.legend(handles, labels, loc="outside upper left", ncols=len(leads))
        add_titles(figure, source=example.title)
        return save_png(figure, path)


def has_spectra(example: FlowExample) -> bool:
    """Whether the grid resolves enough annuli to draw a line."""
    data_set = example.data_set
    wavenumber, _ = power_by_wavenumber(np.zeros(data_set.shape), data_set.dx, data_set.dz, data_set.boundary)
    return len(wavenumber) >= MIN_ANNULI


def _panel(axes: Axes, example: FlowExample, name: str, leads: Sequence[int]) -> None:
    from matplotlib import colormaps

    runs = {"forecast": example.forecast, "truth": example.truth}
    _, meters = length_unit(example.data_set)
    highest = []
    for lead, shade in zip(leads, np.linspace(*SHADES, len(leads)), strict=True):
        for label, run in runs.items():
            if run is None or not np.isfinite(run[lead]).all():
                continue
            wavenumber, power = _spectrum(example, example.values(run[lead], name))
            if not power[1:].any():  # air at rest has no place on a logarithmic scale
                continue
            look: dict[str, Any] = {"linewidth": 2.0} if label == "forecast" else {"linewidth": 1.2, "linestyle": "--"}
            axes.loglog(
                meters * wavenumber[1:], power[1:], color=colormaps[COLORS](shade), **look,
                label=f"{label}, {lead_text(example.lead_times[lead])}",
            )  # fmt: skip
            highest.append(power[1:].max())
    if highest:
        axes.set_ylim(bottom=max(axes.get_ylim()[0], min(highest) * SMALLEST_SHARE))
    unit = pretty_unit(example.quantity(name).unit)
    axes.set_title(name)
    if unit:
        axes.set_ylabel(f"power, ({unit})²" if " " in unit else f"power, {unit}²")


def _spectrum(example: FlowExample, field: Float[np.ndarray, "z x"]) -> tuple[np.ndarray, np.ndarray]:
    data_set = example.data_set
    if example.fluid is not None:
        # Obstacles hold no flow; the mean makes the smallest jump at their sides.
        field = np.where(example.fluid, field, field[example.fluid].mean())
    return power_by_wavenumber(field, data_set.dx, data_set.dz, data_set.boundary)
