"""The climate model: variables to tokens, the shared ViT, tokens to normalized increments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from domains.climate.data.schema import ClimateSchema
from domains.climate.model.tokenizer import VariableTokenizer
from domains.climate.model.topology import odd_of, topology_of
from sciml.distributed.axes import Role
from sciml.domain.optional import AUTO
from sciml.models.grid_vit import GridViT, HiddenLayers, check_grid_options
from sciml.models.vit import ViTConfig
from sciml.nn.conditioning import CycleEncoding, ScalarEncoding, WaveEncoding
from sciml.nn.initialization import initialize
from sciml.nn.patch import pad_to_patches, patchify, unpatchify
from sciml.nn.position import patch_centers
from sciml.nn.staged import ForwardPass
from sciml.nn.topology import Topology
from sciml.nn.variables import VariableProjection
from sciml.parallel.plan import CopyToRegion, GatherReplicated, Scatter, ShardingPlan, Style

HOURS_PER_DAY = 24.0
HOURS_PER_YEAR = 365.2425 * HOURS_PER_DAY

AXES = ("latitude", "longitude")
ENCODINGS: dict[str, ScalarEncoding] = {
    "lead_time": WaveEncoding(4 * 240.0, 12.0, 16),
    "time_of_day": CycleEncoding(HOURS_PER_DAY, 2),
    "time_of_year": CycleEncoding(HOURS_PER_YEAR, 2),
}
"""Features of the scalars, in hours, that the blocks may be conditioned on."""


class IncrementHead(nn.Module):
    """Maps tokens to pixels of every variable; starts at exactly zero.

    Under autocast the hidden layers run in the trunk's precision and the output projection in float32.

    Args:
        channels: names of the predicted variables.
        config: ``embed_dim``, ``head_depth`` and ``patch_size`` are read.
    """

    def __init__(self, channels: Sequence[str], config: ViTConfig) -> None:
        super().__init__()
        self.hidden = HiddenLayers(config.embed_dim, config.head_depth)
        self.project = VariableProjection(channels, config.patch_size**2, config.embed_dim)

    def forward(
        self, tokens: Float[Tensor, "batch token embed"], names: Sequence[str] | None = None
    ) -> Float[Tensor, "batch token variable pixel"]:
        """Returns pixels of the named variables, or of all."""
        tokens = self.hidden(tokens)
        with torch.autocast(tokens.device.type, enabled=False):
            return self.project(tokens.to(self.project.weight.dtype), names)


class ClimateViT(GridViT):
    """Maps a standardized state to its normalized increment over a lead time.

    An untrained model returns exactly zero, that is persistence. Positions are functions of latitude and longitude:
    the same weights take any grid; one that patches do not divide is continued beyond its last row and column. With
    ``position_features=[latitude]`` and rotations by longitude, turning the state around the axis by whole patches
    turns the forecast with it.

    Args:
        config: sizes and options.
        channels: names of the variables that are predicted.
        constants: names of the variables that are only read: statics, forcings.
        latitude: degrees north of the usual grid's rows.
        longitude: degrees east of its columns.
        inputs: those of the channels that are also read; None for all.
        noise_dim: length of the noise that makes a member of an ensemble; 0 for a deterministic model.

    Raises:
        ConfigError: where an option names something unknown.
    """

    plan: ClassVar[ShardingPlan] = GridViT.plan | ShardingPlan(
        {
            "tokenizer.embedding": Style.REPLICATE_PARTIAL_GRAD,
            "tokenizer.score": Style.COLUMN,
            "tokenizer.value": Style.COLUMN,
            "tokenizer.out": Style.ROW,
            "head.project": Style.REPLICATE_PARTIAL_GRAD,
        },
        inputs={
            "tokenizer": (Scatter(), CopyToRegion()),
            "position": (Scatter(dim=0, axes=(Role.TOKEN, Role.MATRIX)),),
        },
        outputs={"head": GatherReplicated()},
    )
    tokenizer: VariableTokenizer
    head: IncrementHead

    def __init__(
        self,
        config: ViTConfig,
        channels: Sequence[str],
        constants: Sequence[str] = (),
        *,
        latitude: Sequence[float],
        longitude: Sequence[float],
        inputs: Sequence[str] | None = None,
        noise_dim: int = 0,
    ) -> None:
        check_options(config)
        read = tuple(channels if inputs is None else inputs)
        tokenizer = VariableTokenizer((*read, *constants), config.patch_size, config.embed_dim, config.num_heads)
        super().__init__(config, tokenizer, IncrementHead(channels, config), ENCODINGS, noise_dim=noise_dim)
        self.channels, self.constants = tuple(channels), tuple(constants)
        self.inputs = read
        # Plain numbers and no buffers: nothing is lost when the model is built on the meta device.
        self.latitude, self.longitude = tuple(latitude), tuple(longitude)
        initialize(self, torch.initial_seed())

    @classmethod
    def from_schema(
        cls, config: ViTConfig, schema: ClimateSchema, forcings: Sequence[str] = (), noise_dim: int = 0
    ) -> ClimateViT:
        """Builds the model for a store: its channels are predicted, its statics and the forcings only read, and
        diagnostic outputs not read.
        """
        constants = (*schema.statics, *forcings)
        where: dict[str, Any] = {"latitude": schema.latitude, "longitude": schema.longitude}
        return cls(config, schema.channels, constants, **where, inputs=schema.inputs, noise_dim=noise_dim)

    def variable_rows(self) -> dict[str, tuple[str, ...]]:
        """Returns the parameters whose first dim is a block of rows for each variable, with the variables' names.

        A model of other variables takes over the rows of those that it shares.
        """
        rows = {"tokenizer.embedding.weight": self.tokenizer.variables}
        return rows | dict.fromkeys(("head.project.weight", "head.project.bias"), self.channels)

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
        noise: Float[Tensor, "batch noise"] | None = None,
    ) -> ForwardPass:
        """Returns the way from a state to its normalized increment, in parts.

        Args:
            fields: standardized state.
            channel_names: the variables of ``fields``, any of the model's in any order; None for all.
            lead_time: hours to step over.
            time: hours since 1970-01-01 00:00 UTC of the state.
            constants: further standardized input variables, with or without a batch dim.
            constant_names: their names; by default all of the model's constants.
            output_names: variables wanted; by default those of ``fields``.
            latitude, longitude: degrees of another grid than the one given at construction.
            noise: that makes each sample a member of an ensemble; None for the deterministic model.
        """
        grid = (latitude or self.latitude, longitude or self.longitude)
        outputs, shape = output_names or channel_names, (len(grid[0]), len(grid[1]))
        coordinates, topology = self._coordinates(grid, fields.device), topology_of(*grid)
        patches = (-(-shape[0] // self.config.patch_size), -(-shape[1] // self.config.patch_size))

        def embed() -> Float[Tensor, "batch token embed"]:
            return self.embed(fields, channel_names, constants, constant_names, coordinates, topology)

        def decode(tokens: Float[Tensor, "batch token embed"]) -> Float[Tensor, "batch output latitude longitude"]:
            return unpatchify(self.head(tokens, outputs), shape, self.config.patch_size)

        scalars = {"lead_time": lead_time, "time_of_day": time, "time_of_year": time}
        windows = self.trunk.windows(topology, patches, fields.device)
        return self.staged(embed, scalars, decode, self.rotary(coordinates), None, windows, noise=noise)

    def embed(
        self,
        fields: Float[Tensor, "batch channel latitude longitude"],
        channel_names: Sequence[str] | None,
        constants: Float[Tensor, "*batch constant latitude longitude"] | None,
        constant_names: Sequence[str] | None,
        coordinates: Mapping[str, Float[Tensor, "token"]],
        topology: Topology,
    ) -> Float[Tensor, "batch own_token embed"]:
        """Returns this rank's tokens of a state with the embedding of their positions: what the blocks begin with."""
        names = tuple(channel_names or self.inputs)
        if constants is not None and constants.shape[-3]:
            constants = constants.to(fields.dtype).expand(len(fields), -1, -1, -1)
            fields = torch.cat([fields, constants], dim=1)
            names += tuple(self.constants if constant_names is None else constant_names)
        fields = pad_to_patches(fields, self.config.patch_size, topology, odd_of(names))
        tokens = self.tokenizer(patchify(fields, self.config.patch_size), names)
        return tokens if self.position is None else tokens + self.position(self.position_features(coordinates))

    def _coordinates(
        self, grid: tuple[Sequence[float], Sequence[float]], device: torch.device
    ) -> dict[str, Float[Tensor, "token"]]:
        latitude, longitude = (torch.tensor(x, dtype=torch.float64, device=device) for x in grid)
        return patch_centers(latitude, longitude, self.config.patch_size)


def check_options(config: ViTConfig) -> None:
    """Refuses names in a configuration that mean nothing in climate.

    Raises:
        ConfigError: naming the key and the nearest known name.
    """
    blind: dict[str, Any] = {"position_features": ("latitude",), "condition_on": ("lead_time",)}
    left_open = {name: least for name, least in blind.items() if getattr(config, name) == (AUTO,)}
    check_grid_options(replace(config, **left_open), "climate", AXES, ENCODINGS)
