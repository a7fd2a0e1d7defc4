"""Judges forecasts in training: one forecast by its squared error, several members by how well they cover the truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from domains.climate.data.schema import ClimateSchema
from domains.climate.data.variables import parse_channel
from sciml.core.errors import ConfigError, nearest
from sciml.core.types import AtLeastOne, Fraction, NonNegative
from sciml.forecast.members import fair_crps

LossName = Literal["mse", "crps"]
LevelWeights = Literal["equal", "pressure"]


@dataclass(frozen=True)
class LossConfig:
    """Says how forecasts are judged in training.

    Attributes:
        loss: ``mse``, the mean squared error of one forecast; ``crps``, the continuous ranked probability score of a
            few members that differ by noise.
        train_members: members of each training sample, for ``crps``.
        noise_dim: length of a member's noise, which enters where the lead time does, for ``crps``.
        mean_first: share of the training, from its beginning, in which one forecast of each sample without noise learns
            the mean by its squared error, at the cost of one member, for ``crps``.
        fairness: 1 judges the members in training as a sample of infinitely many, which is fair; a little less keeps
            them together, for ``crps``.
        spectral_weight: weight of the same score of zonal waves beside that of fields, for ``crps``.
        channel_weights: weights in the loss of channels (``z500``) or variables (``z``); of others 1.
        level_weights: ``equal``, or ``pressure``: channels on pressure levels weigh as the pressure does.
    """

    loss: LossName = "mse"
    train_members: AtLeastOne = 2
    noise_dim: AtLeastOne = 32
    mean_first: Fraction = 0.0
    fairness: Fraction = 0.95
    spectral_weight: NonNegative[float] = 0.0
    channel_weights: dict[str, NonNegative[float]] = field(default_factory=dict)
    level_weights: LevelWeights = "equal"

    def __post_init__(self) -> None:
        if self.is_random and self.train_members < 2:
            raise ConfigError("one member has no spread to learn from", key="task.train_members", hint="use 2")

    @property
    def is_random(self) -> bool:
        """Says whether a model is given noise, so that its forecasts are members of an ensemble."""
        return self.loss == "crps"

    @property
    def noise_length(self) -> int:
        """Returns the length of the noise that a model is given; 0 for a deterministic one."""
        return self.noise_dim if self.is_random else 0


def channel_weights(config: LossConfig, schema: ClimateSchema) -> Float[Tensor, "channel"]:
    """Returns the weight of each channel in the loss; their mean is 1.

    Raises:
        ConfigError: a weight of a channel or variable that the data do not have; nothing that weighs anything.
    """
    channels = [parse_channel(name) for name in schema.channels]
    known = {*schema.channels, *(channel.variable.short for channel in channels)}
    for name in config.channel_weights:
        if name not in known:
            raise ConfigError(
                f"the data have no {name!r}", key="task.channel_weights", hint=nearest(name, sorted(known))
            )
    weights = []
    for name, channel in zip(schema.channels, channels, strict=True):
        of_variable = config.channel_weights.get(channel.variable.short, 1.0)
        weights.append(config.channel_weights.get(name, of_variable))
    if config.level_weights == "pressure":
        levels = [channel.level for channel in channels if channel.level is not None]
        mean = sum(levels) / max(len(levels), 1)
        scale = [1.0 if channel.level is None else channel.level / mean for channel in channels]
        weights = [weight * one for weight, one in zip(weights, scale, strict=True)]
    if not any(weights):
        raise ConfigError("no channel weighs anything", key="task.channel_weights", hint="e.g. {z: 2}")
    together = torch.tensor(weights, dtype=torch.float32)
    return together / together.mean()


class ForecastLoss:
    """Turns errors in normalized units into the mean over area, channels and samples.

    Args:
        area: weight of each cell, with mean 1; cells that do not count have none.

    Attributes:
        learns_mean: whether one forecast of each sample is judged for now, where several members are judged later.
    """

    def __init__(self, config: LossConfig, schema: ClimateSchema, area: Float[Tensor, "latitude _longitude"]) -> None:
        self.config, self.area = config, area
        self.learns_mean = False
        of_channels = channel_weights(config, schema).to(area.device)[:, None, None]
        is_equal = bool((of_channels == 1).all())
        self.weights = area if is_equal else area * of_channels
        # of waves, where cells that do not count have no error
        self.counts = area > 0
        self.rows = (area.sum(-1, keepdim=True) / area.sum() * len(area)) * (1.0 if is_equal else of_channels)

    @property
    def members(self) -> int:
        """Returns how many members of each sample are judged together; 1 where it is the mean that is learned."""
        return self.config.train_members if self.config.is_random and not self.learns_mean else 1

    def __call__(
        self,
        errors: Float[Tensor, "batch channel latitude longitude"],
        known: Bool[Tensor, "batch channel latitude longitude"] | None = None,
    ) -> Float[Tensor, ""]:
        """Returns the loss.

        Args:
            errors: forecasts minus truth; members of a sample stand side by side.
            known: where the truth is known; None for everywhere.
        """
        if known is not None:
            errors = torch.where(known, errors, 0.0)
        if self.members == 1:
            return self._mean(errors.square(), known)
        members = errors.unflatten(0, (-1, self.members))
        seen = None if known is None else known[:: self.members]
        loss = self._mean(fair_crps(members, self.config.fairness), seen)
        if self.config.spectral_weight:
            loss = loss + self.config.spectral_weight * self._of_waves(members)
        return loss

    def _mean(
        self,
        values: Float[Tensor, "sample channel latitude longitude"],
        known: Bool[Tensor, "sample channel latitude longitude"] | None,
    ) -> Float[Tensor, ""]:
        """Returns the weighted mean; of channels with gaps over what is known of the truth."""
        if known is None:
            return (values * self.weights).mean()
        totals = (values * self.weights).sum((0, 2, 3))
        return (totals / (known * self.area).sum((0, 2, 3)).clamp_min(torch.finfo(totals.dtype).tiny)).mean()

    def _of_waves(self, members: Float[Tensor, "sample member channel latitude longitude"]) -> Float[Tensor, ""]:
        """Returns the same score of the real and imaginary parts of zonal waves, so that scales are judged apart.

        Source: Kochkov et al. (2024), https://doi.org/10.1038/s41586-024-07744-y, for scores of both, there with
        spherical harmonics.
        """
        waves = torch.view_as_real(torch.fft.rfft(members * self.counts, norm="ortho"))
        scores = fair_crps(waves, self.config.fairness).sum((-2, -1))[..., None] / members.shape[-1]
        return (scores * self.rows).mean()
