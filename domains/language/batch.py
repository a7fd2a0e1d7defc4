"""Samples of text: some bytes, and what follows each of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class TextBatch:
    """Holds windows of text of one length.

    Attributes:
        tokens: bytes, int64.
        targets: the byte behind each of them, int64.
    """

    tokens: Int[Tensor, "batch token"]
    targets: Int[Tensor, "batch token"]

    @property
    def num_samples(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device | str) -> TextBatch:
        return TextBatch(*(t.to(device, non_blocking=True) for t in (self.tokens, self.targets)))
