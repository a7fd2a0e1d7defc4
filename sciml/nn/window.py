"""Windows of neighboring tokens, within which attention mixes: its cost grows with their number, not its square.

Tokens are put window by window, windows of one size behind one another, so that each size is one batch of short
sequences for any attention kernel: nothing is filled up, and nothing is masked.

Source: Liu et al. (2021), https://doi.org/10.48550/arXiv.2103.14030, for windows shifted in every second block.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from sciml.nn.topology import Topology

AttentionKind = Literal["global", "window"]
Pattern = Literal["global", "window", "shifted"]
"""Whom the tokens of a block attend to: all, those of their window, or those of their shifted window."""


class Partition(NamedTuple):
    """Assigns every token to one window.

    Attributes:
        order: numbers of the tokens, window by window.
        inverse: where in ``order`` each token stands.
        sizes: number of windows, and of tokens in each, for one size after the other.
    """

    order: Int[Tensor, "token"]
    inverse: Int[Tensor, "token"]
    sizes: tuple[tuple[int, int], ...]

    def split(self, x: Shaped[Tensor, "batch token head channel"]) -> list[Tensor]:
        """Returns the tokens as batches (window, token, head, channel), one for each size.

        The partition may be of all samples together, in a batch whose samples lie in grids of different kinds.
        """
        sample = x.flatten(0, 1).unflatten(0, (-1, len(self.order)))
        sorted_ = _Permutation.apply(sample, self.order, self.inverse)
        parts = sorted_.split([windows * tokens for windows, tokens in self.sizes], dim=1)
        return [part.reshape(-1, tokens, *x.shape[2:]) for part, (_, tokens) in zip(parts, self.sizes, strict=True)]

    def join(self, parts: list[Tensor], batch: int) -> Shaped[Tensor, "batch token head channel"]:
        """Inverts :meth:`split` for a batch of so many samples."""
        samples = [
            part.reshape(-1, windows * tokens, *part.shape[2:])
            for part, (windows, tokens) in zip(parts, self.sizes, strict=True)
        ]
        whole = torch.cat(samples, dim=1) if len(samples) > 1 else samples[0]
        return _Permutation.apply(whole, self.inverse, self.order).flatten(0, 1).unflatten(0, (batch, -1))


class Windows(NamedTuple):
    """Holds the windows of a grid's tokens, and those that are shifted by half a window."""

    plain: Partition
    shifted: Partition

    def of(self, pattern: Pattern) -> Partition | None:
        """Returns the partition that a block's pattern asks for; None where tokens attend to all."""
        return {"global": None, "window": self.plain, "shifted": self.shifted}[pattern]


@lru_cache(maxsize=64)
def windows_on(
    topology: Topology, shape: tuple[int, int], window: tuple[int, int], device: torch.device | str = "cpu"
) -> Windows:
    """Cuts a grid of tokens, which are numbered row by row, into windows.

    Args:
        topology: says whose windows meet beyond an edge.
        shape: rows and columns of tokens.
        window: the most rows and columns of a window.
    """
    both = (_partition(topology.windows(shape, window, shifted=shifted), device) for shifted in (False, True))
    return Windows(*both)


def _partition(numbers: Int[np.ndarray, "sample row column"], device: torch.device | str) -> Partition:
    """Sorts tokens by the size of their windows, by windows, and by their own numbers."""
    count = int(numbers.max()) + 1
    flat = (numbers + count * np.arange(len(numbers))[:, None, None]).ravel()
    sizes = np.bincount(flat)[flat]
    order = np.lexsort((flat, sizes))
    tokens, members = np.unique(sizes, return_counts=True)
    groups = tuple((int(number // size), int(size)) for size, number in zip(tokens, members, strict=True))
    inverse = np.argsort(order)
    return Partition(torch.from_numpy(order).to(device), torch.from_numpy(inverse).to(device), groups)


class _Permutation(torch.autograd.Function):
    """Puts the tokens (dim 1) in another order; its backward pass is the inverse permutation, and so on."""

    @staticmethod
    def forward(
        ctx: Any, x: Shaped[Tensor, "..."], order: Int[Tensor, "token"], inverse: Int[Tensor, "token"]
    ) -> Shaped[Tensor, "..."]:
        ctx.save_for_backward(order, inverse)
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, *grads: Shaped[Tensor, "..."]) -> tuple[Shaped[Tensor, "..."], None, None]:
        order, inverse = ctx.saved_tensors
        return _Permutation.apply(grads[0], inverse, order), None, None
