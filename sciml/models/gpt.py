"""A decoder-only transformer over the words of a vocabulary, on the blocks of the shared ViT."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sciml.core.errors import ConfigError
from sciml.core.types import AtLeastOne, FractionBelowOne, Positive
from sciml.distributed.axes import Role
from sciml.models.vit import Block, ViT, ViTConfig
from sciml.nn.initialization import Normal, initialize, starts_as
from sciml.nn.mlp import MLPKind
from sciml.nn.norm import NormKind, QKNorm, to_autocast
from sciml.nn.position import Rotary, sequence_rotary
from sciml.nn.recompute import Recompute
from sciml.nn.staged import Activations, ForwardPass
from sciml.nn.vocabulary import INITIAL_STD, VocabularyEmbedding, VocabularyHead
from sciml.parallel.plan import AllGather, GatherReplicated, Scatter, ShardingPlan, Stages, Style


@dataclass(frozen=True)
class GPTConfig:
    """Configures a decoder-only transformer.

    Attributes:
        kind: name of the model family, by which a domain knows it.
        embed_dim: channels of a token; a multiple of ``num_heads``.
        depth: number of blocks.
        num_heads: attention heads.
        mlp: ``gelu`` or ``swiglu`` (of equal parameter count).
        mlp_ratio: width of the feed-forward part over ``embed_dim``.
        qk_norm: ``layer``, ``rms`` or ``none``.
        positions: ``rotary`` turns queries against keys by their distance; ``learned`` adds a row of a table.
        context: tokens of the longest sample.
        vocabulary_size: number of different tokens.
        tied_embedding: whether the logits' matrix is that of the embedding.
        dropout: probability with which attention weights and outputs of a half block are dropped.
        recompute: ``none``, ``attention``, ``selective`` or ``full``; what the backward pass computes again.
        recompute_every: every so many blocks it does, the first among them.
        norm: ``layer`` or ``rms``, of tokens.
        num_kv_heads: heads of keys and values, each for a group of heads of queries; None takes ``num_heads``.
    """

    practical: ClassVar[tuple[str, ...]] = ("recompute", "recompute_every")

    WIDTHS: ClassVar[tuple[str, ...]] = ("embed_dim",)
    kind: str = "gpt"
    embed_dim: AtLeastOne = 64
    depth: AtLeastOne = 4
    num_heads: AtLeastOne = 4
    mlp: MLPKind = "gelu"
    mlp_ratio: Positive[float] = 4.0
    qk_norm: QKNorm = "none"
    positions: Literal["rotary", "learned"] = "rotary"
    context: AtLeastOne = 128
    vocabulary_size: AtLeastOne = 256
    tied_embedding: bool = True
    dropout: FractionBelowOne = 0.0
    recompute: Recompute = "none"
    recompute_every: AtLeastOne = 1
    norm: NormKind = "layer"
    num_kv_heads: AtLeastOne | None = None

    def __post_init__(self) -> None:
        if self.trunk.head_dim % 2 and self.positions == "rotary":
            raise ConfigError(
                f"heads of {self.trunk.head_dim} channels cannot be rotated in pairs",
                key="model.num_heads",
                hint="choose heads with an even number of channels, or set model.positions=learned",
            )

    @property
    def trunk(self) -> ViTConfig:
        """Returns the configuration of the blocks, as the shared ViT knows them."""
        return ViTConfig(
            embed_dim=self.embed_dim,
            depth=self.depth,
            num_heads=self.num_heads,
            mlp=self.mlp,
            mlp_ratio=self.mlp_ratio,
            qk_norm=self.qk_norm,
            conditioning="none",
            rotary_axes=(),
            dropout=self.dropout,
            recompute=self.recompute,
            recompute_every=self.recompute_every,
            norm=self.norm,
            num_kv_heads=self.num_kv_heads,
        )


class GPT(nn.Module):
    """Maps tokens to the logits of those that follow each of them, or to the loss of those that do.

    Under autocast the residual stream has half precision, as in the large language models that are published.

    All weights start as in GPT-2: normal with a standard deviation of 0.02, divided by the square root of the number of
    residual branches where these are projected.

    Source: Radford et al. (2019), "Language models are unsupervised multitask learners".
    """

    plan: ClassVar[ShardingPlan] = ViT.plan.within("trunk") | ShardingPlan(
        {"embed": Style.VOCABULARY, "positions": Style.REPLICATE_PARTIAL_GRAD, "head": Style.VOCABULARY},
        inputs={
            "embed": (Scatter(),),
            "positions": (Scatter(dim=0, axes=(Role.TOKEN, Role.MATRIX)),),
            "head": (AllGather(),),
            "targets": (Scatter(),),
        },
        outputs={"head": GatherReplicated(axes=(Role.TOKEN,))},
        stages=Stages(first=("embed", "positions"), last=("head",)),
        tied={"head.weight": "embed.weight"},
    )

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config, self.head_dim = config, config.trunk.head_dim
        dim = config.embed_dim
        self.embed = VocabularyEmbedding(config.vocabulary_size, dim)
        learned = config.positions == "learned"
        self.positions = starts_as(nn.Embedding(config.context, dim), weight=Normal(INITIAL_STD)) if learned else None
        self.trunk = ViT(config.trunk, partial(Block, causal=True))
        self.head = VocabularyHead(config.vocabulary_size, dim)
        if config.tied_embedding:
            self.head.weight = self.embed.weight
        self.targets = nn.Identity()  # for the plan: where targets are cut as tokens are
        start_as_gpt2(self.trunk)
        initialize(self, torch.initial_seed())

    def forward(
        self, tokens: Int[Tensor, "batch token"], targets: Int[Tensor, "batch token"] | None = None
    ) -> Float[Tensor, "batch token *word"]:
        """Returns logits (batch, token, word); with targets their negative log-likelihood in nats (batch, token),
        float32.

        Args:
            tokens: at most ``context`` of them where positions are learned.
            targets: what follows each token.
        """
        return self.forward_pass(tokens, targets).run(self.trunk.blocks)

    def forward_pass(
        self, tokens: Int[Tensor, "batch token"], targets: Int[Tensor, "batch token"] | None = None
    ) -> ForwardPass:
        """Returns the way from tokens to what :meth:`forward` gives, in parts."""

        def embed() -> Activations:
            x = self.embed(tokens)
            if self.positions is not None:
                x = x + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
            return (to_autocast(x),)

        def head(x: Float[Tensor, "batch token embed"]) -> Float[Tensor, "batch token *word"]:
            return self.head(self.trunk.finish(x), None if targets is None else self.targets(targets))

        return ForwardPass(embed, head, (None, self.rotary(tokens)))

    def rotary(self, tokens: Int[Tensor, "batch token"]) -> Rotary | None:
        """Returns the rotations of all tokens' queries and keys; None where positions are learned."""
        if self.config.positions == "learned":
            return None
        return sequence_rotary(tokens.shape[1], self.head_dim, tokens.device)


def start_as_gpt2(trunk: ViT) -> None:
    """Notes how the weights of a trunk start."""
    for name, module in trunk.named_modules():
        if isinstance(module, nn.Linear):
            ends_branch = name.endswith((".attention.wo", ".mlp.down"))
            starts_as(
                module, weight=Normal(INITIAL_STD / math.sqrt(2 * len(trunk.blocks)) if ends_branch else INITIAL_STD)
            )
