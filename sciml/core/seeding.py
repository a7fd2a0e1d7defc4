"""Seeds that depend on what is drawn, never on when or where it is drawn."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def seed_of(seed: int, *parts: int | str) -> int:
    """Returns a 63-bit seed made of the run's seed and the name of what is drawn (a step, a sample, a parameter)."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in parts]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0] >> np.uint64(1))


_shared = torch.Generator()


def seed_step(seed: int, step: int, rank: int = 0, *, shared: tuple[int, ...] = ()) -> None:
    """Seeds dropout and the like for one training step.

    With a seed of its own for every step there is no generator state to save: a resumed run draws what the
    straight run would have drawn.

    Args:
        rank: number of this process: each draws masks of its own, for tokens and heads that others do not have.
        shared: what ranks have in common that must draw alike from :func:`shared_generator`.
    """
    torch.manual_seed(seed_of(seed, "step", step, rank))
    _shared.manual_seed(seed_of(seed, "shared", step, *shared))


def shared_generator() -> torch.Generator:
    """Returns a generator on the CPU that draws alike on all ranks that compute the same samples together.

    Of use for what concerns whole samples, in modules that these ranks call in the same order.
    """
    return _shared
