"""A U-Net of ConvNeXt blocks: wide depthwise convolutions, and channels mixed cell by cell."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.types import AtLeastOne, Positive
from sciml.models.field_model import FieldModel, FieldModelConfig, Variables, widths_of
from sciml.nn.conditioning import Modulation
from sciml.nn.convolution import Coarsen, GridConv, Refine
from sciml.nn.initialization import zeros
from sciml.nn.topology import Topology


@dataclass(frozen=True)
class ConvNeXtUNetConfig(FieldModelConfig):
    """Configures a U-Net of ConvNeXt blocks.

    Attributes:
        widths: channels of the levels, finest first; each level has half the resolution of the one before.
        blocks: blocks of a level on the way down, and again on the way up.
        kernel: cells along a side of the depthwise convolutions, odd.
        mlp_ratio: inner over outer channels of a block.
    """

    kind: str = "convnext_unet"
    widths: tuple[int, ...] = (32, 64, 128)
    blocks: AtLeastOne = 1
    kernel: AtLeastOne = 7
    mlp_ratio: Positive[float] = 4.0

    def __post_init__(self) -> None:
        widths_of(self.widths, "model.widths")


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


class ConvNeXtUNet(FieldModel):
    """Maps fields to fields by ConvNeXt blocks on a few levels of resolution.

    Source: Liu et al. (2022), https://doi.org/10.48550/arXiv.2201.03545; as a U-Net, Ohana et al. (2024),
    https://doi.org/10.48550/arXiv.2412.00568.
    """

    config: ConvNeXtUNetConfig

    def __init__(self, config: ConvNeXtUNetConfig, variables: Variables) -> None:
        super().__init__(config, variables, config.widths[0])

        def level(width: int) -> nn.ModuleList:
            return nn.ModuleList(ConvNeXtBlock(width, config) for _ in range(config.blocks))

        *finer, coarsest = config.widths
        self.down = nn.ModuleList(level(width) for width in finer)
        self.coarsen = nn.ModuleList(Coarsen(fine, coarse) for fine, coarse in pairwise(config.widths))
        self.bottom = level(coarsest)
        self.refine = nn.ModuleList(Refine(coarse, fine) for fine, coarse in pairwise(config.widths))
        self.up = nn.ModuleList(level(width) for width in finer)

    @property
    def multiple(self) -> int:
        return self.config.square * 2 ** (len(self.config.widths) - 1)

    def body(
        self,
        features: Float[Tensor, "batch feature _row _column"],
        condition: Float[Tensor, "batch condition"] | None,
        topology: Topology,
    ) -> Float[Tensor, "batch feature _row _column"]:
        skips = []
        for blocks, coarsen in zip(self.down, self.coarsen, strict=True):
            for block in blocks:  # type: ignore[attr-defined]
                features = block(features, condition, topology)
            skips.append(features)
            features = coarsen(features)
        for block in self.bottom:
            features = block(features, condition, topology)
        for level in reversed(range(len(skips))):
            features = self.refine[level](features) + skips[level]
            for block in self.up[level]:  # type: ignore[attr-defined]
                features = block(features, condition, topology)
        return features
