"""Text that a model writes itself, byte by byte."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor, nn


@torch.no_grad()
def write(
    model: nn.Module, beginning: Int[Tensor, "token"], count: int, *, context: int, temperature: float, seed: int = 0
) -> Int[Tensor, "token"]:
    """Lets a model write behind a beginning, drawn from its own probabilities.

    Ranks that hold one model together all call it, and draw the same.

    Args:
        beginning: bytes, at least one.
        count: how many bytes to write.
        context: the most bytes that the model sees; earlier ones are forgotten.
        temperature: by which logits are divided; small ones write what is likely.
    """
    generator = torch.Generator().manual_seed(seed)
    text = beginning
    for _ in range(count):
        logits = model(text[None, -context:])[0, -1].double().cpu()
        drawn = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
        text = torch.cat([text, drawn.to(text)])
    return text[len(beginning) :]
