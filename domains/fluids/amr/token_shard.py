"""Says which tokens a rank has, where ranks share those of a sample."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Int, Shaped
from torch import Tensor


class TokenShard(NamedTuple):
    """Selects a run of a sample's tokens, and zeros that fill it up to the same length on every rank.

    What is computed of all tokens on every rank and then cut by :meth:`of` has gradients from this rank's tokens
    alone; its parameters are of the style ``REPLICATE_PARTIAL_GRAD``.
    """

    first: int
    last: int
    fill: int

    @classmethod
    def of_numbers(cls, numbers: Int[Tensor, "token"]) -> TokenShard:
        """Makes the shard from the numbers of this rank's tokens, counted from 1; the fill has 0."""
        own = [number for number in numbers.tolist() if number > 0]
        if not own:
            return cls(0, 0, len(numbers))
        return cls(own[0] - 1, own[-1], len(numbers) - len(own))

    def of(self, x: Shaped[Tensor, "batch token ..."]) -> Shaped[Tensor, "batch own_token ..."]:
        """Selects this rank's of all tokens (batch, token, ...)."""
        return self.filled(x[:, self.first : self.last])

    def filled(self, x: Shaped[Tensor, "batch token ..."]) -> Shaped[Tensor, "batch own_token ..."]:
        """Returns this rank's tokens (batch, token, ...) with the fill behind them."""
        return F.pad(x, [0, 0] * (x.ndim - 2) + [0, self.fill]) if self.fill else x

    def within(self, start: int, stop: int) -> slice:
        """Returns which of this rank's tokens are among those from ``start`` to ``stop``, counted from ``start``."""
        first, last = (min(max(end, start), stop) - start for end in (self.first, self.last))
        return slice(first, last)
