"""ClimaX: a vision transformer with learned positions, a token for every variable and one query that mixes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from domains.climate.data.regrid import LatLonGrid
from domains.climate.data.schema import ClimateSchema
from domains.climate.model.forecaster import IncrementHead
from domains.climate.model.tokenizer import VariableTokenizer
from domains.climate.model.topology import odd_of, topology_of
from sciml.core.errors import ConfigError
from sciml.core.types import AtLeastOne, FractionBelowOne, NonNegative, Positive
from sciml.distributed.axes import Role
from sciml.models.vit import ViT, ViTConfig
from sciml.nn.initialization import initialize, starts_as
from sciml.nn.patch import pad_to_patches, patchify, unpatchify
from sciml.nn.recompute import Recompute
from sciml.nn.staged import Activations, ForwardPass
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

LEAD_TIME_UNIT_H = 100.0
"""Hours that a lead time of 1 stands for inside the model."""

Predicts = Literal["increment", "state"]


@dataclass(frozen=True)
class ClimaXConfig:
    """Configures a ClimaX; the defaults are those of the published models of 5.625 degrees.

    Attributes:
        kind: name of the model family, by which a domain knows it.
        embed_dim: channels of a token; a multiple of ``num_heads``.
        depth: number of blocks.
        num_heads: attention heads; also those of the attention over variables.
        mlp_ratio: width of the feed-forward part over ``embed_dim``.
        patch_size: rows and columns of a patch.
        head_depth: Linear + GELU layers before the output projection.
        dropout: probability with which tokens, attention weights and outputs of a half block are dropped.
        drop_path: probability with which the last block's halves are left out; grows linearly from 0.
        predicts: what the output is: the normalized ``increment``, which a new model predicts to be zero, or the
            standardized ``state`` at the end of the step, as the published models do.
        recompute: ``none``, ``selective`` or ``full``; what the backward pass computes again.
    """

    practical: ClassVar[tuple[str, ...]] = ("recompute",)

    WIDTHS: ClassVar[tuple[str, ...]] = ("embed_dim",)
    kind: str = "climax"
    embed_dim: AtLeastOne = 1024
    depth: AtLeastOne = 8
    num_heads: AtLeastOne = 16
    mlp_ratio: Positive[float] = 4.0
    patch_size: AtLeastOne = 2
    head_depth: NonNegative[int] = 2
    dropout: FractionBelowOne = 0.1
    drop_path: FractionBelowOne = 0.1
    predicts: Predicts = "increment"
    recompute: Recompute = "none"

    def __post_init__(self) -> None:
        _ = self.trunk  # refuses sizes that do not fit each other

    @property
    def trunk(self) -> ViTConfig:
        """Returns the configuration of tokenizer, blocks and head, as the shared ViT knows them."""
        return ViTConfig(
            embed_dim=self.embed_dim,
            depth=self.depth,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            patch_size=self.patch_size,
            qk_norm="none",
            conditioning="none",
            position_features=(),
            rotary_axes=(),
            head_depth=self.head_depth,
            dropout=self.dropout,
            drop_path=self.drop_path,
            recompute=self.recompute,
        )


class ClimaX(nn.Module):
    """Maps a standardized state to its normalized increment, or to a later standardized state.

    Each variable of a patch is embedded, one learned query attends over the variables, a learned position and the
    lead time are added, pre-norm blocks follow, and a head maps every token to the pixels of all channels. The
    attention over variables is computed folded (:class:`VariableTokenizer`), which is exact. An untrained model
    returns exactly zero.

    Positions are learned for the cells of one grid; any subset of the variables may be given.

    Source: Nguyen et al. (2023), https://doi.org/10.48550/arXiv.2301.10343.

    Args:
        config: sizes and options.
        channels: names of the variables that are predicted.
        constants: names of the variables that are only read: statics, forcings.
        latitude: degrees north of the grid's rows.
        longitude: degrees east of its columns.
        inputs: those of the channels that are also read; None for all.
    """

    plan: ClassVar[ShardingPlan] = ViT.plan.within("trunk") | ShardingPlan(
        {
            "tokenizer.embedding": Style.REPLICATE_PARTIAL_GRAD,
            "tokenizer.score": Style.COLUMN,
            "tokenizer.value": Style.COLUMN,
            "tokenizer.out": Style.ROW,
            "position": Style.REPLICATE_PARTIAL_GRAD,
            "lead_time": Style.REPLICATE_PARTIAL_GRAD,
            "head.hidden.*": Style.COLUMN,
            "head.project": Style.REPLICATE_PARTIAL_GRAD,
        },
        inputs={
            "tokenizer": (Scatter(), CopyToRegion()),
            "position": (Scatter(dim=0, axes=(Role.TOKEN, Role.MATRIX)),),
            "head.hidden.*": (AllGather(),),
        },
        outputs={"head.hidden.*": AllToAll(), "head": GatherReplicated()},
        stages=Stages(first=("tokenizer", "position", "lead_time"), last=("head",)),
    )

    def __init__(
        self,
        config: ClimaXConfig,
        channels: Sequence[str],
        constants: Sequence[str] = (),
        *,
        latitude: Sequence[float],
        longitude: Sequence[float],
        inputs: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        rows, columns = len(latitude), len(longitude)
        self.config, dim = config, config.embed_dim
        self.channels, self.constants = tuple(channels), tuple(constants)
        self.inputs = self.channels if inputs is None else tuple(inputs)
        # Plain numbers and no buffers: nothing is lost when the model is built on the meta device.
        self.latitude, self.longitude = tuple(latitude), tuple(longitude)
        self.tokenizer = VariableTokenizer((*self.inputs, *constants), config.patch_size, dim, config.num_heads)
        places = SineCosine(-(-rows // config.patch_size), -(-columns // config.patch_size))
        self.position = starts_as(nn.Embedding(places.rows * places.columns, dim), weight=places)
        self.lead_time = nn.Linear(1, dim)
        self.dropout = nn.Dropout(config.dropout)
        self.trunk = ViT(config.trunk)
        self.head = IncrementHead(channels, config.trunk)
        initialize(self, torch.initial_seed())

    @classmethod
    def from_schema(cls, config: ClimaXConfig, schema: ClimateSchema, forcings: Sequence[str] = ()) -> ClimaX:
        """Builds the model for a store: its channels are predicted, its statics and the forcings only read, and
        diagnostic outputs not read.
        """
        constants = (*schema.statics, *forcings)
        where: dict[str, Any] = {"latitude": schema.latitude, "longitude": schema.longitude}
        return cls(config, schema.channels, constants, **where, inputs=schema.inputs)

    def variable_rows(self) -> dict[str, tuple[str, ...]]:
        """Returns the parameters whose first dim is a block of rows for each variable, with the variables' names.

        A model of other variables takes over the rows of those that it shares.
        """
        rows = {"tokenizer.embedding.weight": self.tokenizer.variables}
        return rows | dict.fromkeys(("head.project.weight", "head.project.bias"), self.channels)

    def forward(self, *args: Any, **kwargs: Any) -> Float[Tensor, "batch output latitude longitude"]:
        """Returns the predicted fields, float32 (or the weights' precision where that is higher).

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
        """Returns the way from a state to what is predicted of it, in parts.

        Args:
            fields: standardized state.
            channel_names: the variables of ``fields``, any of the model's in any order; None for all.
            lead_time: hours to step over.
            time: is not read: the model knows no time of day or year.
            constants: further standardized input variables, with or without a batch dim.
            constant_names: their names; by default all of the model's constants.
            output_names: variables wanted; by default those of ``fields``.
            latitude, longitude: degrees of the fields' grid, which must be the model's.

        Raises:
            ConfigError: where the fields are on another grid than the positions were learned for.
        """
        shape, patch_size = (len(self.latitude), len(self.longitude)), self.config.patch_size
        self._check_grid(fields, latitude or self.latitude, longitude or self.longitude)
        outputs = output_names or channel_names

        def embed() -> Activations:
            state, names = fields, tuple(channel_names or self.inputs)
            if constants is not None and constants.shape[-3]:
                fixed = constants.to(state.dtype).expand(len(state), -1, -1, -1)
                state = torch.cat([state, fixed], dim=1)
                names += tuple(self.constants if constant_names is None else constant_names)
            state = pad_to_patches(state, patch_size, topology_of(self.latitude, self.longitude), odd_of(names))
            tokens = self.tokenizer(patchify(state, patch_size), names)
            hours = (lead_time[:, None] / LEAD_TIME_UNIT_H).to(self.lead_time.weight.dtype)
            places = torch.arange(self.position.num_embeddings, device=state.device)
            return (self.dropout(tokens + self.position(places) + self.lead_time(hours)[:, None]),)

        def decode(tokens: Float[Tensor, "batch token embed"]) -> Float[Tensor, "batch output latitude longitude"]:
            return unpatchify(self.head(self.trunk.finish(tokens), outputs), shape, patch_size)

        return ForwardPass(embed, decode)

    def _check_grid(
        self,
        fields: Float[Tensor, "batch channel latitude longitude"],
        latitude: Sequence[float],
        longitude: Sequence[float],
    ) -> None:
        mine = LatLonGrid(np.array(self.latitude), np.array(self.longitude))
        given = LatLonGrid(np.array(latitude), np.array(longitude))
        rows, columns = fields.shape[-2:]
        if mine.shape != (rows, columns) or not given.same_as(mine):
            raise ConfigError(
                f"the positions of this model were learned on a grid of {mine.text}, the fields are on another, of "
                f"{columns}x{rows}",
                key="model",
                hint=f"prepare the data with grid={mine.text}",
            )


@dataclass(frozen=True)
class SineCosine:
    """Fills a table of positions with sines and cosines of a patch's row and column, as ClimaX starts.

    Source: Vaswani et al. (2017), https://doi.org/10.48550/arXiv.1706.03762, for each of the two axes.
    """

    rows: int
    columns: int

    def __call__(self, tensor: Float[Tensor, "token embed"], generator: torch.Generator) -> None:
        tensor.zero_()  # channels beyond the last multiple of four
        count = tensor.shape[1] // 4
        speeds = 10_000.0 ** -(torch.arange(count, dtype=torch.float64) / max(count, 1))
        row, column = torch.meshgrid(torch.arange(self.rows), torch.arange(self.columns), indexing="ij")
        angles = [axis.flatten()[:, None] * speeds for axis in (column, row)]
        features = [wave for angle in angles for wave in (angle.sin(), angle.cos())]
        tensor[:, : 4 * count] = torch.cat(features, dim=1).to(tensor.dtype)
