"""Scores of predicted text, accumulated over batches and addable over ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from domains.language.batch import TextBatch
from sciml.domain.protocol import Prediction, Score


class LanguageMetrics:
    """Mean bits that a byte costs, and the perplexity: 2 to the power of them.

    Args:
        device: where the sums are kept.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)  # bits, bytes

    def sums(self) -> list[Tensor]:
        """The float64 accumulators, in a fixed order."""
        return [self._sums]

    @torch.no_grad()
    def update(self, prediction: Prediction, batch: TextBatch) -> None:
        """Adds the bytes of a batch."""
        bits = prediction.values["bits"]
        self._sums += torch.stack([bits.double().sum(), bits.new_tensor(bits.numel(), dtype=torch.float64)])

    def compute(self) -> list[Score]:
        """The scores; none where no byte was met."""
        bits, count = self._sums.tolist()
        if not count:
            return []
        return [
            Score("text", "bits_per_byte", bits / count, "bit"),
            Score("text", "perplexity", 2 ** (bits / count), "1"),
        ]
