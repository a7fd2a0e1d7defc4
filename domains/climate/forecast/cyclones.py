"""Minima of pressure like those of cyclones: whether forecasts have them, and where.

A minimum is a cell of the middle latitudes that is the lowest within 1000 km and lies well below the mean around it.
One of the truth is hit where a forecast has one within 1000 km. Within 1000 km of what the truth does not have, the
ground on a pressure level, there are none in either.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from domains.climate.data.schema import ClimateSchema
from domains.climate.forecast.cases import ScoredCases
from sciml.domain.score import Metric, Score

HIT_RATE = Metric("cyclone_hit_rate", "hit rate of cyclones", better="higher", perfect=1.0, unit="1")
FALSE_ALARMS = Metric("cyclone_false_alarms", "false alarms among forecast cyclones", unit="1")
POSITION_ERROR = Metric("cyclone_position_error", "distance of cyclones that are hit", unit="km")
FIELDS = ("msl", "z1000", "z850")
RADIUS_KM = 1000.0
KM_PER_DEGREE = 111.195
LATITUDES = (20.0, 75.0)
DEPTH = 0.3
"""Standard deviations of the field by which a minimum lies below the mean around it."""


class Cyclones:
    """Adds up minima of the truth and of forecasts, hits, false alarms and distances.

    Args:
        std: of each channel.
        lead_times_h: that are scored.
    """

    def __init__(
        self,
        schema: ClimateSchema,
        std: Float[Tensor, "channel"],
        lead_times_h: Sequence[float],
        device: torch.device | str = "cpu",
    ) -> None:
        self.name = next(name for name in FIELDS if name in schema.channels)
        self.channel = schema.channels.index(self.name)
        self.latitude, self.longitude = np.asarray(schema.latitude), np.asarray(schema.longitude)
        self.depth, self.lead_times_h = DEPTH * float(std[self.channel]), lead_times_h
        # minima of the truth, of them hit, distances, minima of forecasts, of them false
        self.counts = torch.zeros(len(lead_times_h), 5, dtype=torch.float64, device=device)

    @staticmethod
    def fits(schema: ClimateSchema) -> bool:
        """Says whether the data have what cyclones are seen in, all over the globe."""
        return any(name in schema.channels for name in FIELDS) and not schema.is_region

    def sums(self) -> list[Tensor]:
        return [self.counts]

    def update(self, cases: ScoredCases) -> None:
        truth, members = cases.truth[:, None, self.channel], cases.members[:, :, self.channel]
        fields = torch.cat([truth, torch.where(truth.isnan(), torch.nan, members)], dim=1)
        found = minima(fields, self.latitude, self.longitude, self.depth).cpu().numpy()
        rows = [np.sum([self._compare(own[0], member) for member in own[1:]], axis=0) for own in found]
        self.counts.index_add_(0, cases.lead, torch.from_numpy(np.array(rows)).to(self.counts))

    def _compare(
        self, truth: Bool[np.ndarray, "latitude longitude"], forecast: Bool[np.ndarray, "latitude longitude"]
    ) -> Float[np.ndarray, "5"]:
        own, others = self._positions(truth), self._positions(forecast)
        if not len(own) or not len(others):
            return np.array([len(own), 0, 0, len(others), len(others)], dtype=np.float64)
        chord = np.linalg.norm(own[:, None] - others, axis=-1)
        distance = 2 * np.rad2deg(np.arcsin(np.minimum(chord / 2, 1))) * KM_PER_DEGREE
        nearest = distance.min(1)
        hits = nearest <= RADIUS_KM
        false = (distance.min(0) > RADIUS_KM).sum()
        return np.array([len(own), hits.sum(), nearest[hits].sum(), len(others), false], dtype=np.float64)

    def _positions(self, mask: Bool[np.ndarray, "latitude longitude"]) -> Float[np.ndarray, "minimum 3"]:
        """Returns points on the unit sphere."""
        row, column = np.nonzero(mask)
        phi, lam = np.deg2rad(self.latitude[row]), np.deg2rad(self.longitude[column])
        return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)

    def scores(self) -> list[Score]:
        found = []
        for hours, counts in zip(self.lead_times_h, self.counts.tolist(), strict=True):
            own, hits, distance, others, false = counts
            if own:
                found.append(Score(self.name, HIT_RATE, hits / own, "1", hours))
            if others:
                found.append(Score(self.name, FALSE_ALARMS, false / others, "1", hours))
            if hits:
                found.append(Score(self.name, POSITION_ERROR, distance / hits, "km", hours))
        return found


def minima(
    fields: Float[Tensor, "*case latitude longitude"], latitude: np.ndarray, longitude: np.ndarray, depth: float
) -> Bool[Tensor, "*case latitude longitude"]:
    """Says which cells are minima like those of cyclones.

    Args:
        fields: on a grid that goes around the globe; within 1000 km of what is not a number there are none. Of cells
            that are equally low, as in data that are packed coarsely, the first is the minimum.
        depth: by which they lie below the mean of the cells within 1000 km.
    """
    flat = fields.reshape(-1, *fields.shape[-2:])
    order = _ranks(flat)
    columns, spacing = len(longitude), 360.0 / len(longitude)
    lowest, mean = torch.empty_like(order), torch.empty_like(flat)
    reach = LATITUDES[1] + RADIUS_KM / KM_PER_DEGREE
    for row, degrees in enumerate(latitude):
        if abs(degrees) > reach:
            continue
        width = RADIUS_KM / (KM_PER_DEGREE * max(np.cos(np.deg2rad(degrees)), 0.05) * spacing)
        half = min(int(width), (columns - 1) // 2)
        windows = [F.pad(of[:, row], (half, half), mode="circular").unfold(-1, 2 * half + 1, 1) for of in (order, flat)]
        lowest[:, row], mean[:, row] = windows[0].amin(-1), windows[1].mean(-1)
    found = torch.zeros_like(flat, dtype=torch.bool)
    for row, degrees in enumerate(latitude):
        if LATITUDES[0] <= abs(degrees) <= LATITUDES[1]:
            near = torch.from_numpy(np.flatnonzero(np.abs(latitude - degrees) * KM_PER_DEGREE <= RADIUS_KM))
            near = near.to(flat.device)
            is_lowest = order[:, row] <= lowest[:, near].amin(1)
            found[:, row] = is_lowest & (mean[:, near].mean(1) - flat[:, row] > depth)
    return found.reshape(fields.shape)


def _ranks(fields: Float[Tensor, "case latitude longitude"]) -> Float[Tensor, "case latitude longitude"]:
    """Returns for each cell how many others are lower, or as low and before it."""
    order = fields.flatten(1).argsort(dim=1, stable=True)
    numbers = torch.arange(order.shape[1], dtype=torch.float64, device=fields.device).expand_as(order)
    return torch.empty_like(numbers).scatter_(1, order, numbers).reshape(fields.shape)
