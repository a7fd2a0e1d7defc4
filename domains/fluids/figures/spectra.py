"""Draws the share of a field's variance at each wavenumber of the plane, where blurred forecasts lack some."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from domains.fluids.data.boundary import Boundary
from domains.fluids.figures.mesh_lines import MeshLines
from domains.fluids.figures.panels import MOST_VARIABLES, length_unit
from domains.fluids.forecast.example import FlowExample
from sciml.nn.topology import Side
from sciml.report.spectra import Spectrum, SpectrumPanel, draw_spectra
from sciml.report.style import MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIN_ANNULI = 4


def power_by_wavenumber(
    fields: Float[np.ndarray, "... z x"], dx: float, dz: float, boundary: Boundary
) -> tuple[Float[np.ndarray, "annulus"], Float[np.ndarray, "... annulus"]]:
    """Returns power in annuli of the plane of wavenumbers, all as wide as the coarser of the axes resolves.

    The powers are means of squares (Parseval): over all wavenumbers they add up to the mean square of the field, in the
    square of its unit. Only whole annuli are returned, up to the smaller of the two Nyquist wavenumbers, and so not the
    corners beyond. The first is the disk around zero, with the mean.

    Args:
        fields: on evenly spaced cells.
        dx, dz: spacing.
        boundary: along an axis that is not periodic a field is continued by its mirror image. The Fourier transform
            takes it for periodic, and the jump from one side to the other would put power at all wavenumbers.

    Returns:
        The wavenumber in the middle of each annulus (cycles per unit of the spacing), and its power.
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


def draw_plane_spectra(example: FlowExample, mesh: MeshLines | None, path: Path) -> Path:
    """Draws power of up to four variables at the first, the middle and the last lead time, of forecast and truth.

    Where the model has a mesh, the wavenumbers of one cycle per patch are marked: there its patch edges are seen.
    """
    leads = example.leads_up_to(example.last_compared)
    unit, meters = length_unit(example.data_set)
    runs = {"forecast": example.forecast, "truth": example.truth}
    panels = {}
    for name in example.variables(MOST_VARIABLES):
        spectra = []
        for lead, age in zip(leads, np.linspace(0, 1, len(leads)), strict=True):
            for label, run in runs.items():
                if run is not None and np.isfinite(run[lead]).all():  # a forecast may blow up
                    wavenumber, power = _spectrum(example, example.values(run[lead], name))
                    text = f"{label}, {example.data_set.time_text(example.lead_times[lead])}"
                    spectra.append(Spectrum(text, meters * wavenumber[1:], power[1:], age, is_truth=label == "truth"))
        panels[example.long_name(name)] = SpectrumPanel(spectra, example.quantity(name).unit)

    def mark_patches(axes: Axes) -> None:
        low, high = axes.get_xlim()
        for size in mesh.patch_sizes if mesh is not None else ():
            for spacing in {example.data_set.dx, example.data_set.dz}:
                if low < meters / (size * spacing) < high:
                    axes.axvline(meters / (size * spacing), color=MUTED, linewidth=0.8, linestyle=":")

    return draw_spectra(
        panels, f"wavenumber, cycles per {unit or 'unit of length'}", example.title, path, decorate=mark_patches
    )


def has_spectra(example: FlowExample) -> bool:
    """Returns whether the grid resolves enough annuli to draw a line."""
    data_set = example.data_set
    wavenumber, _ = power_by_wavenumber(np.zeros(data_set.shape), data_set.dx, data_set.dz, data_set.boundary)
    return len(wavenumber) >= MIN_ANNULI


def _spectrum(example: FlowExample, field: Float[np.ndarray, "z x"]) -> tuple[np.ndarray, np.ndarray]:
    data_set = example.data_set
    if example.fluid is not None:
        # Obstacles hold no flow; the mean makes the smallest jump at their sides.
        field = np.where(example.fluid, field, field[example.fluid].mean())
    return power_by_wavenumber(field, data_set.dx, data_set.dz, data_set.boundary)
