"""Describes what a language model is built from, and counts how often bytes follow one another in its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from domains.language.text import NUM_BYTES, Blank, Passage
from sciml.core.config import build

BLOCK = 2**24
"""Bytes that are counted together."""


@dataclass(frozen=True)
class LanguageSchema:
    """Says what the tokens are.

    Attributes:
        context: bytes of a sample.
        title: what the text is; shown on pictures.
    """

    context: int
    title: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LanguageSchema:
        return build(cls, values, prefix="schema")


@dataclass(frozen=True)
class LanguageStatistics:
    """Counts how often each byte follows each in the training text: (byte, next byte), int64."""

    pairs: Int[Tensor, "byte next"]

    @property
    def unigram(self) -> Float[Tensor, "byte"]:
        """Returns the probability of each byte; each counts once more than it was seen, so none is impossible."""
        counts = self.pairs.sum(0).double() + 1
        return counts / counts.sum()

    @property
    def bigram(self) -> Float[Tensor, "byte next"]:
        """Returns the probability of the next byte given one; what was seen, and one more drawn from the unigram."""
        counts = self.pairs.double() + self.unigram
        return counts / counts.sum(1, keepdim=True)

    def to(self, device: torch.device | str) -> LanguageStatistics:
        return LanguageStatistics(self.pairs.to(device))

    def to_tensors(self) -> dict[str, Tensor]:
        return {"pairs": self.pairs}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> LanguageStatistics:
        return cls(tensors["pairs"])


def count_pairs(passages: Sequence[Passage | Blank]) -> LanguageStatistics:
    """Returns counts of successive bytes, in bounded memory."""
    counts = np.zeros(NUM_BYTES**2, np.int64)
    for passage in passages:
        for first in range(0, len(passage) - 1, BLOCK):
            text = passage.read(first, BLOCK + 1).astype(np.int64)
            counts += np.bincount(text[:-1] * NUM_BYTES + text[1:], minlength=NUM_BYTES**2)
    return LanguageStatistics(torch.from_numpy(counts.reshape(NUM_BYTES, NUM_BYTES)))
