"""The vision transformer that all grid domains share: isotropic pre-norm blocks over tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sciml.core.config import divides
from sciml.core.errors import ConfigError
from sciml.core.seeding import shared_generator
from sciml.core.types import AtLeastOne, FractionBelowOne, NonNegative, Positive
from sciml.nn.attention import SelfAttention
from sciml.nn.conditioning import Conditioning, Modulation, modulate
from sciml.nn.mlp import MLPKind, make_mlp
from sciml.nn.norm import NormKind, QKNorm, to_autocast, token_norm
from sciml.nn.position import Rotary
from sciml.nn.recompute import Recompute, recompute
from sciml.nn.topology import Topology
from sciml.nn.window import AttentionKind, Partition, Pattern, Windows, windows_on
from sciml.parallel.plan import AllGather, ShardingPlan, Stages, Style


@dataclass(frozen=True)
class ViTConfig:
    """Configures a vision transformer on a grid.

    Attributes:
        kind: name of the model family, by which a domain knows it.
        embed_dim: channels of a token; a multiple of ``num_heads``.
        depth: number of blocks.
        num_heads: attention heads; also those of a tokenizer that aggregates variables.
        mlp: ``gelu`` or ``swiglu`` (of equal parameter count).
        mlp_ratio: width of the feed-forward part over ``embed_dim``.
        patch_size: rows and columns of a patch.
        qk_norm: ``layer``, ``rms`` or ``none``.
        conditioning: ``adaln_zero`` or ``none``.
        condition_dim: length of the vector that modulates the blocks.
        condition_on: scalars that it is made of; their names belong to the domain.
        position_features: coordinates whose Fourier features are added to the tokens.
        position_harmonics: number of harmonics of each of them.
        rotary_axes: coordinates whose differences turn queries against keys; may be empty.
        rotary_max_harmonic: the fastest of these rotations, in turns per 360 degrees.
        head_depth: Linear + GELU layers before the output projection.
        dropout: probability with which attention weights and outputs of a half block are dropped.
        drop_path: probability with which the last block's halves are left out; grows linearly from 0.
        recompute: ``none``, ``attention``, ``selective`` or ``full``; what the backward pass computes again.
        recompute_every: every so many blocks it does, the first among them.
        norm: ``layer`` or ``rms``, of tokens.
        num_kv_heads: heads of keys and values, each for a group of heads of queries; None takes ``num_heads``.
        attention: ``global`` lets every token attend to all; ``window`` to those of its window, which is shifted by
            half in every second block.
        window: the most rows and columns of tokens in a window.
        global_every: every so many blocks attend globally all the same; None: no block.
    """

    practical: ClassVar[tuple[str, ...]] = ("recompute", "recompute_every")

    WIDTHS: ClassVar[tuple[str, ...]] = ("embed_dim",)
    kind: str = "vit"
    embed_dim: AtLeastOne = 128
    depth: AtLeastOne = 4
    num_heads: AtLeastOne = 4
    mlp: MLPKind = "gelu"
    mlp_ratio: Positive[float] = 4.0
    patch_size: AtLeastOne = 4
    qk_norm: QKNorm = "layer"
    conditioning: Conditioning = "adaln_zero"
    condition_dim: AtLeastOne = 64
    condition_on: tuple[str, ...] = ("lead_time", "time_of_day", "time_of_year")
    position_features: tuple[str, ...] = ("latitude", "longitude")
    position_harmonics: AtLeastOne = 8
    rotary_axes: tuple[str, ...] = ("longitude", "latitude")
    rotary_max_harmonic: AtLeastOne = 16
    head_depth: NonNegative[int] = 2
    dropout: FractionBelowOne = 0.0
    drop_path: FractionBelowOne = 0.0
    recompute: Recompute = "none"
    recompute_every: AtLeastOne = 1
    norm: NormKind = "layer"
    num_kv_heads: AtLeastOne | None = None
    attention: AttentionKind = "global"
    window: tuple[AtLeastOne, ...] = (8, 8)
    global_every: AtLeastOne | None = None

    def __post_init__(self) -> None:
        if self.is_conditioned and not self.condition_on:
            raise ConfigError(
                "nothing to condition on", key="model.condition_on", hint="name scalars or set model.conditioning=none"
            )
        divides(self.num_heads, self.embed_dim, key="model.num_heads", of="model.embed_dim")
        if self.num_kv_heads is not None:
            divides(self.num_kv_heads, self.num_heads, key="model.num_kv_heads", of="model.num_heads")
        if len(self.window) != 2:
            raise ConfigError(
                f"must be rows and columns of tokens, got {list(self.window)}", key="model.window", hint="e.g. [8, 8]"
            )
        if self.global_every is not None and self.attention != "window":
            raise ConfigError(
                "all blocks attend globally already", key="model.global_every", hint="null, or model.attention=window"
            )
        if self.rotary_axes and (self.head_dim % 2 or self.head_dim // 2 < len(self.rotary_axes)):
            raise ConfigError(
                f"heads of {self.head_dim} channels cannot be rotated in pairs about {len(self.rotary_axes)} axes",
                key="model.num_heads",
                hint="choose fewer heads with an even number of channels, or set model.rotary_axes=[]",
            )

    @property
    def head_dim(self) -> int:
        """Returns the number of channels of a head."""
        return self.embed_dim // self.num_heads

    @property
    def is_conditioned(self) -> bool:
        """Says whether the blocks take a condition."""
        return self.conditioning != "none"

    def pattern(self, number: int) -> Pattern:
        """Returns whom the tokens of a block attend to, given its number from 0."""
        every = self.global_every or self.depth + 1
        if self.attention == "global" or (number + 1) % every == 0:
            return "global"
        return "shifted" if (number - number // every) % 2 else "window"


class DropPath(nn.Module):
    """Leaves out a residual branch for random samples in training, and scales the others up.

    Source: Huang et al. (2016), https://doi.org/10.48550/arXiv.1603.09382.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Float[Tensor, "batch token embed"]) -> Float[Tensor, "batch 1 1"] | None:
        """Draws the factor of each sample's branch, 0 or what makes up for it; None where all are left in.

        Ranks with different tokens of a sample draw alike. It is drawn before what may be computed again.
        """
        if not self.training or self.probability == 0:
            return None
        keep = 1 - self.probability
        drawn = torch.rand(len(x), 1, 1, generator=shared_generator(), device="cpu")
        return ((drawn < keep).to(x.dtype) / keep).to(x.device)


