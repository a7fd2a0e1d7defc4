"""A U-Net: residual 3x3 convolutions on a few levels of resolution, with skips between them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.types import AtLeastOne
from sciml.models.field_model import FieldModel, FieldModelConfig, Variables, widths_of
from sciml.nn.convolution import Coarsen, GridConv, Refine, ResidualConv, norm_of
from sciml.nn.topology import Topology


@dataclass(frozen=True)
class UNetConfig(FieldModelConfig):
    """Configures a U-Net.

    Attributes:
        widths: channels of the levels, finest first; each level has half the resolution of the one before.
        blocks: residual blocks of a level on the way down, and again on the way up.
    """

    WIDTHS: ClassVar[tuple[str, ...]] = ("widths",)
    kind: str = "unet"
    widths: tuple[int, ...] = (32, 64, 128)
    blocks: AtLeastOne = 1

    def __post_init__(self) -> None:
        widths_of(self.widths, "model.widths")


class UNet(FieldModel):
    """Maps fields to fields by convolutions that see a few cells on each level, and so far on the coarsest.

    Source: Ronneberger et al. (2015), https://doi.org/10.48550/arXiv.1505.04597, with residual blocks.
    """

    config: UNetConfig

    def __init__(self, config: UNetConfig, variables: Variables) -> None:
        super().__init__(config, variables, config.widths[0])

        def level(width: int) -> nn.ModuleList:
            return nn.ModuleList(self.block(width) for _ in range(config.blocks))

        *finer, coarsest = config.widths
        self.down = nn.ModuleList(level(width) for width in finer)
        self.coarsen = nn.ModuleList(Coarsen(fine, coarse) for fine, coarse in pairwise(config.widths))
        self.bottom = level(coarsest)
        self.refine = nn.ModuleList(Refine(coarse, fine) for fine, coarse in pairwise(config.widths))
        self.merge = nn.ModuleList(GridConv(2 * width, width, 1) for width in finer)
        self.up = nn.ModuleList(level(width) for width in finer)
        self.norm = norm_of(config.widths[0])

    def block(self, width: int) -> nn.Module:
        """Returns a block of some channels, to be called with features, condition and topology."""
        return ResidualConv(width, self.config.condition_dim if self.config.condition_on else 0)

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
            joined = torch.cat([self.refine[level](features), skips[level]], dim=1)
            features = self.merge[level](joined, topology)
            for block in self.up[level]:  # type: ignore[attr-defined]
                features = block(features, condition, topology)
        return nn.functional.gelu(self.norm(features, topology))
