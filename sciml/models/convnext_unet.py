"""A U-Net of ConvNeXt blocks: wide depthwise convolutions, and channels mixed cell by cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.errors import ConfigError
from sciml.core.types import AtLeastOne, Positive
from sciml.models.unet import UNet, UNetConfig
from sciml.nn.conditioning import Modulation
from sciml.nn.convolution import GridConv
from sciml.nn.initialization import zeros
from sciml.nn.topology import Topology


@dataclass(frozen=True)
class ConvNeXtUNetConfig(UNetConfig):
    """Configures a U-Net of ConvNeXt blocks.

    Attributes:
        kernel: cells along a side of the depthwise convolutions, odd.
        mlp_ratio: inner over outer channels of a block.
    """

    WIDTHS: ClassVar[tuple[str, ...]] = ("widths",)
    kind: str = "convnext_unet"
    kernel: AtLeastOne = 7
    mlp_ratio: Positive[float] = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise ConfigError(f"a kernel of {self.kernel} cells has no middle", key="model.kernel", hint="7")


class ConvNeXtBlock(nn.Module):
    """Adds a depthwise convolution, followed by two linears in each cell, to its input. Starts as the identity."""

    def __init__(self, num_channels: int, config: ConvNeXtUNetConfig) -> None:
        super().__init__()
        inner = int(num_channels * config.mlp_ratio)
        self.around = GridConv(num_channels, num_channels, config.kernel, groups=num_channels)
        conditioned = bool(config.condition_on)
        self.norm = nn.LayerNorm(num_channels, elementwise_affine=not conditioned)
        self.modulation = Modulation(config.condition_dim, num_channels, 2) if conditioned else None
        self.up = nn.Linear(num_channels, inner)
        self.down = zeros(nn.Linear(inner, num_channels))

    def forward(
        self,
        x: Float[Tensor, "batch channel row column"],
        condition: Float[Tensor, "batch condition"] | None,
        topology: Topology,
    ) -> Float[Tensor, "batch channel row column"]:
        h = self.norm(self.around(x, topology).movedim(1, -1))
        if self.modulation is not None:
            shift, scale = (part.unsqueeze(1) for part in self.modulation(condition))
            h = torch.addcmul(shift, h, 1 + scale)
        return x + self.down(F.gelu(self.up(h))).movedim(-1, 1)


class ConvNeXtUNet(UNet):
    """Maps fields to fields by ConvNeXt blocks on a few levels of resolution.

    Source: Liu et al. (2022), https://doi.org/10.48550/arXiv.2201.03545; as a U-Net, Ohana et al. (2024),
    https://doi.org/10.48550/arXiv.2412.00568.
    """

    config: ConvNeXtUNetConfig

    def block(self, width: int) -> nn.Module:
        return ConvNeXtBlock(width, self.config)
