"""Forecast scores as WeatherBench 2 defines them, accumulated over batches and addable over ranks.

All means over the globe are weighted with exact cell areas; all sums are float64, because squared errors of
geopotential are eight orders of magnitude above those of specific humidity.

Source: Rasp et al. (2024), WeatherBench 2, https://doi.org/10.1029/2023MS004019.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from domains.climate.data.batch import FieldBatch
from domains.climate.data.schema import ClimateSchema, cell_area_weights
from domains.climate.data.variables import channel_unit
from sciml.domain.protocol import Prediction, Score

FieldsAt = Callable[[np.ndarray], Any]
"""Fields (time, channel, latitude, longitude) valid at the given hours since 1970: a climatology."""

LEAD_TOLERANCE_H = 1e-3
DETERMINISTIC = ("squared_error", "absolute_error", "error", "anomaly_correlation", "climax_root")
ENSEMBLE = ("crps", "variance", "mean_squared_error")


class ClimateMetrics:
    """RMSE, MAE, bias, ACC and, for ensembles, CRPS, spread and spread/skill, per lead time and channel.

    ======================  ============================================================================
    ``rmse``                square root of the mean over time of the area-weighted mean squared error
    ``mae``, ``bias``       area-weighted mean absolute error; area-weighted mean of forecast minus truth
    ``acc``                 mean over time of the area-weighted correlation of anomalies from climatology
    ``wrmse_climax``        ClimaX's: mean over samples of square roots, weights cos(latitude); lower than
                            ``rmse`` for the same forecasts, so the two must never be compared
    ``crps``                fair (unbiased for any ensemble size), area-weighted
    ``spread``              square root of the mean ensemble variance (n - 1)
    ``spread_skill``        ``spread`` over the RMSE of the ensemble mean
    ======================  ============================================================================

    Args:
        schema: channels and grid.
        lead_times: hours at which to score; a prediction at another lead time is passed over. They are fixed
            beforehand so that the sums of ranks that met different lead times still add up.
        climatology: mean fields by valid time, for ACC; without it there is no ACC.
        device: where the sums are kept.
    """

    def __init__(
        self,
        schema: ClimateSchema,
        lead_times: Sequence[float],
        climatology: FieldsAt | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.schema = schema
        self.lead_times = tuple(sorted(float(h) for h in lead_times))
        self.climatology = climatology
        cosine = np.cos(np.deg2rad(schema.latitude))
        self._area = _column(cell_area_weights(schema.latitude), device)
        self._cosine = _column(cosine / cosine.mean(), device)
        table = (len(self.lead_times), len(schema.channels))
        names = ("count", *DETERMINISTIC, "ensemble_count", *ENSEMBLE)
        self._sums = {name: torch.zeros(table, dtype=torch.float64, device=device) for name in names}

    def sums(self) -> list[Tensor]:
        """The float64 accumulators (lead, channel), in a fixed order; adding them over ranks in place is all."""
        return list(self._sums.values())

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
        lead, chosen = self._scored_leads(batch.next_lead_time)
        if len(lead) == 0:
            return
        device = self._area.device
        truth = batch.targets[:, 0].to(device)[chosen].double()
        fields = prediction.values["fields"].to(device)[chosen].double()
        self._add("count", lead, torch.ones(truth.shape[:2], dtype=torch.float64, device=device))
        for name, value in self._deterministic(fields, truth, batch.valid_time[chosen.to(batch.valid_time.device)]):
            self._add(name, lead, value)
        if "ensemble" in prediction.values:
            ensemble = prediction.values["ensemble"].to(device)[chosen].double()
            self._add("ensemble_count", lead, torch.ones(truth.shape[:2], dtype=torch.float64, device=device))
            for name, value in self._probabilistic(ensemble, truth):
                self._add(name, lead, value)

    def compute(self) -> list[Score]:
        """The scores of all lead times that were met, lead by lead and channel by channel."""
        totals = {name: total.cpu().numpy() for name, total in self._sums.items()}
        scores = []
        for i, hours in enumerate(self.lead_times):
            for j, channel in enumerate(self.schema.channels):
                if totals["count"][i, j] > 0:
                    cell = {name: float(total[i, j]) for name, total in totals.items()}
                    scores += [
                        Score(channel, metric, value, unit, lead_time_h=hours)
                        for metric, value, unit in _scores_of(cell, channel_unit(channel), self.climatology is not None)
                    ]
        return scores

    def _scored_leads(self, hours: Float[Tensor, "batch"]) -> tuple[Tensor, Tensor]:
        """Positions in ``lead_times`` and numbers of the samples that are scored."""
        known = torch.tensor(self.lead_times, dtype=torch.float64)
        match = (hours.detach().cpu().double()[:, None] - known[None]).abs() < LEAD_TOLERANCE_H
        sample, lead = match.nonzero(as_tuple=True)
        return lead.to(self._area.device), sample.to(self._area.device)

    def _add(self, name: str, lead: Tensor, value: Float[Tensor, "batch channel"]) -> None:
        self._sums[name].index_add_(0, lead, value)

    def _mean(self, fields: Float[Tensor, "... latitude longitude"]) -> Tensor:
        return (fields * self._area).mean(dim=(-2, -1))

    def _deterministic(self, fields: Tensor, truth: Tensor, valid_time: Tensor) -> list[tuple[str, Tensor]]:
        error = fields - truth
        values = [
            ("squared_error", self._mean(error.square())),
            ("absolute_error", self._mean(error.abs())),
            ("error", self._mean(error)),
            ("climax_root", (error.square() * self._cosine).mean(dim=(-2, -1)).sqrt()),
        ]
        if self.climatology is not None:
            normal = as_fields(self.climatology, valid_time).to(fields)
            values.append(("anomaly_correlation", self._correlation(fields - normal, truth - normal)))
        return values

    def _correlation(self, forecast: Tensor, truth: Tensor) -> Tensor:
        """Correlation of anomalies, not centered; 0 where one of them vanishes, as for climatology itself."""
        norm = (self._mean(forecast.square()) * self._mean(truth.square())).sqrt()
        return torch.where(norm > 0, self._mean(forecast * truth) / norm.clamp_min(torch.finfo(norm.dtype).tiny), 0.0)

    def _probabilistic(self, ensemble: Tensor, truth: Tensor) -> list[tuple[str, Tensor]]:
        """CRPS, variance and squared error of the mean; one member alone has CRPS = MAE and no spread."""
        members = ensemble.shape[1]
        skill = (ensemble - truth[:, None]).abs().mean(dim=1)
        ranked = ensemble.sort(dim=1).values
        # The mean absolute difference of all pairs is a sum over ranks: no (member x member) array is needed.
        rank = torch.arange(1, members + 1, dtype=ensemble.dtype, device=ensemble.device)
        weight = ((2 * rank - members - 1) / max(members * (members - 1), 1)).view(1, -1, 1, 1, 1)
        crps = skill - (ranked * weight).sum(dim=1)
        variance = ensemble.var(dim=1, correction=1) if members > 1 else torch.zeros_like(skill)
        squared = (ensemble.mean(dim=1) - truth).square()
        return list(zip(ENSEMBLE, (self._mean(x) for x in (crps, variance, squared)), strict=True))


def as_fields(fields_at: FieldsAt, hours: Float[Tensor, "batch"]) -> Float[Tensor, "batch channel latitude longitude"]:
    """Fields valid at some hours since 1970, from a callable that speaks numpy."""
    return torch.as_tensor(fields_at(hours.detach().cpu().double().numpy()))


def _column(weights: np.ndarray, device: torch.device | str) -> Tensor:
    return torch.as_tensor(weights, dtype=torch.float64, device=device)[:, None]


def _scores_of(total: dict[str, float], unit: str, with_acc: bool) -> list[tuple[str, float, str]]:
    """(metric, value, unit) of one lead time and channel from its sums."""
    count = total["count"]
    scores = [
        ("rmse", (total["squared_error"] / count) ** 0.5, unit),
        ("mae", total["absolute_error"] / count, unit),
        ("bias", total["error"] / count, unit),
        ("wrmse_climax", total["climax_root"] / count, unit),
    ]
    if with_acc:
        scores.append(("acc", total["anomaly_correlation"] / count, "1"))
    if members := total["ensemble_count"]:
        spread = (total["variance"] / members) ** 0.5
        skill = (total["mean_squared_error"] / members) ** 0.5
        scores += [("crps", total["crps"] / members, unit), ("spread", spread, unit)]
        if skill > 0:
            scores.append(("spread_skill", spread / skill, "1"))
    return scores
