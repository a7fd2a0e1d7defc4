"""Ensembles as wide as their errors, and means as strong as they are right, wave by wave.

On the validation split the truth is regressed on the mean of ensembles, apart for each lead time, channel and octave of
zonal wavenumbers. Forecasts then have that much of their mean, and members that differ from it by as much as the truth
does: where the regression holds, spread is error and power is the truth's, at every scale. What is carried on to the
next step stays as the model made it.

Source: Gneiting et al. (2005), https://doi.org/10.1175/MWR2904.1, for the regression of ensembles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from domains.climate.data.batch import FieldBatch
from domains.climate.data.schema import ClimateSchema
from domains.climate.forecast.power import PowerByScale
from sciml.domain.protocol import Prediction
from sciml.forecast.lead_time_sums import scored_positions

MEAN, SPREAD = "mean", "spread"
MOST_MEAN, LEAST_SPREAD, MOST_SPREAD = 1.2, 0.2, 5.0
"""Bounds of factors: more would be learned of too few cases."""


class Octaves:
    """Takes fields apart into their zonal mean and octaves of zonal waves: 1, 2 to 3, 4 to 7, ...

    Of a region, which has no waves around the globe, the whole field is one part.

    Args:
        area: weight of each cell.

    Attributes:
        first: the first wavenumber of each octave, 0 for the mean.
    """

    def __init__(self, schema: ClimateSchema, area: Float[Tensor, "latitude _longitude"]) -> None:
        self.area, self.has_waves, self.longitudes = area, PowerByScale.fits(schema), len(schema.longitude)
        numbers = torch.arange(self.longitudes // 2 + 1 if self.has_waves else 1)
        self.of_wave = torch.where(numbers > 0, numbers.clamp_min(1).log2().floor().long() + 1, 0).to(area.device)
        self.first = [0, *(2**octave for octave in range(int(self.of_wave.max())))]
        self.pairs = torch.full((len(numbers),), 2.0, dtype=area.dtype, device=area.device)
        self.pairs[0] = 1.0
        if self.longitudes % 2 == 0:
            self.pairs[-1] = 1.0  # like the mean, the shortest wave of an even grid has no conjugate partner

    def product(
        self, x: Float[Tensor, "*shape latitude longitude"], y: Float[Tensor, "*shape latitude longitude"]
    ) -> Float[Tensor, "*shape octave"]:
        """Returns what each octave has of the mean product of two fields."""
        if not self.has_waves:
            return (x * y * self.area).mean((-2, -1))[..., None]
        waves = torch.fft.rfft(x, norm="forward") * torch.fft.rfft(y, norm="forward").conj()
        parts = (waves.real * self.pairs * self.area.mean(-1, keepdim=True)).mean(-2)
        return parts.new_zeros(*parts.shape[:-1], len(self.first)).index_add_(-1, self.of_wave, parts)

    def scaled(
        self, x: Float[Tensor, "*shape latitude longitude"], factors: Float[Tensor, "*shape octave"]
    ) -> Float[Tensor, "*shape latitude longitude"]:
        """Returns a field each of whose octaves is multiplied by a factor."""
        if not self.has_waves:
            return x * factors[..., None]
        waves = torch.fft.rfft(x) * factors[..., self.of_wave][..., None, :]
        return torch.fft.irfft(waves, n=self.longitudes)


class EnsembleMoments:
    """Adds up what is regressed: squares of means and of the truth, their products, and variances of members.

    Args:
        lead_times_h: for which factors are found.
        chosen: channels that are known everywhere and may be scaled.
    """

    def __init__(
        self, octaves: Octaves, channels: Sequence[str], lead_times_h: Sequence[float], chosen: Sequence[bool]
    ) -> None:
        self.octaves, self.channels = octaves, channels
        self.chosen = [number for number, is_chosen in enumerate(chosen) if is_chosen]
        self.lead_times_h = sorted(lead_times_h)
        shape = 4, len(lead_times_h), len(channels), len(octaves.first)
        self.moments = torch.zeros(shape, dtype=octaves.area.dtype, device=octaves.area.device)

    def sums(self) -> list[Tensor]:
        """Returns the accumulator; adding it over ranks in place is all there is to do."""
        return [self.moments]

    @torch.no_grad()
    def update(self, prediction: Prediction, batch: FieldBatch) -> None:
        """Adds the samples of a batch whose next lead time is among those that are wanted."""
        if batch.targets is None:
            return
        lead, sample = scored_positions(batch.next_lead_time, self.lead_times_h)
        sample, lead = sample.to(batch.state.device), lead.to(self.moments.device)
        for channel in self.chosen:  # one by one, since fields of a fine grid are large
            ensemble = prediction.values["ensemble"][sample, :, channel].to(self.moments)
            truth = batch.targets[:, 0][sample, channel].to(self.moments)
            self.moments[:, :, channel].index_add_(1, lead, self._products(ensemble, truth))

    def _products(
        self, ensemble: Float[Tensor, "case member latitude longitude"], truth: Float[Tensor, "case latitude longitude"]
    ) -> Float[Tensor, "moment case octave"]:
        mean, product = ensemble.mean(1), self.octaves.product
        deviations = ensemble - mean[:, None]
        variance = product(deviations, deviations).sum(1) / (ensemble.shape[1] - 1)
        return torch.stack([product(mean, mean), product(truth, truth), product(mean, truth), variance])

    def factors(self) -> dict[str, float]:
        """Returns the factors of means and spreads, by kind, channel, hours and first wavenumber."""
        found: dict[str, float] = {}
        mean, truth, both, variance = self.moments.double().cpu()
        slope = (both / mean).clamp(0.0, MOST_MEAN)
        slope[..., 0] = 1.0
        error = truth - 2 * slope * both + slope.square() * mean
        spread = (error / variance).clamp_min(0).sqrt().clamp(LEAST_SPREAD, MOST_SPREAD)
        for i, hours in enumerate(self.lead_times_h):
            for j in self.chosen:
                for k, first in enumerate(self.octaves.first):
                    if slope[i, j, k].isfinite() and spread[i, j, k].isfinite():
                        found[f"{MEAN} {self.channels[j]} {hours:g} {first}"] = round(slope[i, j, k].item(), 4)
                        found[f"{SPREAD} {self.channels[j]} {hours:g} {first}"] = round(spread[i, j, k].item(), 4)
        return found


class EnsembleCalibration:
    """Applies factors that :class:`EnsembleMoments` has found; lead times between are interpolated, those beyond have
    the nearest one's.

    Args:
        factors: may be empty.
    """

    def __init__(self, octaves: Octaves, channels: Sequence[str], factors: Mapping[str, float]) -> None:
        self.octaves, self.known = octaves, dict(factors)
        names = [key.split(" ") for key in factors]
        self.hours = torch.tensor(sorted({float(hours) for *_, hours, _ in names}), dtype=torch.float64)
        shape = len(self.hours), len(channels), len(octaves.first)
        self.factors = {kind: torch.ones(shape, dtype=torch.float64) for kind in (MEAN, SPREAD)}
        places = {f"{hours:g}": i for i, hours in enumerate(self.hours.tolist())}
        for (kind, channel, hours, first), factor in zip(names, factors.values(), strict=True):
            if channel in channels and int(first) in octaves.first:
                place = places[hours], channels.index(channel), octaves.first.index(int(first))
                self.factors[kind][place] = factor

    def __call__(
        self, ensemble: Float[Tensor, "batch member channel latitude longitude"], lead_time: Float[Tensor, "batch"]
    ) -> Float[Tensor, "batch member channel latitude longitude"]:
        """Returns the calibrated members."""
        if not self.known:
            return ensemble
        of_mean, of_spread = (self._at(kind, lead_time).to(ensemble) for kind in (MEAN, SPREAD))
        channels = [
            self._one(ensemble[:, :, number], of_mean[:, number], of_spread[:, number])
            for number in range(ensemble.shape[2])
        ]
        return torch.stack(channels, dim=2)

    def _one(
        self,
        ensemble: Float[Tensor, "batch member latitude longitude"],
        of_mean: Float[Tensor, "batch octave"],
        of_spread: Float[Tensor, "batch octave"],
    ) -> Float[Tensor, "batch member latitude longitude"]:
        if bool((of_mean == 1).all() and (of_spread == 1).all()):
            return ensemble  # with its gaps, and to the last digit
        mean = ensemble.mean(1, keepdim=True)
        deviations = self.octaves.scaled(ensemble - mean, of_spread[:, None].expand(-1, ensemble.shape[1], -1))
        return self.octaves.scaled(mean, of_mean[:, None]) + deviations

    def _at(self, kind: str, lead_time: Float[Tensor, "batch"]) -> Float[Tensor, "batch channel octave"]:
        factors, hours = self.factors[kind], lead_time.detach().cpu().double()
        after = torch.searchsorted(self.hours, hours).clamp(1, max(1, len(self.hours) - 1))
        if len(self.hours) == 1:
            return factors.expand(len(hours), -1, -1)
        left, right = self.hours[after - 1], self.hours[after]
        share = ((hours - left) / (right - left)).clamp(0, 1)[:, None, None]
        return factors[after - 1] * (1 - share) + factors[after] * share
