"""Forecasting with an ensemble: perturbed starts carried side by side through every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from domains.climate.data.batch import FieldBatch
from domains.climate.data.samples import ForecastSource
from domains.climate.forecast.calibration import EnsembleCalibration, EnsembleMoments, Octaves
from domains.climate.model.task import ClimateTask
from sciml.core.devices import widest_float
from sciml.core.seeding import seed_of
from sciml.domain.protocol import Prediction, SampleSource, Splits
from sciml.forecast.ensemble import perturbed


class EnsembleTask(ClimateTask):
    """Forecasts as the climate task does, with ``members`` that differ by their starts, by noise in a random model,
    or by both; the forecast is their mean.

    Those that differ by noise are calibrated on the validation split. What is carried on to the next step is not.

    Args:
        members: size of the ensemble, the unperturbed member included.
        perturbation: standard deviation of the noise in units of each channel's.
        seed: of the noise, together with that of each sample, and of what the task draws.
    """

    calibration_samples = 240

    def __init__(self, *arguments: Any, members: int, perturbation: float, seed: int, **options: Any) -> None:
        super().__init__(*arguments, seed=seed, **options)
        self.members, self.perturbation, self.seed = members, perturbation, seed
        self.calibration = {}

    @property
    def calibration(self) -> Mapping[str, float]:
        return self._calibrated.known

    @calibration.setter
    def calibration(self, factors: Mapping[str, float]) -> None:
        self._calibrated = EnsembleCalibration(self._octaves(), self.schema.channels, factors)

    def calibrator(self) -> EnsembleMoments:
        """Returns what finds the factors of means and spreads, of channels that are known everywhere."""
        chosen = [name in self.schema.inputs and name not in self.schema.gaps for name in self.schema.channels]
        return EnsembleMoments(self._octaves(), self.schema.channels, self.score_lead_times, chosen)

    def calibration_source(self, splits: Splits) -> SampleSource:
        """Returns the validation split with the lead times of the test split, as far as it is long enough."""
        valid, test = splits.valid, splits.test
        assert isinstance(valid, ForecastSource)
        assert isinstance(test, ForecastSource)
        return valid.with_paths(test.paths)

    def _octaves(self) -> Octaves:
        return Octaves(self.schema, self.area.to(widest_float(self.area.device)))

    def predict(self, model: nn.Module, batch: FieldBatch) -> Prediction:
        states = batch.members
        if states is None:
            # starts of one batch are as independent of each other as those of different batches
            seeds = [seed_of(self.seed, seed) for seed in batch.seeds]
            size = self.perturbation
            states = perturbed(batch.state, self.statistics.std, members=self.members, size=size, seeds=seeds)
        alone = [super(EnsembleTask, self).predict(model, member) for member in batch.members_on(states)]
        carried = torch.stack([prediction.values["fields"] for prediction in alone], dim=1)
        ensemble = self._calibrated(carried, batch.next_lead_time)
        return Prediction({"fields": ensemble.mean(dim=1), "ensemble": ensemble, "carried": carried})

    def advance(self, batch: FieldBatch, prediction: Prediction) -> FieldBatch | None:
        following = super().advance(batch, prediction)
        carried = prediction.values.get("carried")
        return following if following is None or carried is None else replace(following, members=carried)
