"""Power by zonal wavenumber of forecasts over that of the truth, as means over all cases: which scales survive.

Each member of an ensemble is measured by itself: their mean is smooth by nature.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from domains.climate.data.schema import ClimateSchema, cell_area_weights, goes_round
from domains.climate.forecast.cases import ScoredCases
from sciml.domain.score import Metric, Score

POWER = Metric("power", "power over the truth's", better="nearer", perfect=1.0, unit="1")
MIDDLE_LATITUDES = ((30.0, 60.0), (-60.0, -30.0))
JUDGED_SHARE = 2 / 3
"""Wavenumbers up to this share of the largest count; beyond, grids resolve little."""


def zonal_power_spectrum(
    fields: Float[Tensor, "... latitude longitude"],
    latitude: Sequence[float],
    bands: Sequence[tuple[float, float]] = ((-90.0, 90.0),),
) -> Float[Tensor, "... wavenumber"]:
    """Returns the area-weighted mean power by zonal wavenumber 0, 1, ..., longitudes // 2.

    Wavenumbers that stand for a conjugate pair are counted twice, so that the sum over wavenumbers is the
    area-weighted mean square of the bands (Parseval), in the square of the field's unit.

    Args:
        fields: on a grid that goes around the globe.
        latitude: degrees north, in the order of the fields.
        bands: southern and northern edges of the latitudes that are averaged, in degrees.

    Raises:
        ValueError: where no latitude lies in the bands.
    """
    degrees = np.asarray(latitude, dtype=np.float64)
    inside = np.any([(degrees >= low) & (degrees <= high) for low, high in bands], axis=0)
    if not inside.any():
        raise ValueError(f"no latitude lies in {', '.join(f'{low:g} to {high:g} degrees' for low, high in bands)}")
    weights = cell_area_weights(degrees)[inside]
    rows = fields[..., torch.from_numpy(np.flatnonzero(inside)).to(fields.device), :]
    power = torch.fft.rfft(rows, norm="forward").abs().square()
    last = (rows.shape[-1] + 1) // 2
    power[..., 1:last] *= 2  # the Nyquist wavenumber of an even grid, like the mean, has no conjugate partner
    return torch.einsum("...yk,y->...k", power, torch.from_numpy(weights / weights.sum()).to(power))


class PowerByScale:
    """Adds up the power of forecasts and of the truth in the middle latitudes, channels with gaps left out.

    The score is the geometric mean over wavenumbers of the ratio of both sums; its curve has the mean powers.

    Args:
        lead_times_h: that are scored.
    """

    def __init__(
        self,
        schema: ClimateSchema,
        lead_times_h: Sequence[float],
        device: torch.device | str = "cpu",
    ) -> None:
        self.channels, self.latitude, self.lead_times_h = schema.channels, schema.latitude, lead_times_h
        degrees = np.abs(schema.latitude)
        self.bands = MIDDLE_LATITUDES if ((degrees >= 30) & (degrees <= 60)).any() else ((-90.0, 90.0),)
        shape = len(lead_times_h), len(schema.channels)
        waves = len(schema.longitude) // 2 + 1
        self.powers = torch.zeros(2, *shape, waves, dtype=torch.float64, device=device)  # forecast, truth
        self.counts = torch.zeros(shape, dtype=torch.float64, device=device)

    @staticmethod
    def fits(schema: ClimateSchema) -> bool:
        """Says whether a grid has zonal waves."""
        return goes_round(schema.longitude) and len(schema.longitude) > 3

    def sums(self) -> list[Tensor]:
        return [self.powers, self.counts]

    def update(self, cases: ScoredCases) -> None:
        is_whole = cases.is_whole()
        fields = torch.cat([cases.truth[:, None], cases.members], dim=1)
        powers = zonal_power_spectrum(fields, self.latitude, self.bands)
        both = torch.stack([powers[:, 1:].mean(1), powers[:, 0]])
        both = torch.where(is_whole[..., None], both, 0.0)
        self.powers.index_add_(1, cases.lead, both)
        self.counts.index_add_(0, cases.lead, is_whole.to(self.counts))

    def scores(self) -> list[Score]:
        found = []
        means = (self.powers / self.counts.clamp_min(1)[..., None]).cpu()[..., 1:]  # without the mean
        last = max(1, round(JUDGED_SHARE * means.shape[-1]))
        for i, hours in enumerate(self.lead_times_h):
            for j, channel in enumerate(self.channels):
                forecast, truth = means[:, i, j]
                if not (truth[:last] > 0).all():
                    continue
                ratio = (forecast[:last].clamp_min(torch.finfo(torch.float32).tiny) / truth[:last]).log().mean().exp()
                waves = tuple(float(number) for number in range(1, len(truth) + 1))
                curve = {"wavenumber": waves, "forecast": tuple(forecast.tolist()), "truth": tuple(truth.tolist())}
                found.append(Score(channel, POWER, ratio.item(), "1", hours, curve=curve))
        return found
