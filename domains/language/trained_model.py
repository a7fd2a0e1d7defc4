"""A trained language model as an object of Python: it goes on writing a text."""

from __future__ import annotations

import torch

from domains.language.writing import write
from sciml.core.errors import ConfigError
from sciml.run.trained_model import TrainedModel


class LanguageModel(TrainedModel):
    """Holds a trained model of text."""

    def write(self, beginning: str, count: int = 200, *, temperature: float = 0.8, seed: int = 0) -> str:
        """Returns how the model goes on behind a beginning.

        Args:
            beginning: at least one letter.
            count: bytes to write.
            temperature: small ones write what is likely.
            seed: of what is drawn.
        """
        given = beginning.encode()
        if not given:
            raise ConfigError("must have at least one letter", key="beginning", hint="e.g. beginning='Call me'")
        device = self._mesh.device
        tokens = torch.tensor(list(given), device=device)
        context: int = self._loaded.spec.model.context
        written = write(self.module, tokens, count, context=context, temperature=temperature, seed=seed)
        return bytes(written.tolist()).decode(errors="replace")
