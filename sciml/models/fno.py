"""A Fourier neural operator: every layer weighs the longest waves of its features, and so sees the whole grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.errors import ConfigError
from sciml.core.types import AtLeastOne, NonNegative
from sciml.models.field_model import FieldModel, FieldModelConfig, Variables
from sciml.nn.conditioning import Modulation
from sciml.nn.convolution import GridConv
from sciml.nn.spectral import SpectralConv
from sciml.nn.spherical import SphericalConv
from sciml.nn.topology import Topology


@dataclass(frozen=True)
class FNOConfig(FieldModelConfig):
    """Configures a Fourier neural operator.

    Attributes:
        width: channels.
        depth: layers.
        modes: the longest waves along rows and columns that a layer weighs; shorter ones are left out.
        degrees: of spherical harmonics that a layer weighs in place of waves along rows and columns, on a globe; 0 has
            none.
    """

    WIDTHS: ClassVar[tuple[str, ...]] = ("width",)
    kind: str = "fno"
    width: AtLeastOne = 32
    depth: AtLeastOne = 4
    modes: tuple[AtLeastOne, AtLeastOne] = (10, 12)
    degrees: NonNegative[int] = 0

    def __post_init__(self) -> None:
        if self.degrees and self.square != 1:
            raise ConfigError("spherical harmonics are those of single cells", key="model.square", hint="use 1")


class FourierLayer(nn.Module):
    """Adds a spectral and a pointwise convolution, bent and mixed once more, to its input."""

    def __init__(self, config: FNOConfig) -> None:
        super().__init__()
        width, degrees = config.width, config.degrees
        self.spectral = SphericalConv(width, degrees) if degrees else SpectralConv(width, config.modes)
        self.pointwise = GridConv(config.width, config.width, 1)
        self.modulation = Modulation(config.condition_dim, config.width, 2) if config.condition_on else None
        self.out = GridConv(config.width, config.width, 1)

    def forward(
        self,
        x: Float[Tensor, "batch channel row column"],
        condition: Float[Tensor, "batch condition"] | None,
        topology: Topology,
    ) -> Float[Tensor, "batch channel row column"]:
        h = self.spectral(x, topology) + self.pointwise(x, topology)
        if self.modulation is not None:
            shift, scale = (part.movedim(1, 2).unsqueeze(-1) for part in self.modulation(condition))
            h = torch.addcmul(shift, h, 1 + scale)
        return x + self.out(F.gelu(h), topology)


class FNO(FieldModel):
    """Maps fields to fields by layers that act on waves, or on spherical harmonics.

    Source: Li et al. (2020), https://doi.org/10.48550/arXiv.2010.08895; see also :mod:`sciml.nn.spherical`.
    """

    config: FNOConfig

    def __init__(self, config: FNOConfig, variables: Variables) -> None:
        super().__init__(config, variables, config.width)
        self.layers = nn.ModuleList(FourierLayer(config) for _ in range(config.depth))

    def body(
        self,
        features: Float[Tensor, "batch feature _row _column"],
        condition: Float[Tensor, "batch condition"] | None,
        topology: Topology,
    ) -> Float[Tensor, "batch feature _row _column"]:
        for layer in self.layers:
            features = layer(features, condition, topology)
        return F.gelu(features)
