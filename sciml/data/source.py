"""Defines the data that a trainer needs: samples by number, drawn with a given generator, gathered into batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch

B = TypeVar("B", bound="Batch")


class Batch(Protocol):
    """Holds a few samples together, on one device."""

    @property
    def num_samples(self) -> int: ...

    def to(self: B, device: torch.device | str) -> B: ...


class SampleSource(Protocol):
    """Gives a finite set of samples.

    Everything random in a sample (which lead time, which augmentation) is drawn from the generator that is
    handed in. It is seeded by (seed, epoch, index), so that a sample is the same whichever worker, rank or
    restarted run asks for it.
    """

    def __len__(self) -> int: ...

    def sample(self, index: int, generator: np.random.Generator) -> Any: ...

    def collate(self, samples: Sequence[Any]) -> Batch: ...


@runtime_checkable
class BatchedSource(Protocol):
    """Describes sources that read several samples sooner together than one after the other."""

    def samples(self, indices: Sequence[int], generators: Sequence[np.random.Generator]) -> list[Any]:
        """Returns what ``sample`` does for each."""
        ...


@runtime_checkable
class GroupedSource(SampleSource, Protocol):
    """Describes sources whose samples are not independent, such as times of one simulation."""

    def group(self, index: int) -> str:
        """Names what a sample comes from; samples of different groups are independent."""
        ...


@runtime_checkable
class CostedSource(Protocol):
    """Describes sources whose samples differ in size: the loader then makes a step's micro-batches cost alike."""

    def costs(self) -> np.ndarray:
        """Returns what each sample costs, (len,), positive, in any unit; known without reading the samples."""
        ...
