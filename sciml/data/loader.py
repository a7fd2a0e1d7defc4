"""Batches for training and evaluation: every sample once an epoch, the same whatever the workers and the ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from sciml.core.seeding import seed_of
from sciml.data.balance import balanced_parts
from sciml.data.batch_tensors import PinnableCollate
from sciml.data.source import BatchedSource, CostedSource, SampleSource


@dataclass(frozen=True)
class SampleIndex:
    """Identifies one use of one sample."""

    epoch: int
    index: int


@dataclass(frozen=True)
class ShuffledSampler:
    """Draws samples without end: one permutation of all samples after the other, cut into global batches.

    The position is a function of the step number alone. No sample is dropped at an epoch's end, since batches run on
    into the next permutation; and the global batch of a step is the same for any number of ranks.

    Attributes:
        num_samples: size of the data set.
        global_batch_size: samples a step, over all ranks.
        seed: the run's seed.
        offset: samples drawn besides ``global_batch_size`` a step; not 0 after steps of another size.
    """

    num_samples: int
    global_batch_size: int
    seed: int
    offset: int = 0

    def resumed(self, step: int, samples: int) -> ShuffledSampler:
        """Returns the sampler that goes on at a step where so many samples have been drawn."""
        return replace(self, offset=samples - step * self.global_batch_size)

    def samples(self, step: int) -> int:
        """Returns the number of samples that are drawn before a step."""
        return step * self.global_batch_size + self.offset

    def draws(self, step: int, rank: int = 0, num_ranks: int = 1) -> list[SampleIndex]:
        """Returns the sample indices of one rank at one step; the ranks' parts are disjoint and equal."""
        share = self.global_batch_size // num_ranks
        first = self.samples(step) + rank * share
        return [self._draw(position) for position in range(first, first + share)]

    def epoch_of(self, step: int) -> float:
        """Returns the number of epochs that are complete before a step."""
        return self.samples(step) / self.num_samples

    def _draw(self, position: int) -> SampleIndex:
        epoch, place = divmod(position, self.num_samples)
        return SampleIndex(epoch, int(_permutation(self.num_samples, self.seed, epoch)[place]))


@lru_cache(maxsize=4)
def _permutation(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng(seed_of(seed, "epoch", epoch)).permutation(num_samples)


class SeededDataset(Dataset):
    """Shows a source to torch: from a sample index to a sample, with a generator of its own."""

    def __init__(self, source: SampleSource, seed: int) -> None:
        self.source, self.seed = source, seed

    def __getitem__(self, draw: SampleIndex) -> Any:
        return self.source.sample(draw.index, self._generator(draw))

    def __getitems__(self, draws: Sequence[SampleIndex]) -> list[Any]:
        if isinstance(self.source, BatchedSource):
            return self.source.samples([draw.index for draw in draws], [self._generator(draw) for draw in draws])
        return [self[draw] for draw in draws]

    def _generator(self, draw: SampleIndex) -> np.random.Generator:
        return np.random.default_rng(seed_of(self.seed, "sample", draw.epoch, draw.index))


def training_batches(
    source: SampleSource,
    stream: ShuffledSampler,
    *,
    start_step: int,
    stop_step: int,
    micro_batch_size: int,
    rank: int = 0,
    num_ranks: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Any]:
    """Yields the micro-batches of this rank from ``start_step`` on, in order.

    A step's share (``global_batch_size / num_ranks``) is cut into micro-batches of ``micro_batch_size``. Where the
    source knows what its samples cost, there are as many micro-batches, but the step's samples are shared over all of
    them on all ranks so that they cost alike; each has at least one sample.

    Args:
        pin_memory: whether batches are in pinned memory, for an accelerator.
    """
    costs = source.costs() if isinstance(source, CostedSource) else None
    share = stream.global_batch_size // num_ranks
    num_micro = -(-share // micro_batch_size)

    def micro_batches() -> Iterator[list[SampleIndex]]:
        for step in range(start_step, stop_step):
            if costs is not None:
                draws = stream.draws(step)
                parts = balanced_parts(costs[[draw.index for draw in draws]], num_ranks * num_micro)
                for part in parts[rank * num_micro : (rank + 1) * num_micro]:
                    yield [draws[place] for place in part]
                continue
            draws = stream.draws(step, rank, num_ranks)
            for first in range(0, len(draws), micro_batch_size):
                yield draws[first : first + micro_batch_size]

    return iter(_loader(source, stream.seed, micro_batches(), num_workers, pin_memory))


def evaluation_batches(
    source: SampleSource,
    *,
    batch_size: int,
    seed: int,
    rank: int = 0,
    num_ranks: int = 1,
    num_workers: int = 0,
    limit: int | None = None,
) -> Iterator[Any]:
    """Yields each sample once over all ranks, in order, in the same number of batches on every rank.

    Ranks that compute one model together so stay in step to the end. Their shares may differ by a sample; with
    fewer samples than ranks each rank yields all of them, which changes no mean.

    Args:
        batch_size: samples of a batch; one more where shares differ and are as small as that.
        limit: use only so many samples, spread evenly over the source.
    """
    count = len(source) if limit is None else min(limit, len(source))
    chosen = np.unique(np.linspace(0, len(source) - 1, count).round().astype(int)) if count else np.array([], int)
    enough = len(chosen) >= num_ranks
    shares = [chosen[first::num_ranks] if enough else chosen for first in range(num_ranks)]
    sizes = [len(share) for share in shares]
    num_batches = min(-(-max(sizes) // batch_size), min(sizes))
    parts = np.array_split(shares[rank], num_batches) if num_batches else []
    plan = [[SampleIndex(0, int(index)) for index in part] for part in parts]
    return iter(_loader(source, seed, plan, num_workers))


def _loader(
    source: SampleSource, seed: int, plan: Iterable[list[SampleIndex]], num_workers: int, pin_memory: bool = False
) -> DataLoader:
    return DataLoader(
        SeededDataset(source, seed),
        batch_sampler=plan,
        num_workers=num_workers,
        collate_fn=PinnableCollate(source.collate) if pin_memory else source.collate,
        pin_memory=pin_memory,
        prefetch_factor=4 if num_workers else None,
        generator=torch.Generator().manual_seed(seed),  # the loader would draw from the global one
    )
