"""Scores of predicted text, accumulated over batches and addable over ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from domains.language.batch import TextBatch
from sciml.domain.protocol import Prediction
from sciml.domain.score import Metric, Score


def _two_to_the(bits: float) -> float:
    return 2.0**bits


BITS_PER_BYTE = Metric("bits_per_byte", "bits per byte", unit="bit")
PERPLEXITY = Metric("perplexity", "perplexity", perfect=1.0, unit="1", reduce=_two_to_the)


class LanguageMetrics:
    """Accumulates the mean bits that a byte costs, and the perplexity: 2 to the power of them.

    Args:
        device: where the sums are kept.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)  # bits, bytes

    def sums(self) -> list[Tensor]:
        """Returns the float64 accumulators, in a fixed order."""
        return [self._sums]

    @torch.no_grad()
    def update(self, prediction: Prediction, batch: TextBatch) -> None:
        """Adds the bytes of a batch."""
        bits = prediction.values["bits"]
        self._sums += torch.stack([bits.double().sum(), bits.new_tensor(bits.numel(), dtype=torch.float64)])

    def compute(self) -> list[Score]:
        """Returns the scores; none where no byte was met."""
        bits, count = self._sums.tolist()
        metrics = (BITS_PER_BYTE, PERPLEXITY) if count else ()
        return [Score("text", metric, metric.reduce(bits / count), metric.unit or "") for metric in metrics]
