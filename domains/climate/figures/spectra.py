"""Draws the share of a field's variance at each zonal wavenumber, where blurred forecasts lack some."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from domains.climate.data.schema import cell_area_weights
from domains.climate.data.variables import channel_unit
from domains.climate.forecast.example import SHOWN_CHANNELS, WeatherExample, choose
from sciml.report.spectra import Spectrum, SpectrumPanel, draw_spectra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIDDLE_LATITUDES = ((30.0, 60.0), (-60.0, -30.0))
MOST_VARIABLES = 3


def draw_zonal_spectra(example: WeatherExample, lead_hours: float | None, path: Path) -> Path:
    """Draws power by zonal wavenumber in the middle latitudes: forecasts against truth, up to three variables."""
    panels = zonal_panels(example, lead_hours)
    return draw_spectra(panels, "zonal wavenumber", example.schema.title, path, decorate=_powers_of_two)


def zonal_panels(example: WeatherExample, lead_hours: float | None) -> dict[str, SpectrumPanel]:
    """Returns the spectra of up to three variables by name: forecasts up to a lead time, and the truth there."""
    last = example.nearest_lead(lead_hours)
    leads = example.leads_up_to(last)
    panels = {}
    for name in choose(whole_channels(example), SHOWN_CHANNELS, MOST_VARIABLES):
        index = example.channel(name)
        spectra = [
            _spectrum(f"forecast, {example.lead_times[lead]:g} h", example, example.forecast[lead, index], age)
            for lead, age in zip(leads, np.linspace(0, 1, len(leads)), strict=True)
        ]
        if example.truth is None:
            spectra.append(_spectrum("analysis", example, example.initial[index], 0.0, is_truth=True))
        else:
            label = f"truth, {example.lead_times[last]:g} h"
            spectra.append(_spectrum(label, example, example.truth[last, index], 1.0, is_truth=True))
        panels[name] = SpectrumPanel(spectra, channel_unit(name))
    return panels


def whole_channels(example: WeatherExample) -> tuple[str, ...]:
    """Returns the channels that are known everywhere, which have a spectrum."""
    fields = [example.forecast, example.initial[None], *([] if example.truth is None else [example.truth])]
    known = np.all([np.isfinite(field).all(axis=(0, 2, 3)) for field in fields], axis=0)
    return tuple(name for name, is_known in zip(example.schema.channels, known, strict=True) if is_known)


def zonal_power_spectrum(
    fields: Float[np.ndarray, "... latitude longitude"],
    latitude: Float[np.ndarray, "latitude"] | tuple[float, ...],
    band: tuple[float, float] = (-90.0, 90.0),
) -> Float[np.ndarray, "... wavenumber"]:
    """Returns the area-weighted mean power by zonal wavenumber 0, 1, ..., longitudes // 2.

    Wavenumbers that stand for a conjugate pair are counted twice, so that the sum over wavenumbers is the
    area-weighted mean square of the band (Parseval), in the square of the field's unit.

    Args:
        fields: on a grid that goes around the globe.
        latitude: degrees north, in the order of the fields.
        band: southern and northern edge of the latitudes that are averaged, in degrees.

    Raises:
        ValueError: where no latitude lies in the band.
    """
    degrees = np.asarray(latitude, dtype=np.float64)
    inside = (degrees >= band[0]) & (degrees <= band[1])
    if not inside.any():
        raise ValueError(f"no latitude lies between {band[0]:g} and {band[1]:g} degrees")
    weights = cell_area_weights(degrees)[inside]
    selected = np.asarray(fields, dtype=np.float64)[..., inside, :]
    return np.einsum("...yk,y->...k", _power_by_row(selected), weights / weights.sum())


def _power_by_row(rows: Float[np.ndarray, "... latitude longitude"]) -> Float[np.ndarray, "... latitude wavenumber"]:
    num_longitudes = rows.shape[-1]
    power = np.abs(np.fft.rfft(rows, axis=-1, norm="forward")) ** 2
    last = (num_longitudes + 1) // 2
    power[..., 1:last] *= 2  # the Nyquist wavenumber of an even grid, like the mean, has no conjugate partner
    return power


def _spectrum(
    label: str,
    example: WeatherExample,
    field: Float[np.ndarray, "latitude longitude"],
    age: float,
    *,
    is_truth: bool = False,
) -> Spectrum:
    bands = [zonal_power_spectrum(field, example.schema.latitude, band) for band in MIDDLE_LATITUDES]
    power = np.mean(bands, axis=0)
    return Spectrum(label, np.arange(1, len(power)), power[1:], age, is_truth)


def _powers_of_two(axes: Axes) -> None:
    ticks = [2**n for n in range(10) if 2**n <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
