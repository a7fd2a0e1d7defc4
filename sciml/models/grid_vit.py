"""A ViT on a grid, conditioned on scalars such as a lead time: what climate and fluids share.

A domain says how its fields become tokens, where the tokens are, and how tokens become fields again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.errors import ConfigError, nearest
from sciml.models.vit import Block, ViT, ViTConfig
from sciml.nn.conditioning import ConditionEmbedding, ScalarEncoding
from sciml.nn.position import Rotary, coordinate_rotary, fourier_features
from sciml.nn.staged import Activations, ForwardPass
from sciml.parallel.plan import AllGather, AllToAll, ShardingPlan, Stages, Style


def check_grid_options(
    config: ViTConfig, domain: str, axes: Sequence[str], encodings: Mapping[str, ScalarEncoding]
) -> None:
    """Refuses coordinates and scalars in a configuration that a domain does not have.

    Args:
        config: the model's configuration.
        domain: name of the domain, for messages.
        axes: the coordinates of a token.
        encodings: the scalars that the blocks may be conditioned on.

    Raises:
        ConfigError: naming the key and the nearest known name.
    """
    for key, names, known in (
        ("position_features", config.position_features, axes),
        ("rotary_axes", config.rotary_axes, axes),
        ("condition_on", config.condition_on, tuple(encodings)),
    ):
        for name in names:
            if name not in known:
                raise ConfigError(f"{domain} has no {name!r}", key=f"model.{key}", hint=nearest(name, known))


class HiddenLayers(nn.ModuleList):
    """Applies Linear + GELU layers to tokens, in the trunk's precision; a head's part before its projection."""

    def __init__(self, embed_dim: int, depth: int) -> None:
        super().__init__(nn.Linear(embed_dim, embed_dim) for _ in range(depth))

    def forward(self, tokens: Float[Tensor, "batch token embed"]) -> Float[Tensor, "batch token embed"]:
        for linear in self:
            tokens = F.gelu(linear(tokens))
        return tokens


class GridViT(nn.Module):
    """Maps fields to fields of the same grid: a tokenizer, positions, the shared ViT, and a head.

    Positions are functions of coordinates, so weights trained on one grid work on any other. The head has ``hidden``
    layers that tensor parallelism cuts, and projections that it does not.

    Args:
        config: sizes and options.
        tokenizer: turns fields into tokens.
        head: turns tokens into pixels.
        encodings: features of each scalar that the blocks may be conditioned on.
        block: makes a block from the configuration and its drop path rate.
        noise_dim: length of the noise that makes a member of an ensemble; 0 for a deterministic model.
    """

    plan: ClassVar[ShardingPlan] = ViT.plan.within("trunk") | ShardingPlan(
        {
            "position": Style.REPLICATE_PARTIAL_GRAD,
            "condition.*": Style.REPLICATE_PARTIAL_GRAD,
            "head.hidden.*": Style.COLUMN,
        },
        inputs={"head.hidden.*": (AllGather(),)},
        outputs={"head.hidden.*": AllToAll()},
        stages=Stages(first=("tokenizer", "position", "condition"), last=("head",)),
    )

    def __init__(
        self,
        config: ViTConfig,
        tokenizer: nn.Module,
        head: nn.Module,
        encodings: Mapping[str, ScalarEncoding],
        block: Callable[..., Block] = Block,
        noise_dim: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        self.encodings = {name: encodings[name] for name in config.condition_on}
        dim, axes = config.embed_dim, config.position_features
        self.tokenizer = tokenizer
        self.position = nn.Linear(2 * len(axes) * config.position_harmonics, dim, bias=False) if axes else None
        num_features = sum(encoding.num_features for encoding in self.encodings.values())
        self.condition = (
            ConditionEmbedding(num_features, config.condition_dim, noise_dim) if config.is_conditioned else None
        )
        self.trunk = ViT(config, block)
        self.head = head

    def forward(self, *args: Any, **kwargs: Any) -> Float[Tensor, "batch output *grid"]:
        """Returns the predicted fields, float32 (or the weights' precision where that is higher).

        Takes what the domain's ``forward_pass`` takes.
        """
        return self.forward_pass(*args, **kwargs).run(self.trunk.blocks)

    def forward_pass(self, *args: Any, **kwargs: Any) -> ForwardPass:
        """Returns the way from a state to the prediction, in parts; each domain has its own arguments."""
        raise TypeError(f"{type(self).__name__} does not say how it gets from fields to fields")

    def staged(
        self,
        embed: Callable[[], Float[Tensor, "batch token embed"]],
        scalars: Mapping[str, Float[Tensor, "batch"]],
        decode: Callable[[Float[Tensor, "batch token embed"]], Float[Tensor, "batch output row column"]],
        *context: Any,
        noise: Float[Tensor, "batch noise"] | None = None,
    ) -> ForwardPass:
        """Returns the forward pass that embeds, goes through the blocks, and decodes.

        Args:
            embed: makes the tokens.
            scalars: values of the scalars that the blocks are conditioned on; others are not read.
            decode: turns the trunk's normalized tokens into fields.
            context: further arguments of every block, the rotation first.
            noise: that makes each sample a member of an ensemble; None for the deterministic model.
        """

        def first_activations() -> Activations:
            tokens, condition = embed(), self.embed_condition(scalars, noise)
            return (tokens,) if condition is None else (tokens, condition)

        def head(
            tokens: Float[Tensor, "batch token embed"], condition: Float[Tensor, "batch condition"] | None = None
        ) -> Float[Tensor, "batch output row column"]:
            return decode(self.trunk.finish(tokens, condition))

        return ForwardPass(first_activations, head, context if self.config.is_conditioned else (None, *context))

    def embed_condition(
        self, scalars: Mapping[str, Float[Tensor, "batch"]], noise: Float[Tensor, "batch noise"] | None = None
    ) -> Float[Tensor, "batch condition"] | None:
        """Returns the vector that modulates every block, or None where the model is not conditioned."""
        if self.condition is None:
            return None
        features = torch.cat([encode(scalars[name]) for name, encode in self.encodings.items()], dim=-1)
        return self.condition(features.to(self.condition.first.weight.dtype), noise)

    def position_features(
        self, coordinates: Mapping[str, Float[Tensor, "*batch token"]]
    ) -> Float[Tensor, "*batch token feature"]:
        """Returns Fourier features of the tokens' coordinates (radians), for a model that has ``position``."""
        assert self.position is not None
        features = fourier_features(coordinates, self.config.position_features, self.config.position_harmonics)
        return features.to(self.position.weight.dtype)

    def rotary(self, coordinates: Mapping[str, Float[Tensor, "*batch token"]]) -> Rotary | None:
        """Returns the rotations of queries and keys at the tokens' coordinates (radians), or None without any."""
        axes, config = self.config.rotary_axes, self.config
        return coordinate_rotary(coordinates, axes, config.head_dim, config.rotary_max_harmonic) if axes else None
