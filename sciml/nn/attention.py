"""Multi-head self-attention over tokens."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sciml.nn.norm import qk_norm
from sciml.nn.position import Rotary, rotate
from sciml.nn.recompute import recompute
from sciml.nn.window import Partition


class Attend(nn.Module):
    """Mixes values by attention, without any parameter: rotates queries and keys first.

    Args:
        num_heads: number of heads of keys and values, which ranks share; those of one rank may be fewer.
        dropout: probability with which an attention weight is dropped in training.
        causal: whether a token sees itself and those before it only; a mask cannot be given besides.

    Attributes:
        has_windows: whether tokens are to see those of their window alone.
    """

    def __init__(self, num_heads: int, dropout: float = 0.0, *, causal: bool = False) -> None:
        super().__init__()
        self.num_heads, self.dropout, self.causal = num_heads, dropout, causal
        self.has_windows = False

    def forward(
        self,
        query: Float[Tensor, "batch token head channel"],
        key: Float[Tensor, "batch token key_head channel"],
        value: Float[Tensor, "batch token key_head channel"],
        rotary: Rotary | None = None,
        mask: Bool[Tensor, "batch token"] | None = None,
        windows: Partition | None = None,
    ) -> Float[Tensor, "batch token head channel"]:
        """Returns every token's mixture of all tokens' values, of those up to it, of those that ``mask`` lets be
        seen, or of those in its window. Consecutive heads of queries share a head of keys and values, where there are
        fewer of these.
        """
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        if windows is None:
            return self.mix(query, key, value, mask)
        sizes = zip(*map(windows.split, (query, key, value)), strict=True)
        return windows.join([self.mix(*tokens) for tokens in sizes], len(query))

    def mix(
        self,
        query: Float[Tensor, "batch token head channel"],
        key: Float[Tensor, "batch token key_head channel"],
        value: Float[Tensor, "batch token key_head channel"],
        mask: Bool[Tensor, "batch token"] | None = None,
    ) -> Float[Tensor, "batch token head channel"]:
        """Returns mixtures of values, of queries and keys that are rotated already.

        A sharding plan puts another form in its place where keys are spread over ranks.
        """
        mixed = F.scaled_dot_product_attention(
            query.transpose(1, 2).to(value.dtype),
            key.transpose(1, 2).to(value.dtype),
            value.transpose(1, 2),
            attn_mask=None if mask is None else mask[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=self.causal,
            enable_gqa=query.shape[2] != key.shape[2],
        )
        return mixed.transpose(1, 2)


class SelfAttention(nn.Module):
    """Lets every token attend to all tokens; queries and keys may be normalized and rotated by position.

    Queries, keys and values are projected by linears of their own and the number of heads is read off the
    projection (``-1``): a cut of their rows is then a cut by heads, on any number of ranks.

    Args:
        embed_dim: channels of a token; a multiple of ``num_heads``.
        num_heads: number of heads.
        qk_norm_kind: ``none``, ``layer`` or ``rms``.
        dropout: probability with which an attention weight is dropped in training.
        causal: whether a token attends to itself and those before it only.
        num_kv_heads: number of heads of keys and values, each for a group of heads of queries; None: one for each.
            Source: Ainslie et al. (2023), https://doi.org/10.48550/arXiv.2305.13245.

    Attributes:
        recompute: whether the backward pass normalizes, rotates and mixes again instead of keeping what lies between.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        qk_norm_kind: str = "layer",
        dropout: float = 0.0,
        *,
        causal: bool = False,
        num_kv_heads: int | None = None,
    ) -> None:
        super().__init__()
        self.head_dim = embed_dim // num_heads
        key_heads = num_kv_heads or num_heads
        self.wq = nn.Linear(embed_dim, embed_dim)
        self.wk = nn.Linear(embed_dim, key_heads * self.head_dim)
        self.wv = nn.Linear(embed_dim, key_heads * self.head_dim)
        self.wo = nn.Linear(embed_dim, embed_dim)
        self.query_norm = qk_norm(qk_norm_kind, num_heads, self.head_dim)
        self.key_norm = qk_norm(qk_norm_kind, key_heads, self.head_dim)
        self.attend = Attend(key_heads, dropout, causal=causal)
        self.recompute = False

    def forward(
        self,
        x: Float[Tensor, "batch token embed"],
        rotary: Rotary | None = None,
        mask: Bool[Tensor, "batch token"] | None = None,
        windows: Partition | None = None,
    ) -> Float[Tensor, "batch own_token embed"]:
        """Attends over all tokens, or within windows, and returns this rank's.

        Args:
            rotary: turns queries and keys by their tokens' positions.
            mask: which of a sample's tokens are seen; all by default.
            windows: those to attend within.
        """
        projected = [w(x).unflatten(-1, (-1, self.head_dim)) for w in (self.wq, self.wk, self.wv)]
        mixed = recompute("full" if self.recompute else "none", self._mixed, *projected, rotary, mask, windows)
        return self.wo(mixed.flatten(-2))

    def _mixed(
        self,
        query: Float[Tensor, "batch token head channel"],
        key: Float[Tensor, "batch token key_head channel"],
        value: Float[Tensor, "batch token key_head channel"],
        rotary: Rotary | None,
        mask: Bool[Tensor, "batch token"] | None,
        windows: Partition | None,
    ) -> Float[Tensor, "batch token head channel"]:
        return self.attend(self.query_norm(query), self.key_norm(key), value, rotary, mask, windows)
