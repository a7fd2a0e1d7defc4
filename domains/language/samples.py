"""Windows of text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt
from torch import Tensor

from domains.language.batch import TextBatch
from domains.language.text import Blank, Passage
from sciml.core.errors import DataError


class Windows:
    """Cuts passages into windows of ``context`` bytes and the byte behind them.

    A window begins every ``context`` bytes, so that each byte is predicted once; the rest at a passage's end is left
    out. Where starts are random, each is moved by up to a window, so that epochs differ and still see everything.

    Args:
        passages: those that are shorter than a window have none.
        split: their name, for messages.
        random: whether starts are drawn.
        required: whether there must be a window.

    Raises:
        DataError: where no passage is long enough.
    """

    def __init__(
        self,
        passages: Sequence[Passage | Blank],
        split: str,
        context: int,
        *,
        random: bool = False,
        required: bool = True,
    ) -> None:
        self.context, self.random = context, random
        self.passages = [passage for passage in passages if len(passage) > context]
        if required and not self.passages:
            longest = max(passages, key=len, default=None)
            where = (
                f"{longest.path}: its part for {split} has {len(longest)} bytes" if longest else f"{split} has no text"
            )
            raise DataError(
                f"{where}, {context + 1} are needed for a window; give longer text, a larger data.splits.{split} "
                "or a smaller data.context"
            )
        self.ends = np.cumsum([(len(passage) - 1) // context for passage in self.passages])

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def sample(self, index: int, generator: np.random.Generator) -> UInt[Tensor, "byte"]:
        """Returns the window's bytes, (context + 1,) uint8."""
        number = int(np.searchsorted(self.ends, index, side="right"))
        passage, earlier = self.passages[number], int(self.ends[number - 1]) if number else 0
        first = (index - earlier) * self.context
        if self.random:
            first = min(first + int(generator.integers(self.context)), len(passage) - self.context - 1)
        return torch.from_numpy(np.array(passage.read(first, self.context + 1)))

    @staticmethod
    def collate(samples: Sequence[Tensor]) -> TextBatch:
        bytes_ = torch.stack(list(samples)).long()
        return TextBatch(bytes_[:, :-1].contiguous(), bytes_[:, 1:].contiguous())
