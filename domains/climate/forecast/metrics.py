"""Forecast scores as WeatherBench 2 defines them, accumulated over batches and addable over ranks.

All means over the globe are weighted with exact cell areas.

Source: Rasp et al. (2024), WeatherBench 2, https://doi.org/10.1029/2023MS004019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from domains.climate.data.batch import FieldBatch
from domains.climate.data.boundary import score_weights
from domains.climate.data.samples import INDEPENDENT_HOURS
from domains.climate.data.schema import ClimateSchema
from domains.climate.data.variables import channel_unit
from domains.climate.forecast.cases import PartialScores, ScoredCases
from domains.climate.forecast.cyclones import Cyclones
from domains.climate.forecast.extremes import Extremes, Thresholds
from domains.climate.forecast.power import PowerByScale
from domains.climate.forecast.ranks import RankHistogram
from sciml.domain.protocol import Prediction
from sciml.domain.score import Metric, Score
from sciml.forecast.lead_time_sums import LeadTimeSums
from sciml.forecast.members import balanced_crps, fair_crps

FieldsAt = Callable[[np.ndarray], Any]
"""Fields (time, channel, latitude, longitude) valid at the given hours since 1970: a climatology."""

RMSE = Metric("rmse", reduce=math.sqrt)
MAE = Metric("mae")
BIAS = Metric("bias", "bias", better="nearer")
WRMSE_CLIMAX = Metric("wrmse_climax", "RMSE as in ClimaX")
ACC = Metric("acc", "anomaly correlation", better="higher", perfect=1.0, unit="1")
CRPS = Metric("crps", judges_spread=True)
SPREAD = Metric("spread", "ensemble spread", better="neither", reduce=math.sqrt)
SPREAD_SKILL = Metric("spread_skill", "spread over RMSE", better="nearer", perfect=1.0, unit="1")
RMSE_OF_MEAN = Metric("rmse_of_ensemble_mean", reduce=math.sqrt)
"""Not reported: the spread is compared with it."""


class ClimateMetrics:
    """Computes RMSE, MAE, bias, ACC and, for ensembles, CRPS, spread and spread/skill, per lead time and channel.

    ======================  ============================================================================
    ``rmse``                square root of the mean over time of the area-weighted mean squared error
    ``mae``, ``bias``       area-weighted mean absolute error; area-weighted mean of forecast minus truth
    ``acc``                 mean over time of the area-weighted correlation of anomalies from climatology
    ``wrmse_climax``        ClimaX's: mean over samples of square roots, weights cos(latitude); lower than
                            ``rmse`` for the same forecasts, so the two must never be compared
    ``crps``                fair (unbiased for any ensemble size, and for noise that adds up to zero), area-weighted
    ``spread``              square root of the mean ensemble variance (n - 1)
    ``spread_skill``        ``spread`` over the RMSE of the ensemble mean
    ``rank_histogram``      distance of the ranks of the truth among the members from equal shares
    ``..._p95``             Brier score, ROC area and quantile score of heat and wind, see ``extremes.py``
    ``cyclone_...``         hit rate, false alarms and position error of minima of pressure, see ``cyclones.py``
    ``power``               geometric mean over zonal wavenumbers of the forecasts' power over the truth's, of members
    ======================  ============================================================================

    Args:
        schema: channels and grid.
        lead_times: hours at which to score; a prediction at another lead time is passed over.
        climatology: mean fields by valid time, for ACC; without it there is no ACC.
        device: where the sums are kept.
        frame: cells at the edges of a region, which are given and do not count.
        members: of the ensembles that are scored; their ranks are counted.
        thresholds: of extremes, see :mod:`domains.climate.forecast.extremes`; without them there are no scores of them.
        std: of each channel, by which cyclones are told; without it they are not looked for.
        balanced: whether the members of an ensemble differ by noise that adds up to zero.
    """

    def __init__(
        self,
        schema: ClimateSchema,
        lead_times: Sequence[float],
        climatology: FieldsAt | None = None,
        device: torch.device | str = "cpu",
        frame: Bool[np.ndarray, "latitude longitude"] | None = None,
        members: int = 1,
        thresholds: Thresholds | None = None,
        std: Float[Tensor, "channel"] | None = None,
        balanced: bool = False,
    ) -> None:
        self.climatology = climatology
        self._crps = balanced_crps if balanced else fair_crps
        outputs = [name not in schema.inputs for name in schema.channels]
        self._is_output = torch.tensor(outputs, device=device)[:, None, None]
        self._has_gaps = any(outputs) or bool(schema.gaps)
        cosine = np.cos(np.deg2rad(schema.latitude))
        self._area = torch.as_tensor(score_weights(schema, frame), dtype=torch.float64, device=device)
        self._cosine = torch.as_tensor(score_weights(schema, frame, cosine), dtype=torch.float64, device=device)
        metrics = (RMSE, MAE, BIAS, WRMSE_CLIMAX, ACC, CRPS, SPREAD, RMSE_OF_MEAN)
        units = {channel: channel_unit(channel) for channel in schema.channels}
        self._table = LeadTimeSums(metrics, lead_times, units, device)
        leads = self._table.lead_times_h
        self._parts: list[PartialScores] = []
        if PowerByScale.fits(schema):
            self._parts.append(PowerByScale(schema, leads, device))
        if members > 1:
            self._parts.append(RankHistogram(schema.channels, members, self._area, leads))
        if thresholds:
            self._parts.append(Extremes(schema.channels, thresholds, members, self._area, leads))
        if std is not None and Cyclones.fits(schema):
            self._parts.append(Cyclones(schema, std, leads, device))

    def sums(self) -> list[Tensor]:
        """Returns the float64 accumulators in a fixed order; adding them over ranks in place is all."""
        return [*self._table.sums(), *(tensor for part in self._parts for tensor in part.sums())]

    @torch.no_grad()
    def update(self, prediction: Prediction, batch: FieldBatch) -> None:
        """Adds the samples of a batch whose next lead time is scored.

        Args:
            prediction: ``fields`` (batch, channel, latitude, longitude) in physical units and, for an ensemble,
                also ``ensemble`` (batch, member, channel, latitude, longitude).
            batch: its first target is the truth; without one there is nothing to score.
        """
        if batch.targets is None:
            return
        lead, chosen = self._table.scored(batch.next_lead_time)
        if len(lead) == 0:
            return
        device = self._area.device

        def scored(fields: Float[Tensor, "batch *field"]) -> Float[Tensor, "chosen *field"]:
            return fields[chosen.to(fields.device)].to(device).double()

        truth = scored(batch.targets[:, 0])
        known = None
        if self._has_gaps:
            known = truth.isfinite() & (scored(batch.initial).isfinite() | self._is_output)
        fields = scored(prediction.values["fields"])
        values = self._deterministic(fields, truth, known, batch.valid_time[chosen])
        ensemble = scored(prediction.values["ensemble"]) if "ensemble" in prediction.values else None
        if ensemble is not None:
            values |= self._probabilistic(ensemble, truth, known)
        counted = None if known is None else known.any((-2, -1))
        group = (batch.init_time[chosen] // INDEPENDENT_HOURS).long()
        for metric, of_samples in values.items():
            self._table.add(metric, lead, of_samples, counted, group)
        for part in self._parts:
            part.update(ScoredCases(lead, truth, fields, ensemble, known))

    def compute(self) -> list[Score]:
        """Returns the scores of all lead times that were met, lead by lead and channel by channel."""
        scores: list[Score] = []
        for score in self._table.scores():
            if score.metric != RMSE_OF_MEAN:
                scores.append(score)
            elif score.value > 0:  # behind the spread of the same lead time and channel
                ratio = scores[-1].value / score.value
                scores.append(Score(score.variable, SPREAD_SKILL, ratio, "1", score.lead_time_h))
        return scores + [score for part in self._parts for score in part.scores()]

    def _mean(
        self,
        fields: Float[Tensor, "batch channel latitude longitude"],
        known: Bool[Tensor, "batch channel latitude longitude"] | None,
        weights: Float[Tensor, "latitude _longitude"] | None = None,
    ) -> Float[Tensor, "batch channel"]:
        """Returns the weighted mean, over area where no weights are given.

        Args:
            known: cells that count; None for all. A field that is not a number there has no mean.
        """
        weights = self._area if weights is None else weights
        if known is None:
            return (fields * weights).mean(dim=(-2, -1))
        total = (known * weights).sum((-2, -1)).clamp_min(torch.finfo(fields.dtype).tiny)
        return (torch.where(known, fields, 0.0) * weights).sum((-2, -1)) / total

    def _deterministic(
        self,
        fields: Float[Tensor, "batch channel latitude longitude"],
        truth: Float[Tensor, "batch channel latitude longitude"],
        known: Bool[Tensor, "batch channel latitude longitude"] | None,
        valid_time: Float[Tensor, "batch"],
    ) -> dict[Metric, Float[Tensor, "batch channel"]]:
        """Returns what is averaged over samples, each (batch, channel)."""
        error = fields - truth
        values = {
            RMSE: self._mean(error.square(), known),
            MAE: self._mean(error.abs(), known),
            BIAS: self._mean(error, known),
            WRMSE_CLIMAX: self._mean(error.square(), known, self._cosine).sqrt(),
        }
        if self.climatology is not None:
            normal = as_fields(self.climatology, valid_time).to(fields)
            values[ACC] = self._correlation(
                fields - normal, truth - normal, None if known is None else known & normal.isfinite()
            )
        return values

    def _correlation(
        self,
        forecast: Float[Tensor, "batch channel latitude longitude"],
        truth: Float[Tensor, "batch channel latitude longitude"],
        known: Bool[Tensor, "batch channel latitude longitude"] | None,
    ) -> Float[Tensor, "batch channel"]:
        """Returns the correlation of anomalies, not centered; 0 where one vanishes, as for climatology itself."""
        norm = (self._mean(forecast.square(), known) * self._mean(truth.square(), known)).sqrt()
        return torch.where(
            norm > 0, self._mean(forecast * truth, known) / norm.clamp_min(torch.finfo(norm.dtype).tiny), 0.0
        )

    def _probabilistic(
        self,
        ensemble: Float[Tensor, "batch member channel latitude longitude"],
        truth: Float[Tensor, "batch channel latitude longitude"],
        known: Bool[Tensor, "batch channel latitude longitude"] | None,
    ) -> dict[Metric, Float[Tensor, "batch channel"]]:
        """Returns CRPS, variance and squared error of the mean; one member alone has CRPS = MAE and no spread."""
        crps = self._crps(ensemble - truth[:, None])
        variance = ensemble.var(dim=1, correction=1) if ensemble.shape[1] > 1 else torch.zeros_like(crps)
        squared = (ensemble.mean(dim=1) - truth).square()
        values = {CRPS: crps, SPREAD: variance, RMSE_OF_MEAN: squared}
        return {metric: self._mean(of_cells, known) for metric, of_cells in values.items()}


def as_fields(fields_at: FieldsAt, hours: Float[Tensor, "batch"]) -> Float[Tensor, "batch channel latitude longitude"]:
    """Returns fields valid at some hours since 1970, from a callable that speaks numpy."""
    return torch.as_tensor(fields_at(hours.detach().cpu().double().numpy()))