class Block(nn.Module):
    """Adds attention and a feed-forward part, each on normalized tokens, to the residual stream.

    Args:
        config: the trunk's configuration.
        drop_path: probability with which a half of this block is left out in training.
        causal: whether a token attends to itself and those before it only.

    Attributes:
        pattern: whom tokens attend to, where windows are given.
    """

    def __init__(self, config: ViTConfig, drop_path: float = 0.0, *, causal: bool = False) -> None:
        super().__init__()
        dim, conditioned = config.embed_dim, config.is_conditioned
        self.attention_norm = token_norm(config.norm, dim, has_gain=not conditioned)
        self.attention = SelfAttention(
            dim, config.num_heads, config.qk_norm, config.dropout, causal=causal, num_kv_heads=config.num_kv_heads
        )
        self.mlp_norm = token_norm(config.norm, dim, has_gain=not conditioned)
        self.mlp = make_mlp(config.mlp, dim, config.mlp_ratio)
        self.modulation = Modulation(config.condition_dim, dim, 6) if conditioned else None
        self.dropout = nn.Dropout(config.dropout)
        self.drop_path = DropPath(drop_path)
        self.recompute = config.recompute
        self.pattern: Pattern = "global"
        self._compiled: Callable[..., Tensor] | None = None

    def forward(
        self,
        x: Float[Tensor, "batch token embed"],
        condition: Float[Tensor, "batch condition"] | None = None,
        rotary: Rotary | None = None,
        mask: Bool[Tensor, "batch token"] | None = None,
        windows: Windows | None = None,
    ) -> Float[Tensor, "batch token embed"]:
        """Returns the block's tokens; ``condition`` is needed where the configuration has a conditioning, and
        ``windows`` where the block does not attend globally.
        """
        self.attention.recompute = self.recompute == "attention"
        paths = (self.drop_path(x), self.drop_path(x))
        own = None if windows is None else windows.of(self.pattern)
        compiled = self._compiled if self.training else None
        return recompute(self.recompute, compiled or self._tokens, x, condition, rotary, mask, own, *paths)

    def compile_tokens(self) -> None:
        """Lets torch compile what this block does to tokens in training; hooks around it stay as they are.

        Dropout draws what it draws uncompiled.
        """
        self._compiled = torch.compile(self._tokens, options={"fallback_random": True})

    def _tokens(
        self,
        x: Float[Tensor, "batch token embed"],
        condition: Float[Tensor, "batch condition"] | None,
        rotary: Rotary | None,
        mask: Bool[Tensor, "batch token"] | None,
        windows: Partition | None,
        attention_path: Float[Tensor, "batch 1 1"] | None,
        mlp_path: Float[Tensor, "batch 1 1"] | None,
    ) -> Float[Tensor, "batch token embed"]:
        if self.modulation is None:
            x = x + self._drop(
                self.attention(to_autocast(self.attention_norm(x)), rotary, mask, windows), attention_path
            )
            return x + self._drop(self.mlp(to_autocast(self.mlp_norm(x))), mlp_path)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(condition)
        normalized = to_autocast(modulate(self.attention_norm(x), shift_a, scale_a))
        mixed = self.attention(normalized, rotary, mask, windows)
        x = torch.addcmul(x, gate_a, self._drop(mixed, attention_path))
        fed = self.mlp(to_autocast(modulate(self.mlp_norm(x), shift_m, scale_m)))
        return torch.addcmul(x, gate_m, self._drop(fed, mlp_path))

    def _drop(
        self, branch: Float[Tensor, "batch token embed"], path: Float[Tensor, "batch 1 1"] | None
    ) -> Float[Tensor, "batch token embed"]:
        branch = self.dropout(branch)
        return branch if path is None else branch * path.to(branch.dtype)


