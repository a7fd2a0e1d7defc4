"""Defines what a language model learns, the next byte, and how it is judged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from domains.language.batch import TextBatch
from domains.language.metrics import LanguageMetrics
from domains.language.schema import LanguageSchema, LanguageStatistics
from sciml.core.types import NonNegative, Positive
from sciml.domain.protocol import LossOutput, Prediction, Predictor
from sciml.domain.score import Baseline
from sciml.report.style import OLIVE, RED

UNIGRAM = Baseline("unigram", OLIVE, "P")
BIGRAM = Baseline("bigram", RED, "P")
BASELINES = (BIGRAM, UNIGRAM)


@dataclass(frozen=True)
class LanguageTaskConfig:
    """Says what the report shows besides scores.

    Attributes:
        write_bytes: how many bytes the model writes for the report; 0 lets it write nothing.
        temperature: by which its logits are divided when it writes.
    """

    practical: ClassVar[tuple[str, ...]] = ("write_bytes", "temperature")

    write_bytes: NonNegative[int] = 400
    temperature: Positive[float] = 0.8


class LanguageTask:
    """Learns the next byte by its negative log-likelihood.

    Args:
        statistics: of the training text, for the baselines.
    """

    needs_double_backward = False

    def __init__(self, schema: LanguageSchema, statistics: LanguageStatistics, config: LanguageTaskConfig) -> None:
        self.schema, self.statistics, self.config = schema, statistics, config
        self.device: torch.device | str = "cpu"

    def to(self, device: torch.device | str) -> LanguageTask:
        self.device, self.statistics = device, self.statistics.to(device)
        return self

    def loss(self, model: nn.Module, batch: TextBatch) -> LossOutput:
        """Returns the mean negative log-likelihood of a byte in nats."""
        loss = model(batch.tokens, batch.targets).mean()
        return LossOutput(loss, {"bits_per_byte": loss.detach() / math.log(2)}, weight=float(batch.num_samples))

    def predict(self, model: nn.Module, batch: TextBatch) -> Prediction:
        """Returns ``bits``: what each target costs under the model, (batch, token), float32."""
        return Prediction({"bits": model(batch.tokens, batch.targets).float() / math.log(2)})

    def advance(self, batch: TextBatch, prediction: Prediction) -> None:
        """Returns None: the targets were the text itself."""
        return

    def metrics(self) -> LanguageMetrics:
        return LanguageMetrics(self.device)

    def baselines(self) -> Mapping[Baseline, Predictor]:
        unigram, bigram = -self.statistics.unigram.log2(), -self.statistics.bigram.log2()
        return {
            UNIGRAM: lambda batch: Prediction({"bits": unigram[batch.targets].float()}),
            BIGRAM: lambda batch: Prediction({"bits": bigram[batch.tokens, batch.targets].float()}),
        }
