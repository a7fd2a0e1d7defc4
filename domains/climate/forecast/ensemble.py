"""Forecasting with an ensemble: perturbed starts carried side by side through every step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from domains.climate.data.batch import FieldBatch
from domains.climate.model.task import ClimateTask
from sciml.core.seeding import seed_of
from sciml.domain.protocol import Prediction
from sciml.forecast.ensemble import perturbed


class EnsembleTask(ClimateTask):
    """Forecasts as the climate task does, with ``members`` that differ by their starts, by noise in a random model,
    or by both; the forecast is their mean.

    Args:
        members: size of the ensemble, the unperturbed member included.
        perturbation: standard deviation of the noise in units of each channel's.
        seed: of the noise, together with that of each sample, and of what the task draws.
    """

    def __init__(self, *arguments: Any, members: int, perturbation: float, seed: int, **options: Any) -> None:
        super().__init__(*arguments, seed=seed, **options)
        self.members, self.perturbation, self.seed = members, perturbation, seed

    def predict(self, model: nn.Module, batch: FieldBatch) -> Prediction:
        states = batch.members
        if states is None:
            # starts of one batch are as independent of each other as those of different batches
            seeds = [seed_of(self.seed, seed) for seed in batch.seeds]
            size = self.perturbation
            states = perturbed(batch.state, self.statistics.std, members=self.members, size=size, seeds=seeds)
        alone = [super(EnsembleTask, self).predict(model, member) for member in batch.members_on(states)]
        ensemble = torch.stack([prediction.values["fields"] for prediction in alone], dim=1)
        return Prediction({"fields": ensemble.mean(dim=1), "ensemble": ensemble})

    def advance(self, batch: FieldBatch, prediction: Prediction) -> FieldBatch | None:
        following = super().advance(batch, prediction)
        ensemble = prediction.values.get("ensemble")
        return following if following is None or ensemble is None else replace(following, members=ensemble)