class ViT(nn.Module):
    """Maps tokens to tokens: the trunk; a pipeline stage is a slice of ``blocks``.

    A domain puts its tokenizer before and its head behind.

    Args:
        config: sizes and options.
        block: makes a block from the configuration and its drop path rate; a domain may have one that does more.
    """

    plan: ClassVar[ShardingPlan] = ShardingPlan(
        {
            "blocks.*.attention.w[qkv]": Style.COLUMN,
            "blocks.*.attention.wo": Style.ROW,
            "blocks.*.attention.*_norm": Style.COLUMN,
            "blocks.*.mlp.up": Style.COLUMN,
            "blocks.*.mlp.gate": Style.COLUMN,
            "blocks.*.mlp.down": Style.ROW,
            "blocks.*.*_norm": Style.REPLICATE_PARTIAL_GRAD,
            "blocks.*.modulation.linear": Style.REPLICATE_PARTIAL_GRAD,
            "norm": Style.REPLICATE_PARTIAL_GRAD,
            "modulation.linear": Style.REPLICATE_PARTIAL_GRAD,
        },
        inputs=dict.fromkeys(("blocks.*.attention", "blocks.*.mlp"), (AllGather(),)),
        attention=("blocks.*.attention.attend",),
        stages=Stages(blocks="blocks", last=("norm", "modulation")),
    )

    def __init__(self, config: ViTConfig, block: Callable[[ViTConfig, float], Block] = Block) -> None:
        super().__init__()
        rates = [config.drop_path * i / max(config.depth - 1, 1) for i in range(config.depth)]
        self.config, self.recompute_every = config, config.recompute_every
        self.blocks = nn.ModuleList(block(config, rate) for rate in rates)
        for number, one in enumerate(self.blocks):
            if isinstance(one, Block):
                one.pattern = config.pattern(number)
                one.attention.attend.has_windows = one.pattern != "global"
                if number % config.recompute_every:
                    one.recompute = "none"
        self.norm = token_norm(config.norm, config.embed_dim, has_gain=not config.is_conditioned)
        self.modulation = Modulation(config.condition_dim, config.embed_dim, 2) if config.is_conditioned else None

    def forward(
        self,
        tokens: Float[Tensor, "batch token embed"],
        condition: Float[Tensor, "batch condition"] | None = None,
        rotary: Rotary | None = None,
        windows: Windows | None = None,
    ) -> Float[Tensor, "batch token embed"]:
        """Returns normalized tokens after all blocks."""
        for block in self.blocks:
            tokens = block(tokens, condition, rotary, None, windows)
        return self.finish(tokens, condition)

    def windows(self, topology: Topology, shape: tuple[int, int], device: torch.device) -> Windows | None:
        """Returns the windows of a grid of so many rows and columns of tokens; None where all attend globally."""
        config = self.config
        if config.attention == "global":
            return None
        return windows_on(topology, shape, (config.window[0], config.window[1]), device)

    def finish(
        self, tokens: Float[Tensor, "batch token embed"], condition: Float[Tensor, "batch condition"] | None = None
    ) -> Float[Tensor, "batch token embed"]:
        """Applies the final, modulated normalization that follows the last block."""
        tokens = self.norm(tokens)
        return tokens if self.modulation is None else modulate(tokens, *self.modulation(condition))
