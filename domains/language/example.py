"""Computes what the pictures show of a model: bits along the context and on one page, and text that it writes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor, nn

from domains.language.batch import TextBatch
from domains.language.samples import Windows
from domains.language.task import LanguageTask
from domains.language.writing import write

MOST_WINDOWS = 256
BATCH = 16
PAGE_BYTES = 1200
BEGINNING_BYTES = 120


@torch.no_grad()
def language_example(task: LanguageTask, model: nn.Module, source: Windows) -> dict[str, np.ndarray]:
    """Returns bits of test bytes by position and on one page, and text that the model writes.

    Returns:
        ``bits_model``, ``bits_unigram``, ``bits_bigram`` (position): means over test windows; ``page`` (byte) and
        ``page_bits``: the first bytes of the test text, and what each cost the model; ``beginning`` and ``written``
        (byte): what the model was given, and what it wrote behind it.
    """
    chosen = np.unique(np.linspace(0, len(source) - 1, min(len(source), MOST_WINDOWS)).round().astype(int))
    bits_by_predictor: dict[str, list[Tensor]] = {}
    for batch in _batches(source, chosen, task.device):
        bits_by_predictor.setdefault("model", []).append(task.predict(model, batch).values["bits"].cpu())
        for baseline, predict in task.baselines().items():
            bits_by_predictor.setdefault(baseline.name, []).append(predict(batch).values["bits"].cpu())
    pages = list(_batches(source, range(min(len(source), -(-PAGE_BYTES // source.context))), task.device))
    page = torch.cat([batch.targets.flatten() for batch in pages])
    bits = torch.cat([task.predict(model, batch).values["bits"].flatten() for batch in pages])
    beginning = pages[0].tokens[0, :BEGINNING_BYTES]
    written = write(
        model, beginning, task.config.write_bytes, context=source.context, temperature=task.config.temperature
    )
    return {
        **{f"bits_{name}": torch.cat(rows).double().mean(0).numpy() for name, rows in bits_by_predictor.items()},
        "page": _as_bytes(page[:PAGE_BYTES]),
        "page_bits": bits[:PAGE_BYTES].cpu().numpy(),
        "beginning": _as_bytes(beginning),
        "written": _as_bytes(written),
    }


def _batches(source: Windows, numbers: Iterable[int], device: torch.device | str) -> Iterable[TextBatch]:
    """Returns windows by number, a few together."""
    generator = np.random.default_rng(0)  # windows that are scored draw nothing
    chosen = list(numbers)
    for first in range(0, len(chosen), BATCH):
        yield source.collate([source.sample(n, generator) for n in chosen[first : first + BATCH]]).to(device)


def _as_bytes(tokens: Integer[Tensor, "token"]) -> np.ndarray:
    return tokens.cpu().numpy().astype(np.uint8)
