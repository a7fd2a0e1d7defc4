"""Multi-head self-attention over tokens."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sciml.nn.norm import qk_norm
from sciml.nn.position import Rotary, rotate


class Attend(nn.Module):
    """Mixes values by attention, without any parameter: rotates queries and keys first.

    Args:
        num_heads: number of heads; those of one rank may be fewer.
        dropout: probability with which an attention weight is dropped in training.
        causal: whether a token sees itself and those before it only; a mask cannot be given besides.
    """

    def __init__(self, num_heads: int, dropout: float = 0.0, *, causal: bool = False) -> None:
        super().__init__()
        self.num_heads, self.dropout, self.causal = num_heads, dropout, causal

    def forward(
        self,
        query: Float[Tensor, "batch token head channel"],
        key: Float[Tensor, "batch token head channel"],
        value: Float[Tensor, "batch token head channel"],
        rotary: Rotary | None = None,
        mask: Bool[Tensor, "batch token"] | None = None,
    ) -> Float[Tensor, "batch token head channel"]:
        """Returns every token's mixture of all tokens' values, of those up to it, or of those that ``mask``
        lets be seen.
        """
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        mixed = F.scaled_dot_product_attention(
            query.transpose(1, 2).to(value.dtype),
            key.transpose(1, 2).to(value.dtype),
            value.transpose(1, 2),
            attn_mask=None if mask is None else mask[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=self.causal,
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
    """

    def __init__(
        self, embed_dim: int, num_heads: int, qk_norm_kind: str = "layer", dropout: float = 0.0, *, causal: bool = False
    ) -> None:
        super().__init__()
        self.head_dim = embed_dim // num_heads
        self.wq = nn.Linear(embed_dim, embed_dim)
        self.wk = nn.Linear(embed_dim, embed_dim)
        self.wv = nn.Linear(embed_dim, embed_dim)
        self.wo = nn.Linear(embed_dim, embed_dim)
        self.query_norm = qk_norm(qk_norm_kind, num_heads, self.head_dim)
        self.key_norm = qk_norm(qk_norm_kind, num_heads, self.head_dim)
        self.attend = Attend(num_heads, dropout, causal=causal)

    def forward(
        self,
        x: Float[Tensor, "batch token embed"],
        rotary: Rotary | None = None,
        mask: Bool[Tensor, "batch token"] | None = None,
    ) -> Float[Tensor, "batch token embed"]:
        """Attends over all tokens.

        Args:
            rotary: turns queries and keys by their tokens' positions.
            mask: which of a sample's tokens are seen; all by default.
        """
        query, key, value = (w(x).unflatten(-1, (-1, self.head_dim)) for w in (self.wq, self.wk, self.wv))
        mixed = self.attend(self.query_norm(query), self.key_norm(key), value, rotary, mask)
        return self.wo(mixed.flatten(-2))
