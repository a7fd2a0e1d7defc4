"""Words of a vocabulary to channels and back; it may be cut over ranks, and its logits then never stand whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sciml.nn.initialization import Normal, starts_as
from sciml.nn.norm import to_autocast
from sciml.nn.recompute import recompute

INITIAL_STD = 0.02
"""Standard deviation of embeddings at the start, as of all weights of GPT-2."""
CHUNK_LOGITS = 2**26
"""Logits that stand at once while a loss is computed: in float32 256 MiB, and as much for their gradients."""

Map = Callable[[Tensor], Tensor]


def same(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Stands in for a collective where one rank has all words."""
    return x


class VocabularyEmbedding(nn.Module):
    """Holds a row of channels for each word.

    A rank that holds some of the words looks up these, takes zero for the others, and combines.

    Args:
        vocabulary_size: words.
        embed_dim: channels of a token.

    Attributes:
        own_words: those of this rank's rows; None: all.
        combine: from ranks' partial sums to their total, or to this rank's tokens of it.
    """

    def __init__(self, vocabulary_size: int, embed_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocabulary_size, embed_dim))
        self.own_words: range | None = None
        self.combine: Map = same
        starts_as(self, weight=Normal(INITIAL_STD))

    def forward(self, words: Int[Tensor, "batch token"]) -> Float[Tensor, "batch own_token embed"]:
        if self.own_words is None:
            return F.embedding(words, self.weight)
        row, is_own = rows_of(words, self.own_words)
        return self.combine(F.embedding(row, self.weight) * is_own[..., None])


class VocabularyHead(nn.Module):
    """Computes the logits of the words that may follow, or the loss of those that do.

    Ranks that hold some of the words each see these words' logits alone: the sum of exponentials, its scale and
    the logit of the target are put together from the ranks' parts, three numbers a token.

    Source: Shoeybi et al. (2019), https://doi.org/10.48550/arXiv.1909.08053.

    Args:
        vocabulary_size: words.
        embed_dim: channels of a token.

    Attributes:
        own_words: those of this rank's rows; None: all.
        total: the sum over ranks of partial sums.
        largest: the largest over ranks; it carries no gradient.
        join: logits of all words, from those of each rank's.
    """

    def __init__(self, vocabulary_size: int, embed_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocabulary_size, embed_dim))
        self.own_words: range | None = None
        self.total: Map = same
        self.largest: Map = same
        self.join: Map = same
        starts_as(self, weight=Normal(INITIAL_STD))

    def forward(
        self, x: Float[Tensor, "batch token embed"], targets: Int[Tensor, "batch token"] | None = None
    ) -> Float[Tensor, "batch token *word"]:
        """Returns logits (batch, token, word); with targets their negative log-likelihood in nats (batch,
        token), float32.

        Where there are many logits, some tokens' are made at a time, and made again in the backward pass.
        """
        if targets is None:
            return self.join(F.linear(x, self.weight))
        tokens = x.shape[0] * x.shape[1]
        chunks = -(-tokens * self.weight.shape[0] // CHUNK_LOGITS)
        if chunks <= 1:
            return self._loss(x, targets)
        rows, rows_of_targets = (flat.chunk(chunks) for flat in (x.flatten(0, 1)[:, None], targets.reshape(-1, 1)))
        weight = to_autocast(self.weight.detach())  # once, not again for each of them
        losses = [recompute("full", self._loss, *pair, weight) for pair in zip(rows, rows_of_targets, strict=True)]
        return torch.cat(losses).view(targets.shape)

    def _loss(
        self,
        x: Float[Tensor, "batch token embed"],
        targets: Int[Tensor, "batch token"],
        cast: Float[Tensor, "word embed"] | None = None,
    ) -> Float[Tensor, "batch token"]:
        logits = F.linear(x, self.weight if cast is None else _Cast.apply(self.weight, cast))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.own_words is None:
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
            return loss.view(targets.shape)
        return self._log_sum(logits) - self._logit_of(targets, logits)

    def _log_sum(self, logits: Float[Tensor, "batch token word"]) -> Float[Tensor, "batch token"]:
        """Returns the logarithm of the sum of exponentials over all words, from that over this rank's."""
        own = logits.logsumexp(dim=-1)
        shift = self.largest(own.detach())
        return shift + self.total((own - shift).exp()).log()

    def _logit_of(
        self, targets: Int[Tensor, "batch token"], logits: Float[Tensor, "batch token word"]
    ) -> Float[Tensor, "batch token"]:
        assert self.own_words is not None
        row, is_own = rows_of(targets, self.own_words)
        return self.total(logits.gather(-1, row[..., None])[..., 0] * is_own)


class _Cast(torch.autograd.Function):
    """Stands for a weight by a copy that has been cast, and casts its gradient back.

    So each of its uses adds a gradient in the weight's own precision. Those of one cast would be added up in the
    copy's.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Float[Tensor, "word embed"], cast: Float[Tensor, "word embed"]
    ) -> Float[Tensor, "word embed"]:
        ctx.dtype = weight.dtype
        return cast.view_as(cast)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "word embed"]) -> tuple[Float[Tensor, "word embed"], None]:
        return gradient.to(ctx.dtype), None


def rows_of(words: Int[Tensor, "*batch"], own: range) -> tuple[Int[Tensor, "*batch"], Bool[Tensor, "*batch"]]:
    """Returns the row of each word, zero where a rank does not have it, and whether it does."""
    row = words - own.start
    is_own = (row >= 0) & (row < len(own))
    return row.where(is_own, 0), is_own
