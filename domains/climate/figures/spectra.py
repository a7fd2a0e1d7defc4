"""How much of a field's variance stands at each zonal wavenumber: what blurred forecasts lack."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from domains.climate.data.schema import cell_area_weights


def zonal_power_spectrum(
    fields: Float[np.ndarray, "... latitude longitude"],
    latitude: Float[np.ndarray, "latitude"] | tuple[float, ...],
    band: tuple[float, float] = (-90.0, 90.0),
) -> Float[np.ndarray, "... wavenumber"]:
    """Area-weighted mean power by zonal wavenumber 0, 1, ..., longitudes // 2.

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
