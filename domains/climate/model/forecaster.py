"""The climate model: variables to tokens, the shared ViT, tokens to normalized increments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from domains.climate.data.schema import ClimateSchema
from domains.climate.model.tokenizer import VariableTokenizer, variable_index
from sciml.core.errors import ConfigError, nearest
from sciml.models.vit import ViT, ViTConfig
from sciml.nn.conditioning import ConditionEmbedding, cycle_features, scalar_features
from sciml.nn.initialization import initialize, zeros
from sciml.nn.patch import check_patches, patchify, unpatchify
from sciml.nn.position import Rotary, check_axes, fourier_features, patch_centers, sphere_rotary
from sciml.nn.staged import Flow, ForwardPass
from sciml.parallel.plan import (
    AllGather,
    AllToAll,
    CopyToRegion,
    GatherReplicated,
    Scatter,
    ShardingPlan,
    Stages,
    Style,
)

HOURS_PER_DAY = 24.0
HOURS_PER_YEAR = 365.2425 * HOURS_PER_DAY

# Scalars that the blocks may be conditioned on, and the number of features of each.
LEAD_FEATURES, CYCLE_HARMONICS = 16, 2
CONDITION_FEATURES = {
    "lead_time": LEAD_FEATURES,
    "time_of_day": 2 * CYCLE_HARMONICS,
    "time_of_year": 2 * CYCLE_HARMONICS,
}
LONGEST_LEAD_H, SHORTEST_LEAD_H = 4 * 240.0, 12.0


def condition_features(
    names: Sequence[str], lead_time: Float[Tensor, "batch"], time: Float[Tensor, "batch"]
) -> Float[Tensor, "batch feature"]:
    """Features of the named scalars.

    Args:
        names: keys of ``CONDITION_FEATURES``.
        lead_time: hours that the model is to step over.
        time: hours since 1970-01-01 00:00 UTC of the state.
    """
    parts = {
        "lead_time": lambda: scalar_features(lead_time, LONGEST_LEAD_H, SHORTEST_LEAD_H, LEAD_FEATURES),
        "time_of_day": lambda: cycle_features(time, HOURS_PER_DAY, CYCLE_HARMONICS),
        "time_of_year": lambda: cycle_features(time, HOURS_PER_YEAR, CYCLE_HARMONICS),
    }
    return torch.cat([parts[name]() for name in names], dim=-1)


class IncrementHead(nn.Module):
    """Tokens to pixels of every variable; starts at exactly zero.

    Under autocast the hidden layers run in the trunk's precision and the output projection in float32.

    Args:
        channels: names of the predicted variables.
        config: ``embed_dim``, ``head_depth`` and ``patch_size`` are read.
    """

    def __init__(self, channels: Sequence[str], config: ViTConfig) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.num_pixels = config.patch_size**2
        self.hidden = nn.ModuleList(nn.Linear(config.embed_dim, config.embed_dim) for _ in range(config.head_depth))
        self.project = zeros(nn.Linear(config.embed_dim, len(self.channels) * self.num_pixels))

    def forward(
        self, tokens: Float[Tensor, "batch token embed"], names: Sequence[str] | None = None
    ) -> Float[Tensor, "batch token variable pixel"]:
        """Pixels of the named variables, or of all."""
        for linear in self.hidden:
            tokens = F.gelu(linear(tokens))
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.to(self.project.weight.dtype)
            index = variable_index(self.channels, names)
            if index is None:
                pixels = self.project(tokens)
            else:  # rows of the chosen variables only
                weight = self.project.weight.unflatten(0, (-1, self.num_pixels))[index].flatten(0, 1)
                bias = self.project.bias.unflatten(0, (-1, self.num_pixels))[index].flatten()
                pixels = F.linear(tokens, weight, bias)
        return pixels.unflatten(-1, (-1, self.num_pixels))


class ClimateViT(nn.Module):
    """From a standardized state to its normalized increment over a lead time.

    An untrained model returns exactly zero, that is persistence. Positions are functions of latitude and
    longitude: the same weights take any grid that the patch size divides. With ``position_features=[latitude]``
    and rotations by longitude, turning the state around the axis by whole patches turns the forecast with it.

    Args:
        config: sizes and options.
        channels: names of the prognostic variables, read and predicted.
        constants: names of the variables that are only read: statics, forcings.
        latitude: degrees north of the usual grid's rows.
        longitude: degrees east of its columns.

    Raises:
        ConfigError: where the patch size does not divide the grid, or an option names something unknown.
    """

    plan: ClassVar[ShardingPlan] = ViT.plan.within("trunk") | ShardingPlan(
        {
            "tokenizer.embedding": Style.REPLICATE_PARTIAL_GRAD,
            "tokenizer.score": Style.COLUMN,
            "tokenizer.value": Style.COLUMN,
            "tokenizer.out": Style.ROW,
            "position": Style.REPLICATE_PARTIAL_GRAD,
            "condition.*": Style.REPLICATE_PARTIAL_GRAD,
            "head.hidden.*": Style.COLUMN,
            "head.project": Style.REPLICATE_PARTIAL_GRAD,
        },
        inputs={
            "tokenizer": (Scatter(), CopyToRegion()),
            "position": (Scatter(dim=0, axes=("sp", "tp")),),
            "head.hidden.*": (AllGather(),),
        },
        outputs={"head.hidden.*": AllToAll(), "head": GatherReplicated()},
        stages=Stages(first=("tokenizer", "position", "condition"), last=("head",)),
    )

    def __init__(
        self,
        config: ViTConfig,
        channels: Sequence[str],
        constants: Sequence[str] = (),
        *,
        latitude: Sequence[float],
        longitude: Sequence[float],
    ) -> None:
        super().__init__()
        check_options(config)
        check_patches((len(latitude), len(longitude)), config.patch_size)
        self.config = config
        self.channels, self.constants = tuple(channels), tuple(constants)
        # Plain numbers and no buffers: nothing is lost when the model is built on the meta device.
        self.latitude, self.longitude = tuple(latitude), tuple(longitude)
        dim, axes = config.embed_dim, config.position_features
        variables = self.channels + self.constants
        self.tokenizer = VariableTokenizer(variables, config.patch_size, dim, config.num_heads)
        self.position = nn.Linear(2 * len(axes) * config.position_harmonics, dim, bias=False) if axes else None
        num_features = sum(CONDITION_FEATURES[name] for name in config.condition_on)
        self.condition = ConditionEmbedding(num_features, config.condition_dim) if config.is_conditioned else None
        self.trunk = ViT(config)
        self.head = IncrementHead(self.channels, config)
        initialize(self, torch.initial_seed())

    @classmethod
    def from_schema(cls, config: ViTConfig, schema: ClimateSchema, forcings: Sequence[str] = ()) -> ClimateViT:
        """The model for a store: its channels are predicted, its statics and the forcings only read."""
        constants = (*schema.statics, *forcings)
        return cls(config, schema.channels, constants, latitude=schema.latitude, longitude=schema.longitude)

    def variable_rows(self) -> dict[str, tuple[str, ...]]:
        """Parameters whose first dim is a block of rows for each variable, with the variables' names.

        A model of other variables takes over the rows of those that it shares.
        """
        rows = {"tokenizer.embedding.weight": self.tokenizer.variables}
        return rows | dict.fromkeys(("head.project.weight", "head.project.bias"), self.channels)

    def forward(self, *args: Any, **kwargs: Any) -> Float[Tensor, "batch output latitude longitude"]:
        """Normalized increments, float32 (or the weights' precision where that is higher).

        Takes what :meth:`forward_pass` takes.
        """
        return self.forward_pass(*args, **kwargs).run(self.trunk.blocks)

    def forward_pass(
        self,
        fields: Float[Tensor, "batch channel latitude longitude"],
        channel_names: Sequence[str] | None,
        lead_time: Float[Tensor, "batch"],
        time: Float[Tensor, "batch"],
        constants: Float[Tensor, "*batch constant latitude longitude"] | None = None,
        *,
        constant_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
        latitude: Sequence[float] | None = None,
        longitude: Sequence[float] | None = None,
    ) -> ForwardPass:
        """The way from a state to its normalized increment, in parts.

        Args:
            fields: standardized state.
            channel_names: the variables of ``fields``, any of the model's in any order; None for all.
            lead_time: hours to step over.
            time: hours since 1970-01-01 00:00 UTC of the state.
            constants: further standardized input variables, with or without a batch dim.
            constant_names: their names; by default all of the model's constants.
            output_names: variables wanted; by default those of ``fields``.
            latitude, longitude: degrees of another grid than the one given at construction.
        """
        check_patches((fields.shape[-2], fields.shape[-1]), self.config.patch_size)
        grid = (latitude or self.latitude, longitude or self.longitude)
        outputs, shape = output_names or channel_names, (len(grid[0]), len(grid[1]))
        rotary = self.rotary(grid, fields.device)

        def begin() -> Flow:
            tokens = self.embed(fields, channel_names, constants, constant_names, grid)
            condition = self.embed_condition(lead_time, time)
            return (tokens,) if condition is None else (tokens, condition)

        def end(tokens: Tensor, condition: Tensor | None = None) -> Tensor:
            return self.decode(self.trunk.finish(tokens, condition), outputs, shape)

        return ForwardPass(begin, end, (rotary,) if self.config.is_conditioned else (None, rotary))

    def embed(
        self,
        fields: Float[Tensor, "batch channel latitude longitude"],
        channel_names: Sequence[str] | None,
        constants: Float[Tensor, "*batch constant latitude longitude"] | None,
        constant_names: Sequence[str] | None,
        grid: tuple[Sequence[float], Sequence[float]],
    ) -> Float[Tensor, "batch token embed"]:
        """Tokens of a state with the embedding of their positions: what stands before the blocks."""
        names = tuple(channel_names or self.channels)
        if constants is not None and constants.shape[-3]:
            constants = constants.to(fields.dtype).expand(len(fields), -1, -1, -1)
            fields = torch.cat([fields, constants], dim=1)
            names += tuple(self.constants if constant_names is None else constant_names)
        tokens = self.tokenizer(patchify(fields, self.config.patch_size), names)
        if self.position is None:
            return tokens
        features = fourier_features(
            self._centers(grid, fields.device), self.config.position_features, self.config.position_harmonics
        )
        return tokens + self.position(features.to(self.position.weight.dtype))

    def embed_condition(
        self, lead_time: Float[Tensor, "batch"], time: Float[Tensor, "batch"]
    ) -> Float[Tensor, "batch condition"] | None:
        """The vector that modulates every block, or None where the model is not conditioned."""
        if self.condition is None:
            return None
        features = condition_features(self.config.condition_on, lead_time, time)
        return self.condition(features.to(self.condition.first.weight.dtype))

    def rotary(self, grid: tuple[Sequence[float], Sequence[float]], device: torch.device) -> Rotary | None:
        """Rotations of queries and keys for a grid, or None where there are none."""
        axes = self.config.rotary_axes
        if not axes:
            return None
        centers = self._centers(grid, device)
        return sphere_rotary(centers, axes, self.config.head_dim, self.config.rotary_max_harmonic)

    def decode(
        self,
        tokens: Float[Tensor, "batch token embed"],
        output_names: Sequence[str] | None,
        grid_shape: tuple[int, int],
    ) -> Float[Tensor, "batch output latitude longitude"]:
        """Fields of the trunk's tokens: what stands behind the blocks."""
        return unpatchify(self.head(tokens, output_names), grid_shape, self.config.patch_size)

    def _centers(
        self, grid: tuple[Sequence[float], Sequence[float]], device: torch.device
    ) -> dict[str, Float[Tensor, "token"]]:
        latitude, longitude = (torch.tensor(x, dtype=torch.float64, device=device) for x in grid)
        return patch_centers(latitude, longitude, self.config.patch_size)


def check_options(config: ViTConfig) -> None:
    """Refuses names in a configuration that mean nothing in climate.

    Raises:
        ConfigError: naming the key and the nearest known name.
    """
    check_axes(config.position_features, "model.position_features")
    check_axes(config.rotary_axes, "model.rotary_axes")
    for name in config.condition_on:
        if name not in CONDITION_FEATURES:
            raise ConfigError(
                f"climate cannot condition on {name!r}",
                key="model.condition_on",
                hint=nearest(name, CONDITION_FEATURES),
            )
