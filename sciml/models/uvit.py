"""The shared vision transformer between convolutions: fine detail by convolutions, the whole grid by attention.

Residual convolutions work on small squares of cells; larger patches of their features are the tokens of the trunk; what
the trunk returns is joined with the features it came from, and convolved once more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.config import divides
from sciml.core.errors import ConfigError
from sciml.core.types import AtLeastOne, NonNegative
from sciml.distributed.axes import Role
from sciml.models.field_model import FieldInputs, FieldModel, Variables
from sciml.models.tiles import Tiles
from sciml.models.vit import ViT, ViTConfig
from sciml.nn.convolution import Coarsen, GridConv, Refine, ResidualConv, norm_of
from sciml.nn.position import Rotary, coordinate_rotary
from sciml.nn.staged import Activations, ForwardPass, Place, SharedGrid
from sciml.parallel.plan import AllGather, Average, CopyToRegion, OwnChannels, Scatter, ShardingPlan, Stages, Style

TOKENS = (Role.TOKEN, Role.MATRIX)
CONVOLUTIONS = ("down", "enter", "leave", "up")
"""Names of the lists of residual convolutions."""
OF_A_CONVOLUTION = {
    "first": Style.COLUMN,
    "middle_norm": Style.COLUMN,
    "second": Style.ROW,
    **dict.fromkeys(("norm", "spectral", "modulation.linear"), Style.REPLICATE_PARTIAL_GRAD),
}
"""How ranks share one: each has some of the channels between its two convolutions."""


@dataclass(frozen=True)
class UViTConfig(ViTConfig):
    """Configures a vision transformer between convolutions.

    Attributes:
        square: cells along a side of the squares that the convolutions work on; it divides ``patch_size``.
        conv_width: channels of the convolutions.
        conv_depth: residual convolutions before the trunk, and again behind it.
        token_convs: residual convolutions among the tokens of the trunk, before it and again behind it.
        modes: the longest waves along rows and columns that the residual convolutions on squares weigh besides, so that
            each of them sees the whole grid; none where it is empty.
        tiles: along rows and columns; the model sees the grid tile by tile. Empty: the grid at once.
        halo: patches around a tile that it sees besides.
    """

    WIDTHS: ClassVar[tuple[str, ...]] = ("embed_dim", "conv_width")
    kind: str = "uvit"
    square: AtLeastOne = 2
    conv_width: AtLeastOne = 64
    conv_depth: NonNegative[int] = 1
    token_convs: NonNegative[int] = 0
    modes: tuple[AtLeastOne, ...] = ()
    tiles: tuple[AtLeastOne, ...] = ()
    halo: NonNegative[int] = 2
    condition_on: tuple[str, ...] = ("lead_time",)
    position_features: tuple[str, ...] = ()
    rotary_axes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        divides(self.square, self.patch_size, key="model.square", of="model.patch_size")
        if len(self.modes) not in (0, 2):
            raise ConfigError(
                f"must be two numbers of waves, along rows and columns, or none, got {list(self.modes)}",
                key="model.modes",
                hint="[8, 12]",
            )
        if len(self.tiles) not in (0, 2):
            raise ConfigError(
                f"must be two numbers of tiles, along rows and columns, or none, got {list(self.tiles)}",
                key="model.tiles",
                hint="[2, 4]",
            )


class UViT(FieldModel):
    """Maps fields to fields by the shared ViT on patches, with convolutions on smaller squares before and behind it.

    Outside of the trunk, ranks that share tokens share the rows of the grid, and ranks that share matrices the channels
    between the two convolutions of each residual one. What these compute alike, each takes an equal part of the
    gradient of.

    Source: Hoogeboom et al. (2023), https://doi.org/10.48550/arXiv.2301.11093, for the form.
    """

    plan: ClassVar[ShardingPlan] = ViT.plan.within("trunk") | ShardingPlan(
        {
            **dict.fromkeys(
                ("stem", "position", "condition.*", "coarsen", "refine", "merge", "norm", "head"),
                Style.REPLICATE_PARTIAL_GRAD,
            ),
            **{f"{name}.*.{part}": style for name in CONVOLUTIONS for part, style in OF_A_CONVOLUTION.items()},
        },
        inputs={
            **{f"{name}.*.own": (OwnChannels(),) for name in CONVOLUTIONS},
            "stem": (CopyToRegion(),),  # for rollouts, whose gradient goes on into the step before
            "own": (Scatter(axes=TOKENS, partial=True),),
            "whole": (AllGather(axes=TOKENS),),
        },
        outputs={"head": Average(axes=(Role.MATRIX,))},  # ranks that share tokens have rows of their own
        grids=("shared",),
        stages=Stages(
            first=("stem", "position", "condition", "down", "coarsen", "enter"),
            last=("leave", "refine", "merge", "up", "norm", "head"),
        ),
    )
    config: UViTConfig

    def __init__(self, config: UViTConfig, variables: Variables) -> None:
        super().__init__(config, variables, config.conv_width)
        dim = config.condition_dim if config.is_conditioned else 0

        def convolutions(number: int, width: int, *modes: int) -> nn.ModuleList:
            waves = (modes[0], modes[1]) if modes else None
            return nn.ModuleList(ResidualConv(width, dim, waves) for _ in range(number))

        width, embed, factor = config.conv_width, config.embed_dim, config.patch_size // config.square
        self.shared = SharedGrid()
        self.down = convolutions(config.conv_depth, width, *config.modes)
        self.coarsen = Coarsen(width, embed, factor)
        self.enter = convolutions(config.token_convs, embed)
        self.own = Place()
        self.trunk = ViT(config)
        self.whole = Place()
        self.leave = convolutions(config.token_convs, embed)
        self.refine = Refine(embed, width, factor)
        self.merge = GridConv(2 * width, width, 1)
        self.up = convolutions(config.conv_depth, width, *config.modes)
        self.norm = norm_of(width)

    @property
    def multiple(self) -> int:
        return self.config.patch_size

    @property
    def blocks(self) -> Iterable[nn.Module]:
        return self.trunk.blocks

    def forward_pass(self, inputs: FieldInputs) -> ForwardPass:
        """Returns the way from fields to fields, which can be cut between the trunk's blocks."""
        config = self.config
        if not config.tiles:
            return self.untiled_pass(inputs)
        rows, columns = inputs.fields.shape[-2:]
        number, halo = (config.tiles[0], config.tiles[1]), config.halo * config.patch_size
        tiles = Tiles((rows, columns), number, halo, config.patch_size)
        of_tiles = self.untiled_pass(tiles.cut(inputs))
        return replace(of_tiles, head=lambda *activations: tiles.join(of_tiles.head(*activations)))

    def untiled_pass(self, inputs: FieldInputs) -> ForwardPass:
        """Returns the way from fields to fields of a grid that is seen at once.

        The features that the convolutions behind the trunk are joined with pass from stage to stage beside the tokens.
        """
        rows, columns = (-(-count // self.config.patch_size) for count in inputs.fields.shape[-2:])
        topology = self.shared(inputs.topology, rows)

        def embed() -> Activations:
            condition = self.embed_condition(inputs)
            features = self.embed_fields(inputs, topology)
            for block in self.down:
                features = block(features, condition, topology)
            tokens = self.coarsen(features)
            for block in self.enter:
                tokens = block(tokens, condition, topology)
            first = self.own(topology.gathered(tokens).flatten(2).transpose(1, 2))
            return (first, features) if condition is None else (first, condition, features)

        def head(
            tokens: Float[Tensor, "batch token embed"], *rest: Float[Tensor, "batch ..."]
        ) -> Float[Tensor, "batch output row column"]:
            *conditions, features = rest
            condition = conditions[0] if conditions else None
            tokens = self.whole(self.trunk.finish(tokens, condition))
            coarse = topology.own(tokens.transpose(1, 2).unflatten(2, (rows, columns)))
            for block in self.leave:
                coarse = block(coarse, condition, topology)
            features = self.merge(torch.cat([self.refine(coarse), features], dim=1), topology)
            for block in self.up:
                features = block(features, condition, topology)
            return self.decode(F.gelu(self.norm(features, topology)), inputs, topology)

        windows = self.trunk.windows(inputs.topology, (rows, columns), inputs.fields.device)
        context = (self.rotary(inputs), None, windows)
        return ForwardPass(embed, head, context if self.config.is_conditioned else (None, *context), carried=1)

    def rotary(self, inputs: FieldInputs) -> Rotary | None:
        """Returns the rotations of queries and keys at the patches' centers, or None without any."""
        config = self.config
        if not config.rotary_axes:
            return None
        angles = {name: angle.flatten(-2) for name, angle in self.square_angles(inputs, config.patch_size).items()}
        return coordinate_rotary(angles, config.rotary_axes, config.head_dim, config.rotary_max_harmonic)
