"""The kinds of models from fields to fields, and how one is built from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.errors import ConfigError
from sciml.models.convnext_unet import ConvNeXtUNet, ConvNeXtUNetConfig
from sciml.models.field_model import FieldModel, Variables
from sciml.models.fno import FNO, FNOConfig
from sciml.models.unet import UNet, UNetConfig
from sciml.models.uvit import UViT, UViTConfig
from sciml.nn.initialization import initialize
from sciml.nn.staged import ForwardPass
from sciml.parallel.config import ParallelConfig
from sciml.parallel.plan import ShardingPlan

FieldConfig = UViTConfig | UNetConfig | ConvNeXtUNetConfig | FNOConfig

FIELD_KINDS: Mapping[str, type] = {
    "uvit": UViTConfig,
    "unet": UNetConfig,
    "convnext_unet": ConvNeXtUNetConfig,
    "fno": FNOConfig,
}
"""The dataclass of each kind's keys under ``model``."""


def check_schedule(config: Any, parallel: ParallelConfig) -> None:
    """Refuses a pipeline schedule that a model cannot go through.

    Raises:
        ConfigError: features that pass by the blocks never reach the last stage of zero-bubble's V.
    """
    if parallel.pp > 1 and parallel.schedule == "zero_bubble" and isinstance(config, UViTConfig):
        raise ConfigError(
            "features that pass by the blocks cannot go through this schedule", key="parallel.schedule", hint="use 1f1b"
        )


def build_field_model(config: FieldConfig, variables: Variables) -> FieldModel:
    """Builds the model that a configuration describes.

    Raises:
        ConfigError: where an option names something that the domain does not have.
    """
    if isinstance(config, UViTConfig):
        return UViT(config, variables)
    if isinstance(config, ConvNeXtUNetConfig):
        return ConvNeXtUNet(config, variables)
    if isinstance(config, UNetConfig):
        return UNet(config, variables)
    return FNO(config, variables)


class FieldForecaster(nn.Module):
    """Holds a model from fields to fields for a domain, which says by ``forward_pass`` what the model is given.

    An untrained model returns exactly zero.

    Args:
        config: of the model; its kind decides which.
        variables: names of what is read and predicted.

    Raises:
        ConfigError: where an option names something that the domain does not have.
    """

    def __init__(self, config: FieldConfig, variables: Variables) -> None:
        super().__init__()
        self.variables = variables
        self.net = build_field_model(config, variables)
        initialize(self, torch.initial_seed())

    @property
    def plan(self) -> ShardingPlan | None:
        """Returns how the model can be cut over a mesh; None where its kind cannot."""
        plan: ShardingPlan | None = getattr(self.net, "plan", None)
        return None if plan is None else plan.within("net")

    def variable_rows(self) -> dict[str, tuple[str, ...]]:
        """Returns the parameters whose first dim is a block of rows for each variable, with the variables' names.

        A model of other variables takes over the rows of those that it shares.
        """
        rows = {"net.stem.weight": self.variables.read}
        return rows | dict.fromkeys(("net.head.weight", "net.head.bias"), self.variables.predicted)

    def forward(self, *args: Any, **kwargs: Any) -> Float[Tensor, "batch output row column"]:
        """Returns the predicted fields; takes what the domain's ``forward_pass`` takes."""
        return self.forward_pass(*args, **kwargs).run(self.net.blocks)

    def forward_pass(self, *args: Any, **kwargs: Any) -> ForwardPass:
        """Returns the way from a state to the prediction, in parts; each domain has its own arguments."""
        raise TypeError(f"{type(self).__name__} does not say what its model is given")
