"""Outputs that are predicted and not fed back: precipitation, clouds, gusts, fluxes.

Such a field says what happened on the way, not where the weather stands, so the model is never given it and its whole
value is predicted, standardized, in place of an increment. Precipitation is learned by its logarithm, log(1 + x / x0):
its own values are so skewed that squared errors would see nothing but a few storms.

Source of the logarithm: Pathak et al. (2022), FourCastNet, https://doi.org/10.48550/arXiv.2202.11214, section 2.2.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from domains.climate.data.schema import ClimateSchema, ClimateStatistics
from domains.climate.data.variable import Role
from domains.climate.data.variables import parse_channel


class DiagnosticOutputs:
    """Turns diagnostic fields into what a model learns, and back.

    Args:
        statistics: with mean and standard deviation of what is learned.

    Attributes:
        which: channels that are diagnostic: (channel, 1, 1).
        any: whether there are some.
    """

    def __init__(self, schema: ClimateSchema, statistics: ClimateStatistics) -> None:
        variables = [parse_channel(name).variable for name in schema.channels]
        device = statistics.mean.device
        assert statistics.target_mean is not None
        assert statistics.target_std is not None
        self.mean, self.std = statistics.target_mean[:, None, None], statistics.target_std[:, None, None]

        def column(values: list[float]) -> Float[Tensor, "channel 1 1"]:
            return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]

        self.which: Bool[Tensor, "channel 1 1"] = column([v.role is Role.DIAGNOSTIC for v in variables]).bool()
        self.any = bool(self.which.any())
        self.log_scale = column([variable.log_scale or 0.0 for variable in variables])
        self.low, self.high = (column([variable.bounds[end] for variable in variables]) for end in (0, 1))

    def standardize(
        self, fields: Float[Tensor, "batch channel latitude longitude"]
    ) -> Float[Tensor, "batch channel latitude longitude"]:
        """Returns what a model learns of diagnostic fields; other channels mean nothing in it."""
        scale = self.log_scale.clamp_min(torch.finfo(torch.float32).tiny)
        logarithms = torch.log1p(fields.clamp_min(0.0) / scale)
        return (torch.where(self.log_scale > 0, logarithms, fields) - self.mean) / self.std

    def restore(
        self, output: Float[Tensor, "batch channel latitude longitude"]
    ) -> Float[Tensor, "batch channel latitude longitude"]:
        """Returns diagnostic fields in physical units, within what is possible."""
        values = output * self.std + self.mean
        fields = torch.where(self.log_scale > 0, torch.expm1(values) * self.log_scale, values)
        return torch.minimum(torch.maximum(fields, self.low), self.high)
