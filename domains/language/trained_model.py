"""A trained language model as an object of Python: it goes on writing a text."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from domains.language.writing import write
from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.core.types import AtLeastOne, NonNegative, Positive
from sciml.run.trained_model import TrainedModel


@dataclass(frozen=True)
class WritingConfig:
    """Says how much is written, and how.

    Attributes:
        count: bytes to write.
        temperature: small ones write what is likely.
        seed: of what is drawn.
    """

    count: AtLeastOne = 200
    temperature: Positive[float] = 0.8
    seed: NonNegative[int] = 0


class LanguageModel(TrainedModel):
    """Holds a trained model of text."""

    def write(self, beginning: str, count: int = 200, *, temperature: float = 0.8, seed: int = 0) -> str:
        """Returns how the model goes on behind a beginning.

        Args:
            beginning: at least one letter.
            count: bytes to write.
            temperature: small ones write what is likely.
            seed: of what is drawn.

        Raises:
            ConfigError: for what cannot work.
        """
        if not isinstance(beginning, str):
            raise ConfigError(f"must be text, got {type(beginning).__name__}", key="beginning", hint="e.g. 'Call me'")
        given = beginning.encode()
        if not given:
            raise ConfigError("must have at least one letter", key="beginning", hint="e.g. beginning='Call me'")
        wanted = build(WritingConfig, {"count": count, "temperature": temperature, "seed": seed})
        device = self._mesh.device
        tokens = torch.tensor(list(given), device=device)
        context: int = self._loaded.spec.model.context
        written = write(
            self.module, tokens, wanted.count, context=context, temperature=wanted.temperature, seed=wanted.seed
        )
        return bytes(written.tolist()).decode(errors="replace")
