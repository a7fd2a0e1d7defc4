"""The kinds of models from fields to fields, and how one is built from its configuration."""

from __future__ import annotations

from collections.abc import Mapping

from sciml.models.convnext_unet import ConvNeXtUNet, ConvNeXtUNetConfig
from sciml.models.field_model import FieldModel, Variables
from sciml.models.fno import FNO, FNOConfig
from sciml.models.unet import UNet, UNetConfig
from sciml.models.uvit import UViT, UViTConfig

FieldConfig = UViTConfig | UNetConfig | ConvNeXtUNetConfig | FNOConfig

FIELD_KINDS: Mapping[str, type] = {
    "uvit": UViTConfig,
    "unet": UNetConfig,
    "convnext_unet": ConvNeXtUNetConfig,
    "fno": FNOConfig,
}
"""The dataclass of each kind's keys under ``model``."""


def build_field_model(config: FieldConfig, variables: Variables) -> FieldModel:
    """Builds the model that a configuration describes.

    Raises:
        ConfigError: where an option names something that the domain does not have.
    """
    if isinstance(config, UViTConfig):
        return UViT(config, variables)
    if isinstance(config, UNetConfig):
        return UNet(config, variables)
    if isinstance(config, ConvNeXtUNetConfig):
        return ConvNeXtUNet(config, variables)
    return FNO(config, variables)
